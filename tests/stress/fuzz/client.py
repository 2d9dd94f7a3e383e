# The client library against a daemon that lies: whatever comes over the socket is a token that can be used as it is,
# or one of the library's errors, fit for the application's log. The first byte says how to cut the stream.
from __future__ import annotations

import math
from collections.abc import Callable

from brokerd_client.client_protocol import ClientProtocol, Lost
from brokerd_client.errors import BrokerError
from brokerd_client.messages import Gone, Token, read_token, read_tokens
from brokerd_client.request import ClientRequest
from brokerd_client.wire import Response, read_result

from tests.stress.fuzz.shown_text import fit_for_people

GRANTS = ["ix-prod", "reports"]
LONGEST = 2_100  # characters of an error's message


def check(data: bytes) -> None:
    if not data:
        return
    step, stream = 1 + data[0] * 7, data[1:]
    session = ClientProtocol()
    session.request(ClientRequest("get", {"grant": GRANTS[0]}), one)
    session.request(ClientRequest("get_many", {"grants": GRANTS}), many)
    session.request(ClientRequest("watch", {"grants": GRANTS}), read_result)
    try:
        for at in range(0, len(stream) + 1, step):  # the last piece may be empty: the end of the stream
            for waiter, response in session.receive(stream[at : at + step]):
                answered(waiter, response)
            while event := session.next_event():
                if isinstance(event, Gone):
                    usable_error(event.error)
                else:
                    usable(event)
    except BrokerError as error:
        usable_error(error)
    except Lost:
        pass


def answered(waiter: Callable[[Response], object], response: Response) -> None:
    try:
        waiter(response)
    except BrokerError as error:
        usable_error(error)


def one(response: Response) -> None:
    usable(read_token(read_result(response)))


def many(response: Response) -> None:
    tokens = read_tokens(GRANTS, read_result(response))
    assert list(tokens) == GRANTS
    for found in tokens.values():
        if isinstance(found, Token):
            usable(found)
        else:
            usable_error(found)


def usable(token: Token) -> None:
    """Its header is one header, and its expiry can be compared with a clock."""
    ((name, line),) = token.header.items()
    assert name, "a header without a name"
    assert all(each.isprintable() for each in (name, line)), f"a header of several lines: {token.header!r}"
    assert token.value in line, "a header without the token"
    assert not {":", " "} & set(name), f"a header's name with a colon or blank: {name!r}"
    assert token.value, "an empty token"
    if token.expires_at is not None:
        assert type(token.expires_at) in (int, float)
        assert math.isfinite(token.expires_at)
    assert token.value not in repr(token) or len(token.value) < 20


def usable_error(error: BrokerError) -> None:
    fit_for_people(str(error) or "(the daemon said nothing)", LONGEST)
    assert error.as_map()["message"] == str(error)
    if error.retry_after is not None:  # an application sleeps so long
        assert type(error.retry_after) in (int, float)
        assert 0 <= error.retry_after < math.inf
