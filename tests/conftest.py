"""What all tests share: the fixtures of the real servers, and the loud word at the end when one could not run."""

import pytest

from tests.realservers.fixtures import DID_NOT_RUN, real_oidc, real_simplejwt, start_oidc, start_simplejwt

__all__ = ["real_oidc", "real_simplejwt", "start_oidc", "start_simplejwt"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for reason in terminalreporter.config.stash.get(DID_NOT_RUN, []):
        terminalreporter.ensure_newline()
        terminalreporter.write_line(f"REAL SERVERS DID NOT RUN: {reason}", red=True, bold=True)
