# Attempts to get a token by the short way of a connection (server/short_way.py) that was served before: by real
# processes, and each refused. What rules, locks, renewals and clocks change is in test_short_way.py.
from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from tests.scenario.access.test_bypasses import REFUSED
from tests.scenario.access.world import APP, OTHER, Process, World, request

TIMES = 4  # the third get and later ones go the short way
Attempt = Callable[[World], str]


def served(process: Process, grant: str = "uid") -> Process:
    for _ in range(TIMES):
        assert process.asks(grant) == "token"
    return process


def served_as_a_shell(process: Process, grant: str) -> Process:
    for _ in range(TIMES):
        assert process.shell_asks(grant) == "token"
    return process


def a_forked_child(here: World) -> str:
    return served(here.process(APP).connect()).fork().asks("uid")


def an_orphan(here: World) -> str:
    return served(here.process(APP).connect()).leave_to_a_child().asks("uid")


def a_process_with_the_number_of_the_dead_caller(here: World) -> str:
    return served(here.process().connect()).leave_to_a_child_with_our_number().asks("uid")


def what_was_asked_before_the_caller_ended_is_read_by_its_child(here: World) -> str:
    """The requests are there when the caller ends; whatever is sent after its end reaches nobody."""
    process = served(here.process(APP).connect()).leave_to_a_child()
    process.send(request("uid").hex())
    return process.reply()


def a_socket_handed_to_another_process(here: World) -> str:
    owner = served(here.process(APP).connect())
    ours, its = socket.socketpair()
    with ours, its:
        taker = here.process(APP, sock=its)
        socket.send_fds(ours, [b"!"], [owner.number])
        taker.take().send(request("uid").hex())
    return owner.reply()


def a_socket_handed_to_another_user(here: World) -> str:
    owner = served(here.process(APP).connect())
    ours, its = socket.socketpair()
    with ours, its:
        taker = here.process(OTHER, sock=its)
        socket.send_fds(ours, [b"!"], [owner.number])
        taker.take().send(request("uid").hex())
    return owner.reply()


def a_socket_that_was_stolen_from_a_process(here: World) -> str:
    owner = served(here.process(APP).connect())
    here.process().steal(owner.pid, owner.number).send(request("uid").hex())
    return owner.reply()


def descriptors_in_a_request(here: World) -> str:
    process = served(here.process(APP).connect())
    process.send_with_descriptors(request("uid").hex(), 253)
    return process.reply()


def a_child_ends_its_parents_sentence(here: World) -> str:
    process, said = served(here.process(APP).connect()), request("uid")
    process.send(said[:9].hex())
    process.fork().send(said[9:].hex())
    return process.reply()


def another_program_in_the_same_process(here: World) -> str:
    process = served_as_a_shell(here.process(APP).connect().execute(here.portal, "portal"), "exe")
    process.shell_becomes(here.evil)
    return process.shell_asks("exe")


def other_bytes_in_the_same_process(here: World) -> str:
    process = served_as_a_shell(here.process(APP).connect().execute(here.portal, "portal"), "sha256")
    process.shell_becomes(here.evil)
    return process.shell_asks("sha256")


def a_process_that_left_its_unit(here: World) -> str:
    process = served(here.process(APP, within="portal.service").connect(), "unit")
    here.move(process, "evil.service")
    return process.asks("unit")


def another_grant_of_the_same_length(here: World) -> str:
    return served(here.process(APP).connect()).asks("exe")


ATTEMPTS: tuple[Attempt, ...] = (
    a_forked_child,
    an_orphan,
    a_process_with_the_number_of_the_dead_caller,
    what_was_asked_before_the_caller_ended_is_read_by_its_child,
    a_socket_handed_to_another_process,
    a_socket_handed_to_another_user,
    a_socket_that_was_stolen_from_a_process,
    descriptors_in_a_request,
    a_child_ends_its_parents_sentence,
    another_program_in_the_same_process,
    other_bytes_in_the_same_process,
    a_process_that_left_its_unit,
    another_grant_of_the_same_length,
)


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.__name__.replace("_", "-"))
def test_refused_after_gets_by_the_short_way(here: World, attempt: Attempt) -> None:
    assert attempt(here) in REFUSED
