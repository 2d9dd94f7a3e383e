"""The soak: the real daemon for minutes or hours, everything around it failing at random, and counted at the end."""
