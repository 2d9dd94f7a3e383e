"""Many random faults, many callers, long times."""
