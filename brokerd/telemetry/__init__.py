"""What is logged, audited and counted."""
