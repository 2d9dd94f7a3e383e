"""Fetch access tokens from brokerd."""

__version__ = "0.1.0"
