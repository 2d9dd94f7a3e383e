"""What all tests share: the fixtures of the real servers, and the list of what could not run, at the end of the run."""

import signal
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from tests.did_not_run import announcements, with_reason
from tests.real.servers.fixtures import real_oidc, real_simplejwt, start_oidc, start_simplejwt

__all__ = ["real_oidc", "real_simplejwt", "start_oidc", "start_simplejwt"]


# How long an example takes says how busy the machine is. What must end is bounded by its own test.
settings.register_profile("brokerd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("brokerd")


def pytest_configure() -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it leaves in the background; so
        signal.signal(signal.SIGINT, signal.default_int_handler)  # would be the programs that tests interrupt


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return with_reason((yield))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for said in announcements(terminalreporter.getreports("skipped")):
        terminalreporter.ensure_newline()
        terminalreporter.write_line(said, red=True, bold=True)
