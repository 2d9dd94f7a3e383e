# The ids of a request: which form ours may have, and which of a provider's headers is its own id.
from __future__ import annotations

import pytest

from brokerd.core.exchange.request_ids import FORM, of_provider
from brokerd.core.secret import Secret

REFRESH = Secret("test-only-refresh-5f1c77")


@pytest.mark.parametrize("good", ["1", "a" * 64, "0af7651916cd43dd-8448:eb21.1_C"])
def test_an_id_is_short_and_visible(good: str) -> None:
    assert FORM.fullmatch(good)


@pytest.mark.parametrize("bad", ["", "a" * 65, "a b", "a\n", "a\r\nSet-Cookie: x", "é", '"', "a,b", "\x00"])
def test_an_id_breaks_out_of_no_line(bad: str) -> None:
    assert not FORM.fullmatch(bad)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, None),
        ({"x-request-id": "their-1"}, "their-1"),
        ({"x-ms-request-id": "6c7a4c5e-9d2b-4f57-9f3a-0e4a7a3d2f00"}, "6c7a4c5e-9d2b-4f57-9f3a-0e4a7a3d2f00"),
        ({"cf-ray": "8a1b2c3d4e5f6789-FRA"}, "8a1b2c3d4e5f6789-FRA"),
        ({"x-request-id": "ours-1", "cf-ray": "8a1b2c3d4e5f6789-FRA"}, "8a1b2c3d4e5f6789-FRA"),
        ({"x-request-id": "ours-1"}, None),
        ({"x-request-id": "a\x1b[2J"}, None),
        ({"x-request-id": "a" * 65}, None),
        ({"x-request-id": REFRESH.reveal()}, None),
        ({"x-request-id": f"id-{REFRESH.reveal()}"}, None),
        ({"x-request-id": REFRESH.reveal()[:12]}, None),
        ({"x-request-id": "dGVzdC1vbmx5LXJlZnJlc2gtNWYxYzc3"}, None),
    ],
)
def test_a_providers_own_id_is_taken_unless_it_may_show_a_secret(headers: dict[str, str], found: str | None) -> None:
    assert of_provider(headers, "ours-1", [REFRESH]) == found
