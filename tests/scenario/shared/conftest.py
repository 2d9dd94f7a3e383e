"""A brokerd for each test."""

from tests.scenario.daemon.conftest import as_root, brokerd, folder, serving

__all__ = ["as_root", "brokerd", "folder", "serving"]
