"""brokerctl files, as a process beside a real daemon."""
