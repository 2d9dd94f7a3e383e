"""The tests that need root are listed at the end of the run where they could not run."""

from tests.scenario.daemon.conftest import as_root

__all__ = ["as_root"]
