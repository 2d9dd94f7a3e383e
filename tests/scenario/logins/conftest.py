"""The daemon of tests/scenario/daemon, and a brokerctl beside it that a test talks to as a person does."""

from collections.abc import Callable, Iterator

import pytest

from tests.scenario.daemon.conftest import brokerd, folder, serving
from tests.scenario.daemon.harness import Brokerd
from tests.scenario.logins.terminal import Terminal

__all__ = ["brokerd", "folder", "serving"]


@pytest.fixture
def terminal(brokerd: Brokerd) -> Iterator[Callable[..., Terminal]]:
    """terminal("login", "app", is_tty=False, **environment): a brokerctl that runs until the test's end at most."""
    made: list[Terminal] = []

    def start(*words: str, is_tty: bool = False, **environment: str) -> Terminal:
        made.append(Terminal(brokerd.socket, words, is_tty=is_tty, environment=environment))
        return made[-1]

    yield start
    for each in made:
        each.close()
