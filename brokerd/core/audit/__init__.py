"""The lines of the audit log: chained, sealed, and checked."""
