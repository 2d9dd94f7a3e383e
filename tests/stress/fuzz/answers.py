# Every answer in every dialect gives an outcome and never an exception; one that is not the provider's kills nothing
# (law 12); no reason shows a secret that was sent (law 11). An input is text: see `Heard`.
from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self, TypeVar

import jwt
import msgspec

from brokerd.core.exchange.outcomes import Done, Issued, Misconfigured, Outcome, Rejected, RetryLater, Unsupported
from brokerd.core.exchange.signing import Signer
from brokerd.core.exchange.steps import Exchange, Request, Response
from brokerd.core.grant.record import PendingRevocation
from brokerd.dialects.answer_fields import LARGEST
from brokerd.dialects.dialect import Dialect, GrantView
from brokerd.dialects.oauth2.client_auth import ASSERTED, METHODS
from brokerd.dialects.oauth2.dialect import OAuth2
from brokerd.dialects.oauth2.grant_types import GRANT_TYPES, Assertion, Subject, with_uris
from brokerd.edge.system.entropy import SystemEntropy
from tests.stress.fuzz.shown_text import fit_for_people, forms, without
from tests.unit.dialects.exchange_driver import NOW, StoppedClock, drive, recipe, view

PREFIX = "test-only-secret-of-32-bytes-and-"  # HS256 wants that many
REFRESH, ACCESS = "test-only-refresh+/=~token", "test-only-access+/=~token"
STATUSES = (200, 201, 204, 302, 400, 401, 403, 404, 407, 408, 410, 422, 429, 500, 502, 503, 599, 999)
RECIPES = {
    "ix-api": ("api_key", "api_secret"),
    "occam": ("username", "password"),
    "treezor": ("client_id", "client_secret"),
    "click2mail": ("client_id", "client_secret"),
}
FIELDS = ("expires_in", "scope")  # members that mean something by themselves, and are anything here
NAMES = frozenset({"client_id", "username", "api_key"})  # those that say who are no secrets
T = TypeVar("T")


@dataclass(frozen=True)
class Heard:
    """An input's parts, each a line: the operation by name, the status, what makes the secret, then headers up to an
    empty line, then the body. `<raw>`, `<url>`, `<json>`, … in headers and body stand for the secret so encoded, and
    `<refresh raw>` and so on for the refresh token. What is no name or number picks one by its checksum."""

    operation: bytes
    status: int
    secret: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @classmethod
    def read(cls, data: bytes) -> Self:
        operation, _, data = data.partition(b"\n")
        status, _, data = data.partition(b"\n")
        suffix, _, data = data.partition(b"\n")
        secret = PREFIX + suffix.decode(errors="replace")
        for said, value in (("", secret), ("refresh ", REFRESH)):
            for encoding, form in forms(value).items():
                data = data.replace(f"<{said}{encoding}>".encode(), form.encode())
        head, _, body = (b"\n" + data).partition(b"\n\n")
        fields = (line.partition(b":") for line in head.split(b"\n")[:64])
        headers = tuple((n.strip().lower().decode("latin-1"), v.strip().decode("latin-1")) for n, _, v in fields)
        is_status = status.isdigit() and len(status) == 3 and status >= b"200"
        return cls(operation, int(status) if is_status else pick(STATUSES, status), secret, headers, body)

    @property
    def response(self) -> Response:
        return Response(self.status, self.headers, self.body, NOW, NOW.after(0.1))


KEY = Signer(StoppedClock(), SystemEntropy()).new_key()
SIGNED = {"private_key": KEY.reveal(), ASSERTED: jwt.encode({"sub": "svc"}, PREFIX, "HS256")}  # must be of that form


def check(data: bytes) -> None:
    heard = Heard.read(data)
    said = heard.operation.decode("latin-1")
    name = said if said in STARTS else pick(sorted(STARTS), heard.operation)
    (request,), found = drive(STARTS[name](heard.secret), heard.response)
    secrets = (heard.secret, REFRESH, ACCESS)
    named_if_sent(request, secrets)
    judge(found, heard.response, secrets, revoking="revoke" in name)


def starts() -> dict[str, Callable[[str], Exchange]]:
    """Every operation of every dialect by name, to be begun with a secret."""
    found: dict[str, Callable[[str], Exchange]] = {}
    for name, credentials in RECIPES.items():
        found |= operations(name, recipe(name), credentials, {})
    oauth2 = OAuth2("https://idp.example/token", "https://idp.example/revoke")
    credentials = ("client_id", "client_secret", "username", "password", "private_key", "subject_token", ASSERTED)
    for auth in METHODS:
        for grant_type in GRANT_TYPES:
            said = Assertion("svc", "https://idp.example/token")
            settings: dict[str, object] = {"grant_type": grant_type, "client_auth": auth, "assertion": said}
            settings |= {"subject": with_uris(Subject())} if grant_type == "token_exchange" else {}
            found |= operations(f"oauth2 {grant_type} {auth}", oauth2, credentials, settings)
    settings = {"grant_type": "password", "client_auth": "client_secret_post", "fields": FIELDS}
    found |= operations("oauth2 with fields", oauth2, credentials, settings)
    return found


