"""The real daemon of tests/daemon."""

from tests.daemon.conftest import brokerd, folder, serving

__all__ = ["brokerd", "folder", "serving"]
