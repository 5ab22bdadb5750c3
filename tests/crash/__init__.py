"""Crash tests: real clients against a broker that is killed, one checker of what was promised."""