def operations(
    name: str, dialect: Dialect, credentials: tuple[str, ...], settings: dict[str, object]
) -> dict[str, Callable[[str], Exchange]]:
    def seen(secret: str) -> GrantView:
        given = {each: f"{each}-1" if each in NAMES else secret for each in credentials}
        given |= {name: text for name, text in SIGNED.items() if name in credentials}
        return view(given, settings, access=ACCESS, refresh=REFRESH, access_id="tok-a", refresh_id="tok-r")

    plain = seen(PREFIX)
    found = {f"{name}: renew": lambda secret: dialect.renew(seen(secret))}
    if dialect.ability(plain).issue:
        found[f"{name}: issue"] = lambda secret: dialect.issue(seen(secret))
    doomed = {"access": PendingRevocation(plain.access_token), "refresh": PendingRevocation(None, plain.refresh_token)}
    for kind, token in doomed.items():
        if dialect.revoke(plain, token) is not None:
            found[f"{name}: revoke {kind}"] = partial(_revoke, dialect, seen, token)
    return found


def _revoke(dialect: Dialect, seen: Callable[[str], GrantView], token: PendingRevocation, secret: str) -> Exchange:
    exchange = dialect.revoke(seen(secret), token)
    assert exchange is not None
    return exchange


def named_if_sent(request: Request, secrets: Sequence[str]) -> None:
    """What is not named cannot be cleared from the answer."""
    text = request.url + repr(request.headers) + request.body.decode(errors="replace")
    named = {each.reveal() for each in request.secrets}
    for secret in secrets:
        assert secret in named or not any(form in text for form in forms(secret).values()), "a secret without its name"


def judge(found: Outcome, heard: Response, secrets: Sequence[str], *, revoking: bool, by_header: bool = False) -> None:
    """`by_header`: the dialect knows its own errors by a header, so that the body says nothing about whose they are."""
    own = json_object(heard.body)
    match found:
        case Issued(tokens):
            assert 200 <= heard.status < 300, "tokens from an answer that is no success"
            assert not revoking, "tokens from a revocation"
            held = [each for each in (tokens.access_token, tokens.refresh_token) if each]
            assert held, "no tokens at all"
            for token in held:
                value = token.value.reveal()
                assert value.isascii(), "a token beyond ASCII"
                assert value.isprintable(), "a token with controls"
                assert not {" ", ""} & {value, *value}, "a token with blanks"
                assert token.lifetime is None or math.isfinite(token.lifetime)
                assert token.id is None or token.id.isprintable()
            assert tokens.token_type.isprintable()
            fields = {name: value.reveal() for name, value in tokens.fields.items()}
            assert set(fields) in (set(), set(FIELDS)), "not all of the fields"
            assert all(fields.values()), "an empty field"
            assert not any("\0" in value for value in fields.values())
            assert sum(len(name) + len(value.encode()) for name, value in fields.items()) <= LARGEST
            msgspec.msgpack.encode(tokens, enc_hook=lambda kept: kept.reveal())  # the store can write them
            return
        case Done():
            assert revoking, "an exchange for tokens that brought none"
            return
        case Rejected() | Misconfigured() | Unsupported():
            assert heard.status not in (407, 408, 425, 429), "killed by a status that means later"
            assert heard.status < 500, "killed by a failure of the provider"
            form = b"=" in heard.body and b"<" not in heard.body
            lacks = heard.status < 300 and "field" in found.reason  # it has tokens
            assert own is not None or form or by_header or lacks or not heard.body.strip(), (
                "killed by no object and no form"
            )
        case RetryLater():
            assert found.after is None or 0 <= found.after < math.inf
            if found.refresh_token is not None:
                assert heard.status < 300 or heard.status >= 500, "a refresh token from a refusal"
                assert found.refresh_token.value.reveal().isascii()
                assert found.refresh_token.value.reveal().isprintable()
    fit_for_people(found.reason)
    without(found.reason, secrets)


def json_object(body: bytes) -> dict[str, object] | None:
    """One JSON object and nothing else than blanks and zeros around it; its texts may hold anything."""
    text = body.decode("latin-1").removeprefix("\xef\xbb\xbf").strip("\0 \t\r\n")
    if body.startswith((b"\xff\xfe", b"\xfe\xff", b"{\0", b"\0")):
        text = body.decode(json.detect_encoding(body), "replace").strip("\ufeff\0 \t\r\n")
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def pick(choices: Sequence[T], by: bytes) -> T:
    return choices[zlib.crc32(by) % len(choices)]


STARTS = starts()
