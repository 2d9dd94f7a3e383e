"""Logins by a person: the dialect's part alone, and whole ones with real processes, a terminal and a browser."""
