"""The daemon of tests/daemon, for every way to get a token."""

from tests.daemon.conftest import brokerd, folder, serving

__all__ = ["brokerd", "folder", "serving"]
