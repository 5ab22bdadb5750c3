"""Penstock's tests; see docs/testing.md for what each folder proves."""
