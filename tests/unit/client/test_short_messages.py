from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgpack
import pytest
from brokerd_client import short_messages
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.client.daemon import Daemon
from tests.unit.client.test_wire import values

NUMBERS = sorted({sign * (1 << bits) + more for bits in range(65) for sign in (1, -1) for more in (-1, 0, 1)})
LENGTHS = (0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536)


@given(values)
def test_it_packs_as_msgpack_does_and_reads_it_back(value: Any) -> None:
    data = short_messages.pack(value)
    assert data == msgpack.packb(value)
    assert short_messages.unpack(data) == value


@pytest.mark.parametrize("value", [number for number in NUMBERS if -(2**63) <= number < 2**64])
def test_every_size_of_a_number(value: int) -> None:
    assert short_messages.pack(value) == msgpack.packb(value)
    assert short_messages.unpack(msgpack.packb(value)) == value


@pytest.mark.parametrize("length", LENGTHS)
def test_every_size_of_text_arrays_and_maps(length: int) -> None:
    for value in ("x" * length, [None] * length, {str(number): True for number in range(length)}):
        assert short_messages.pack(value) == msgpack.packb(value)
        assert short_messages.unpack(msgpack.packb(value)) == value


@given(st.floats(width=32, allow_nan=False))
def test_a_short_float_is_read_too(value: float) -> None:
    assert short_messages.unpack(msgpack.packb(value, use_single_float=True)) == value


def test_a_tuple_is_an_array() -> None:
    assert short_messages.pack((0, 1, "get", ({"grant": "ix"},))) == msgpack.packb([0, 1, "get", [{"grant": "ix"}]])


@pytest.mark.parametrize(
    ("value", "error"),
    [(2**64, OverflowError), (-(2**63) - 1, OverflowError), ("\ud800", UnicodeError), ({1}, TypeError)],
)
def test_what_msgpack_does_not_pack_it_does_not(value: Any, error: type[Exception]) -> None:
    for pack in (short_messages.pack, msgpack.packb):
        with pytest.raises(error):
            pack(value)


@pytest.mark.parametrize("data", [b"\xa1\xff", b"\x81\x01\x02", b"\x81\x90\x02", b"\x91\x81\xc0\xc0"])
def test_what_msgpack_does_not_read_it_does_not(data: bytes) -> None:
    for unpack in (short_messages.unpack, msgpack.unpackb):
        with pytest.raises(ValueError):
            unpack(data)


def test_a_program_that_cannot_reach_msgpack_any_more_goes_on_without(daemon: Daemon) -> None:
    lines = (
        "import sys",
        "from brokerd_client import Broker",
        "sys.path.clear(); sys.path_importer_cache.clear()",
        "with Broker() as broker: print(*(broker.get('ix').value for _ in range(3)))",
        "print('msgpack' in sys.modules)",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*["token-of-ix"] * 3, "False"]


@pytest.mark.parametrize(
    ("program", "loads"),
    [
        ("protocol.request(get)", False),
        ("protocol.request(get); protocol.request(get)", True),
        (
            "list(protocol.receive(wire.pack_notification('token', {'grant': 'ix', 'value': 'v', 'token_type': 't'})))",
            True,
        ),
        ("list(wire.Reader(wire.MAX_ANSWER)) ; wire._unpack(wire.pack_result(0, 'x' * wire.SHORT))", True),
    ],
)
def test_a_second_request_an_event_or_a_long_answer_loads_msgpack(program: str, loads: bool) -> None:
    lines = (
        "import sys",
        "from brokerd_client import wire",
        "from brokerd_client.client_protocol import ClientProtocol",
        "from brokerd_client.request import ClientRequest",
        "protocol, get = ClientProtocol(), ClientRequest('get', {'grant': 'ix'})",
        program,
        "print('msgpack' in sys.modules)",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(loads)
