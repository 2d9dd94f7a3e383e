# What is read of etcd's gateway, of any bytes: a value of the Etcd port that holds together, or a refusal whose words
# people may see. A watch tells revisions in order, each once. The first byte says what is read.
from __future__ import annotations

from collections.abc import Callable

from brokerd.core.fleet import gateway_json
from brokerd.core.fleet.etcd import Changes, Found, Pair, Transacted
from brokerd.core.fleet.gateway_errors import EtcdFailure, failure_of, refused_answer
from brokerd.core.fleet.gateway_json import BadGatewayAnswer, WatchLines
from brokerd.core.secret import Secret
from tests.stress.fuzz.shown_text import fit_for_people, without

EXPECTED = (b"k1", b"k2")


def check(data: bytes) -> None:
    if not data:
        return
    body = data[1:]
    for failure in (failure_of(body), refused_answer(500, body)):
        if failure is not None:
            fit_for_people(failure.words)
            if b"etcdserver: " not in body.replace(b"\\", b""):
                assert "hunter2" not in failure.words
    watched(body)
    reader = READERS[data[0] % len(READERS)]
    try:
        reader(body)
    except BadGatewayAnswer as error:
        fit_for_people(str(error))
        without(str(error), ["hunter2"])


def found(body: bytes) -> None:
    coherent(gateway_json.found(body))


def page(body: bytes) -> None:
    given, is_more = gateway_json.page(body)
    coherent(given)
    assert given.pairs or not is_more


def transacted(body: bytes) -> None:
    given = gateway_json.transacted(body, EXPECTED)
    assert isinstance(given, Transacted)
    assert set(given.found) <= (set() if given.done else set(EXPECTED))
    coherent(Found(given.found, given.revision, given.cluster))


def lease(body: bytes) -> None:
    number, seconds = gateway_json.lease(body)
    assert number > 0
    assert seconds > 0


def seconds_left(body: bytes) -> None:
    assert gateway_json.seconds_left(body) >= 0


def token(body: bytes) -> None:
    given = gateway_json.token(body)
    assert isinstance(given, Secret)
    assert given.reveal().isascii()
    assert given.reveal().isprintable()
    assert " " not in given.reveal()


READERS: tuple[Callable[[bytes], None], ...] = (found, page, transacted, lease, seconds_left, token)


def coherent(given: Found) -> None:
    assert given.revision > 0
    assert given.cluster >= 0
    for key, pair in given.pairs.items():
        assert isinstance(pair, Pair)
        assert key == pair.key
        assert pair.modified >= 0
        assert isinstance(pair.value, bytes)


def watched(body: bytes) -> None:
    lines, last = WatchLines(), 0
    try:
        for line in body.split(b"\n"):
            told = lines.read(line)
            if isinstance(told, EtcdFailure):
                fit_for_people(told.words)
                return
            for each in told:
                assert isinstance(each, Changes)
                assert each.revision > 0
                if each.changes:
                    assert each.revision > last
                    last = each.revision
                for key, pair in each.changes:
                    assert pair is None or (pair.key, pair.modified) == (key, each.revision)
    except BadGatewayAnswer as error:
        fit_for_people(str(error))
