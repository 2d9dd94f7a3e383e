"""systemd and its journal: notifications, sockets, units, the descriptor store."""
