"""The daemon of tests/scenario/daemon, for every way to get a token."""

from tests.scenario.daemon.conftest import brokerd, folder, serving

__all__ = ["brokerd", "folder", "serving"]
