"""brokerd: keeps API tokens fresh and hands them to local processes."""

__version__ = "0.3.0.dev0"
