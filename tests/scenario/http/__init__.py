"""HTTP on a Unix socket: what applications see, and attacks on it."""
