"""Clocks, durations, backoff, and when something is due."""
