"""The store that hosts share (docs/fleet.md): etcd is the truth, the host's own SQLite store its sealed copy."""
