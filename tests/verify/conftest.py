"""The daemon of tests/daemon, for what a provider is asked about tokens and told of them."""

from tests.daemon.conftest import api, brokerd, folder, serving

__all__ = ["api", "brokerd", "folder", "serving"]
