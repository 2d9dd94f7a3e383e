"""The real daemon of tests/scenario/daemon, a disk that can be full, and a real etcd."""

from tests.real.etcd.conftest import etcd_cluster
from tests.scenario.daemon.conftest import as_root, brokerd, folder, other_user, serving
from tests.scenario.disk.conftest import disk

__all__ = ["as_root", "brokerd", "disk", "etcd_cluster", "folder", "other_user", "serving"]
