"""The process at the other end of a connection, as the kernel describes it."""
