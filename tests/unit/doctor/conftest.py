"""The real daemon's installation, which doctor looks at."""

from tests.scenario.daemon.conftest import brokerd, folder, serving

__all__ = ["brokerd", "folder", "serving"]
