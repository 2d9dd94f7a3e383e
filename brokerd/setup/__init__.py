"""Installing, checking and extending a configuration."""
