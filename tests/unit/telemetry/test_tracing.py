# The ids of an exchange, as the task that runs it keeps them.
from __future__ import annotations

from collections.abc import Iterator

import pytest

from brokerd.core.exchange.outcomes import Cause, Issued, IssuedToken, RetryLater, Tokens
from brokerd.core.exchange.steps import Request, Response
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from brokerd.telemetry import tracing

NOW = Moment(1.0, 1.0, "boot", True)
REQUEST = Request("POST", "https://idp.example/token")
ISSUED = Issued(Tokens(access_token=IssuedToken(Secret("test-only-new"))))


@pytest.fixture
def trail() -> Iterator[tracing.Trail]:
    made = tracing.Trail("ours-1")
    before = tracing.current.set(made)
    yield made
    tracing.current.reset(before)


def answer(request_id: str) -> Response:
    return Response(200, (("x-request-id", request_id),), b"{}", NOW, NOW)


def test_an_id_that_repeats_the_new_token_is_dropped(trail: tracing.Trail) -> None:
    tracing.answered(REQUEST, answer("test-only-new"))
    assert trail.provider_request_id == "test-only-new"
    tracing.ended(ISSUED)
    assert tracing.ids() == {"request_id": "ours-1"}


def test_an_id_that_repeats_the_refresh_token_of_a_failure_is_dropped(trail: tracing.Trail) -> None:
    tracing.answered(REQUEST, answer("test-only-kept"))
    tracing.ended(RetryLater("503", Cause.FAILED, refresh_token=IssuedToken(Secret("test-only-kept"))))
    assert tracing.ids() == {"request_id": "ours-1"}


def test_an_id_of_the_providers_own_stays(trail: tracing.Trail) -> None:
    tracing.answered(REQUEST, answer("theirs-1"))
    tracing.ended(ISSUED)
    assert tracing.ids() == {"request_id": "ours-1", "provider_request_id": "theirs-1"}


def test_a_header_that_the_request_has_is_not_set_again(trail: tracing.Trail) -> None:
    own = Request("POST", "https://idp.example/token", (("X-REQUEST-ID", "recipe"),))
    assert tracing.marked(own, "X-Request-ID") is own
    assert tracing.marked(REQUEST, "") is REQUEST
    assert tracing.marked(REQUEST, "X-Request-ID").headers == (("X-Request-ID", "ours-1"),)


def test_nothing_is_marked_where_no_exchange_runs() -> None:
    assert tracing.marked(REQUEST, "X-Request-ID") is REQUEST
    assert tracing.ids() == {}
