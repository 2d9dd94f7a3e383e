"""The configuration files: load.py reads them, settings.py has what they become."""
