"""The socket: connections, sessions, methods."""
