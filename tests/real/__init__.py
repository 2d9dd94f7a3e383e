"""Real servers, real clients, a real systemd, the package, a fresh machine."""
