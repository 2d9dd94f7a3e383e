"""Unmodified clients, each run as its users run it, against a guarded server of tests/servers/guarded."""
