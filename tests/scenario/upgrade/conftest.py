"""The real daemon of tests/scenario/daemon."""

from tests.scenario.daemon.conftest import brokerd, folder, serving

__all__ = ["brokerd", "folder", "serving"]
