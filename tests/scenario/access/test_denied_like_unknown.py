# At the real daemon, the order of pipelined answers does not show whether a grant is denied or unknown (law 9).
from __future__ import annotations

from pathlib import Path

from brokerd_client.wire import Reader, pack_request

from tests.scenario.access.world import APP, World

PAIRS = 60  # fewer requests than may wait on a connection
FAR = 40  # of them; where chance decides the order, the counts differ by as many once in a billion runs


def answered_as_sent(here: World, first: str, second: str) -> int:
    """In how many pairs the answer about the first came before that about the second. The caller has another program
    than the rules name, which has to be read in a thread each time: its file is gone."""
    program = here.program("gone", b"\1")
    process = here.process(APP).connect().execute(program, "gone")
    Path(program).unlink()
    names = [first, second] * PAIRS
    process.shell_sends(b"".join(pack_request(at, "get", {"grant": name}) for at, name in enumerate(names)))
    reader, order = Reader(), list[int]()
    while len(order) < len(names):
        reader.feed(process.sock.recv(65_536))
        for _, number, error, _ in reader:
            assert error["code"] == "unknown_grant"
            order.append(number)
    place = {number: at for at, number in enumerate(order)}
    return sum(place[number] < place[number + 1] for number in range(0, len(names), 2))


def test_the_order_of_answers_does_not_tell_a_denied_grant_from_one_that_is_not_there(here: World) -> None:
    for denied in ("exe", "sha256"):
        assert abs(answered_as_sent(here, denied, "qqq") - answered_as_sent(here, "qqq", denied)) < FAR
