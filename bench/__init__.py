"""Benchmarks: a neutral load generator, a floor program, and the harness that runs both in one go."""
