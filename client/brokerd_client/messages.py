# Tokens and events, as read from the maps of the protocol. wire.py makes maps from bytes.
from __future__ import annotations

from brokerd_client.errors import BrokerError, ProtocolError, from_map, is_number

TYPE_CHECKING = False  # typing's own would cost a fetch from a shell some milliseconds
if TYPE_CHECKING:
    from typing import NoReturn

PLACEHOLDER = "{access_token}"
PRESENT = f"Authorization: Bearer {PLACEHOLDER}"  # the header that APIs expect, unless the recipe says otherwise


class Token:
    """An access token. `value`, `header` and `fields` are secret; `repr`, `str` and `format` mask them, pickling is
    refused.

    `scope` is the scope of a downscoped token, if the provider named it; it may be less than was asked for.
    `expires_at` is in Unix seconds, or None if the provider names no expiry. `header` is a dict for the `headers=` of
    requests or httpx: {"Authorization": "Bearer …"}, or what the provider's APIs expect instead. `fields` is a dict of
    further values that belong to this token, such as an AWS key id; what they are is up to the grant.
    """

    __slots__ = ("expires_at", "fields", "grant", "header", "scope", "token_type", "value")

    value: str
    token_type: str
    expires_at: float | None
    grant: str
    header: dict[str, str]
    scope: tuple[str, ...] | None
    fields: dict[str, str]

    def __init__(
        self,
        value: str,
        token_type: str,
        expires_at: float | None,
        grant: str,
        present: str = PRESENT,
        scope: tuple[str, ...] | None = None,
        fields: dict[str, str] | None = None,
    ) -> None:
        name, colon, line = present.partition(":")
        if not (colon and name.strip() and PLACEHOLDER in line and present.isprintable() and " " not in name.strip()):
            raise ProtocolError(f'expected present as one header line "Name: …{PLACEHOLDER}"')
        if not (value and value.isprintable()):  # a line break would start another header
            raise ProtocolError("expected the value of a token to be printable text")
        put = object.__setattr__
        put(self, "value", value)
        put(self, "token_type", token_type)
        put(self, "expires_at", expires_at)
        put(self, "grant", grant)
        put(self, "scope", scope)
        put(self, "fields", fields or {})
        put(self, "header", {name.strip(): line.strip().replace(PLACEHOLDER, value)})

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Token is frozen: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Token is frozen: {name} cannot be deleted")

    def __repr__(self) -> str:
        return f"Token(grant={self.grant!r}, value=***, expires_at={self.expires_at!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Token cannot be pickled; the process that needs it must ask brokerd for it")


class Gone:
    """An event of `watch`: the grant has no token any more. `error` is what `get` would raise."""

    __slots__ = ("error", "grant")

    def __init__(self, grant: str, error: BrokerError) -> None:
        self.grant = grant
        self.error = error

    def __repr__(self) -> str:
        return f"Gone(grant={self.grant!r}, error={self.error!r})"


def read_token(found: object, asked: str | None = None) -> Token:
    """The token that a map of the protocol describes; its grant must be `asked`. Raises ProtocolError."""
    if not isinstance(found, dict):
        raise ProtocolError("expected a token to be a map")
    value, token_type, grant = found.get("value"), found.get("token_type"), found.get("grant")
    expires_at, present = found.get("expires_at"), found.get("present", PRESENT)
    if not (isinstance(value, str) and isinstance(token_type, str) and isinstance(grant, str)):
        raise ProtocolError("expected a token to have the texts value, token_type and grant")
    if asked is not None and grant != asked:
        raise ProtocolError(f"expected a token of the grant {asked!r}, found one of {grant!r}")
    if expires_at is not None and not is_number(expires_at):
        raise ProtocolError("expected the expires_at of a token to be a number or nil")
    if not isinstance(present, str):
        raise ProtocolError("expected the present of a token to be text")
    scope = found.get("scope")
    if scope is not None and not (isinstance(scope, list) and all(isinstance(each, str) for each in scope)):
        raise ProtocolError("expected the scope of a token to be an array of text")
    fields = found.get("fields")
    if fields is not None and not _are_texts(fields):
        raise ProtocolError("expected the fields of a token to be a map from text to text")
    return Token(value, token_type, expires_at, grant, present, None if scope is None else tuple(scope), fields)


def copied(token: Token) -> Token:
    """The same token for another caller, who may change its dicts."""
    made = _new(Token)
    _set_value(made, token.value)
    _set_token_type(made, token.token_type)
    _set_expires_at(made, token.expires_at)
    _set_grant(made, token.grant)
    _set_scope(made, token.scope)
    _set_fields(made, {**token.fields})
    _set_header(made, {**token.header})
    return made


def _are_texts(found: object) -> bool:
    return isinstance(found, dict) and all(isinstance(each, str) for pair in found.items() for each in pair)


def read_proof(found: object, asked: str | None = None) -> Token:
    """The result of `proof`: a token whose `header` contains the proof too. Raises ProtocolError."""
    token = read_token(found, asked)
    proof = found.get("proof") if isinstance(found, dict) else None
    if not (isinstance(proof, str) and proof and proof.isascii() and proof.isprintable()):
        raise ProtocolError("expected the proof beside a token to be one line of text")
    token.header["DPoP"] = proof
    return token


def read_tokens(grants: list[str], found: object) -> dict[str, Token | BrokerError]:
    """The result of `get_many` by grant: a token, or the error that `get` would raise. Raises ProtocolError."""
    if not isinstance(found, list) or len(found) != len(grants):
        raise ProtocolError(f"expected an array of {len(grants)} tokens or errors")
    tokens: dict[str, Token | BrokerError] = {}
    for grant, entry in zip(grants, found, strict=True):
        if not isinstance(entry, dict):
            raise ProtocolError("expected each answer to be a map with token or error")
        tokens[grant] = read_token(entry["token"], grant) if "token" in entry else from_map(entry.get("error"))
    return tokens


def of_watched(event: Token | Gone, grants: list[str]) -> Token | Gone:
    """Returns the event. Raises ProtocolError if its grant is not watched."""
    if event.grant not in grants:
        raise ProtocolError(f"expected an event of a watched grant, found one of {event.grant!r}")
    return event


def read_event(method: str, params: dict[str, object]) -> Token | Gone | None:
    """The event in a notification; None if this version does not know its kind. Raises ProtocolError."""
    if method == "token":
        return read_token(params)
    if method == "gone":
        error = from_map(params)
        if error.grant is None:
            raise ProtocolError("expected the grant of a gone to be text")
        return Gone(error.grant, error)
    return None


_new = object.__new__
_set_value, _set_token_type, _set_expires_at, _set_grant, _set_scope, _set_fields, _set_header = (
    Token.__dict__[name].__set__ for name in ("value", "token_type", "expires_at", "grant", "scope", "fields", "header")
)
