"""What a user sees: a real daemon, or a whole one on virtual time."""
