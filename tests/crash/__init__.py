"""Crash tests: real clients against a broker that is killed, and one checker of what was promised."""
