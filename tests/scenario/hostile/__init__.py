"""Providers that misbehave: each fault a named row, met by the real daemon over real sockets (laws 3, 7, 8, 11, 12)."""
