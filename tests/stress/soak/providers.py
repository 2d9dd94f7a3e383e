# `python -m tests.stress.soak.providers`: the soak's providers in a process of their own. Requests and answers are
# lines of JSON on stdin and stdout, the first request names the services; it ends with stdin.
from __future__ import annotations

import base64
import json
import re
from collections import Counter
from typing import Any

import trio

from tests.servers import Click2Mail, Client, IxApi, OAuth2, Occam, Provider, Recorded, Server, Treezor
from tests.servers.tokens import Token
from tests.stress.soak.plan import REFRESH_LIVES, key, password, secret

MADE = {made.name: made for made in (IxApi, Occam, Treezor, Click2Mail, OAuth2)}
NAME = re.compile(r"soak-\d+")
WORD = re.compile(r"[\w.~-]{16,}")  # what may be a token
REJECTED = (400, 401)  # these soak faults never make: an answer with one of them is the provider's own


def main() -> None:
    trio.run(run)


async def run() -> None:
    requests = _lines(trio.lowlevel.FdStream(0))
    providers = {each["name"]: provider(each) for each in json.loads(await anext(requests))}
    async with trio.open_nursery() as nursery:
        for each in providers.values():
            await nursery.start(Server({each.prefix: each}).run)
        _say({name: [each.base_url, type(each).name] for name, each in providers.items()})
        async for line in requests:
            verb, name, arguments = json.loads(line)
            _say(VERBS[verb](providers[name], **arguments))
        nursery.cancel_scope.cancel()


def provider(service: dict[str, Any]) -> Provider[Any]:
    """The provider of a service, which knows its grants' credentials."""
    made: Provider[Any] = MADE[service["dialect"]]()
    settings = made.settings
    settings.access_lifetime = float(service["lifetime"])
    settings.refresh_lifetime = float(service["lifetime"] * REFRESH_LIVES)
    for grant in service["grants"]:
        match made:
            case IxApi():
                settings.keys[key(grant)] = secret(grant)
            case Occam():
                settings.users[grant] = password(grant)
                settings.keys[key(grant)] = grant
            case Click2Mail():
                settings.clients[grant] = secret(grant)
            case Treezor():
                settings.clients[grant], settings.users[grant] = secret(grant), password(grant)
            case OAuth2():
                settings.clients[grant] = Client(grant, secret(grant))
                settings.users[grant] = password(grant)
    return made


# -- what the soak asks


def login(at: Provider[Any], grant: str) -> str:
    """A refresh token to import."""
    return at.new_refresh_token(grant, client=grant, scopes=("read",)).value


def kill(at: Provider[Any], grant: str) -> None:
    """All tokens of a grant die."""
    for token in at.ledger.tokens.values():
        if _holder(token) == grant:
            token.revoked = True


def token(at: Provider[Any], value: str) -> dict[str, Any] | None:
    """What is known of an access token."""
    found = at.ledger.find(value, "access")
    if found is None:
        return None
    return {"expires_at": found.expires_at, "revoked": found.revoked, "grant": _holder(found)}


def fault(at: Provider[Any], verb: str, **arguments: Any) -> None:
    """One of the provider's own faults, by the name of its method."""
    getattr(at, verb)(**arguments)


def down(at: Provider[Any]) -> None:
    at.down = True


def hold(at: Provider[Any]) -> None:
    at.hold()


def total(at: Provider[Any]) -> int:
    return at.count()


def report(at: Provider[Any], kills: list[float]) -> dict[str, Any]:
    """What came: answered well and badly, by grant, and what should never have come. `kills`: when the daemon died
    suddenly; an answer of the seconds before may never have reached it, or not its disk."""
    good, bad = Counter[str](), Counter[str]()
    reuses, spent = [], dict[str, Recorded]()
    excused = 0
    for entry in at.requests:
        text = _text(entry)
        sent = next((known for word in WORD.findall(text) if (known := at.ledger.find(word, "refresh"))), None)
        named = NAME.search(text)
        owner = _holder(sent) if sent else named[0] if named else "nobody"
        fine = entry.status is not None and entry.status < 300
        (good if fine else bad)[owner] += 1
        if sent is None:
            continue
        before = spent.get(sent.value)
        if (before is not None and before.status is None) or (before and _within(before.time, kills)):
            excused += 1
        elif before is not None:
            gap = entry.time - before.time
            reuses.append(f"{owner}: {sent.id} came again {gap:.1f} s after the answer {before.status}")
        used_here = sent.used_at is not None and abs(sent.used_at - entry.time) < USED_WITHIN
        if used_here or entry.status in REJECTED:
            spent.setdefault(sent.value, entry)
    return {
        "good": good,
        "bad": bad,
        "reuses": reuses,
        "excused": excused,
        "wrong_credentials": at.counts.wrong_credentials,
        "counted": at.counts.reused,
    }


VERBS = {each.__name__: each for each in (login, kill, token, fault, down, hold, total, report)}
USED_WITHIN = 0.05  # seconds between a request's coming and its taking effect, where nothing holds it
BEFORE, AFTER = 12.0, 0.5  # seconds around a kill


# -- below


def _text(entry: Recorded) -> str:
    """Where a request may name its grant or its token."""
    authorization = entry.request.header("authorization") or ""
    if authorization.startswith("Basic "):
        authorization = base64.b64decode(authorization[6:]).decode(errors="replace")
    return f"{entry.request.body.decode(errors='replace')} {entry.request.query} {authorization}"


def _holder(token: Token) -> str:
    found = NAME.search(f"{token.who} {token.client}")
    return found[0] if found else "nobody"


def _within(at: float, kills: list[float]) -> bool:
    return any(killed - BEFORE <= at <= killed + AFTER for killed in kills)


async def _lines(stream: trio.lowlevel.FdStream) -> Any:
    rest = b""
    async for data in stream:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line


def _say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
