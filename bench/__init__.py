"""Benchmarks: a neutral load generator, a floor program, the harness that runs both in one go."""
