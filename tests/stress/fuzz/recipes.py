# A recipe file: any TOML loads or is refused with its key and what would be right; and one that loads can be used
# against any answer, without an exception and without ever leaving its provider's origin. TOML, a line ====, an answer.
from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import tomli

from brokerd.core.exchange.outcomes import Misconfigured
from brokerd.core.exchange.steps import Exchange, Request
from brokerd.core.grant.record import PendingRevocation
from brokerd.core.ports import TransportError
from brokerd.core.validation import ConfigError
from brokerd.dialects.recipe.dialect import RecipeDialect
from brokerd.dialects.recipe.file import Recipe, read_recipe
from brokerd.edge.http.client import _message
from brokerd.edge.http.connection import Attempt, split_url
from tests.stress.fuzz.answers import ACCESS, REFRESH, Heard, judge, named_if_sent
from tests.stress.fuzz.shown_text import fit_for_people
from tests.unit.dialects.exchange_driver import view

ORIGIN = "https://api.example"
BASE = f"{ORIGIN}/base"
LONGEST = 4_000  # characters of an error: an operator's own names are in it
ANSWER = b"\n====\n"


def check(data: bytes) -> None:
    text, _, answer = data.partition(ANSWER)
    try:
        raw = tomli.loads(text.decode())
    except (ValueError, RecursionError):
        return  # that such a file is refused in words is the configuration's matter
    try:
        recipe = read_recipe("mine", raw)
    except ConfigError as error:
        refused(error, text)
        return
    use(recipe, Heard.read(answer))


def refused(error: ConfigError, text: bytes) -> None:
    assert error.key, f"which key? {error}"
    fit_for_people(str(error), LONGEST + 10 * len(text))


def use(recipe: Recipe, heard: Heard) -> None:
    by_header = any(each.startswith("header:") for each in _paths(recipe.errors.reason))
    for revoking, exchange in exchanges(recipe, heard.secret):
        step = next_step(exchange)
        if step is None:
            continue
        stays(step)
        named_if_sent(step, (heard.secret, REFRESH, ACCESS))
        try:
            exchange.send(heard.response)
        except StopIteration as stop:
            secrets = (heard.secret, REFRESH, ACCESS)
            judge(stop.value, heard.response, secrets, revoking=revoking, by_header=by_header)
        else:
            raise AssertionError("a second request")


def exchanges(recipe: Recipe, secret: str) -> Iterator[tuple[bool, Exchange]]:
    """Every operation, with all that it might want; whether it is a revocation."""
    credentials = dict.fromkeys(recipe.credentials, secret)
    settings: dict[str, object] = {"scope": ["read", "write"], "audience": "https://api.example/"}
    settings |= dict.fromkeys(recipe.settings, "a/b ?#&=%{}..")
    dialect = RecipeDialect(recipe, BASE, {})
    try:
        dialect.check(frozenset(credentials), settings)
    except ConfigError as error:
        fit_for_people(str(error), LONGEST + 200 * len(recipe.credentials))
    stored = {"access": ACCESS, "refresh": REFRESH, "access_id": "../tok-a", "refresh_id": "tok-r"}
    for seen in (view(credentials, settings, **stored), view(credentials, {})):
        dialect.identity(seen)
        if dialect.ability(seen).issue:
            yield False, dialect.issue(seen)
        if seen.refresh_token is not None:
            yield False, dialect.renew(seen)
        for token in (PendingRevocation(seen.access_token), PendingRevocation(None, seen.refresh_token)):
            if (exchange := dialect.revoke(seen, token)) is not None:
                yield True, exchange


def next_step(exchange: Exchange) -> Request | None:
    """The request, or None where the exchange ended before it asked: only for want of a value."""
    try:
        step = next(exchange)
    except StopIteration as stop:
        step = stop.value
    if isinstance(step, Misconfigured):
        fit_for_people(step.reason)
        return None
    assert isinstance(step, Request)
    return step


def stays(request: Request) -> None:
    """It goes to the provider, below its base URL, and HTTP can carry it."""
    parts = urlsplit(request.url)
    assert f"{parts.scheme}://{parts.netloc}" == ORIGIN, f"goes to {parts.scheme}://{parts.netloc}"
    assert parts.path.startswith("/base/"), f"goes to {parts.path}"
    assert not {".", ".."} & set(parts.path.split("/")), f"goes to {parts.path}"
    if ("Content-Type", "application/json") in request.headers:
        json.loads(request.body, parse_constant=no_json)
    try:
        origin, target = split_url(request.url)
        _message(request, origin, target, None, Attempt(origin.endpoint))
    except TransportError as error:
        raise AssertionError(f"a recipe that loads cannot be sent: {error}") from None


def no_json(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def _paths(path: str | list[str] | None) -> list[str]:
    return [path] if isinstance(path, str) else path or []
