"""The real daemon's installation, which doctor looks at."""

from tests.daemon.conftest import brokerd, folder, serving

__all__ = ["brokerd", "folder", "serving"]
