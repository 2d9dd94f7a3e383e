# A full life of the real daemon at log level debug, and a search of all that it wrote and said for every secret that
# there was (law 11); and that this search finds what it is for.
from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from tests.scenario.secrets import life
from tests.scenario.secrets.search import search
from tests.scenario.secrets.world import ODD, World

SECRET = f"test-only-one{ODD}of-many-0123456789"
LIVED = (  # what the log and the answers of such a life have in them
    *("level=debug", "invalid_client", "input was: ", "the provider answered 503", "Traceback", "denied"),
    *("wrong passphrase", "brokerd_exchanges", "rotation_ended"),
    *(f"ended={what}" for what in ("exchange", "login", "connection", "request")),
)
PLACES = ("seen-by-command", "backup", "metrics", "state/brokerd.db", "state/audit/denied-0001", "/proc/PID/environ")


@pytest.mark.slow
async def test_nothing_that_was_written_or_said_over_a_full_life_holds_a_secret(world: World) -> None:
    for part in life.PARTS:
        await part(world)
    places, secrets = world.everything(), world.gather()
    written = b"\n".join(places.values())
    assert [words for words in LIVED if words.encode() not in written] == []
    assert [place for place in PLACES if not any(name.startswith(place) for name in places)] == []
    assert len(secrets) > 100
    found = search(secrets, places)
    assert not found, "\n".join(map(str, found))


WAYS: dict[str, Callable[[str], str | bytes]] = {
    "as it is": str,
    "in a sentence": lambda text: f"x{text}y",
    "in a log's field": lambda text: f'reason="{text}"'.replace('"', '\\"'),
    "in JSON": json.dumps,
    "in JSON of UTF-8": lambda text: json.dumps(text, ensure_ascii=False),
    "in JSON in JSON": lambda text: json.dumps(json.dumps({"a": text})),
    "in a traceback": lambda text: f"KeyError: {text!r}",
    "in a traceback, as bytes": lambda text: f"KeyError: {text.encode()!r}",
    "in a URL": lambda text: f"https://x.example/{quote(text)}?",
    "in a path": lambda text: quote(text, safe=""),
    "in a form": lambda text: f"a=b&password={quote_plus(text)}&c=d",
    "in a form, in lower case": lambda text: quote_plus(text).replace("%C3%B6", "%c3%b6").replace("%3C", "%3c").lower(),
    "in a page": html.escape,
    "in Basic": lambda text: base64.b64encode(f"user:{text}".encode()),
    "in Basic of another user": lambda text: base64.b64encode(f"user2:{text}".encode()),
    "in Basic of a third": lambda text: base64.b64encode(f"user33:{text}".encode()),
    "in a JWT": lambda text: base64.urlsafe_b64encode(f'{{"password":"{text}"}}'.encode()),
    "in hexadecimal digits": lambda text: text.encode().hex(),
    "in Latin-1's eyes": lambda text: text.encode().decode("latin-1"),
    "in UTF-16": lambda text: text.encode("utf-16"),
    "escaped": lambda text: text.encode("unicode_escape"),
    "cut off": lambda text: f"{text[:-10]}…",
    "without its beginning": lambda text: text[-20:],
}


@pytest.mark.parametrize("way", WAYS)
def test_a_secret_is_found_however_it_was_written(way: str) -> None:
    written = WAYS[way](SECRET)
    content = written.encode() if isinstance(written, str) else written
    places = {"a": b"nothing" * 1000, "b": b"before" * 100 + content + b"after" * 99, "c": content[:9]}
    found = search({"it": SECRET.encode(), "another": b"test-only-another-one-of-many"}, places)
    assert {(each.secret, each.place) for each in found} == {("it", "b")}


def test_what_lies_in_two_places_is_in_neither() -> None:
    half = len(SECRET) // 2
    assert search({"it": SECRET.encode()}, {"a": SECRET[:half].encode()[-9:], "b": SECRET[half:].encode()[:9]}) == []
