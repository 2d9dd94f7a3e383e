"""The real daemon of tests/scenario/daemon, and a disk that can be full."""

from tests.scenario.daemon.conftest import as_root, brokerd, folder, other_user, serving
from tests.scenario.disk.conftest import disk

__all__ = ["as_root", "brokerd", "disk", "folder", "other_user", "serving"]
