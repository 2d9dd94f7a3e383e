"""What needs root says loudly where it could not run."""

from tests.daemon.conftest import as_root

__all__ = ["as_root"]
