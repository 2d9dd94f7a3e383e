"""The files of the audit log, and the thread that writes them."""
