"""The daemon of tests/scenario/daemon, for what a provider is asked about tokens and told of them."""

from tests.scenario.daemon.conftest import api, brokerd, folder, serving

__all__ = ["api", "brokerd", "folder", "serving"]
