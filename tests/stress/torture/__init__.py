"""Kills the real daemon at every point of an exchange with real servers, and sees what the next start makes of it."""
