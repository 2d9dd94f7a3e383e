# bazel-credential-brokerd: the protocol of bazel's credential helpers (github.com/EngFlow/credential-helper-spec):
# `get` on argv, {"uri": …} on stdin, {"headers": …, "expires": …} on stdout.
from __future__ import annotations

import json

from brokerd_client.credentials.asking import (
    NoCredential,
    NoToken,
    explain,
    question,
    run,
    token_of,
    use_for,
    write,
)
from brokerd_client.credentials.times import utc
from brokerd_client.helpers import Address, address_of

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from brokerd_client.blocking import Broker
    from brokerd_client.messages import Token

PROGRAM = "bazel-credential-brokerd"


def address(uri: str) -> Address | None:
    """The address of a request; gRPC over TLS goes to the port of https."""
    scheme, colon, rest = uri.partition("://")
    return address_of(f"https{colon}{rest}" if scheme == "grpcs" else uri) if colon else None


def answer(token: Token) -> dict[str, object]:
    found: dict[str, object] = {"headers": {name: [value] for name, value in token.header.items()}}
    if token.expires_at is not None:
        found["expires"] = utc(token.expires_at)
    return found


def found_for(data: bytes, broker: Broker | None = None) -> dict[str, object]:
    """The answer to bazel's question. An address without a grant needs no header: bazel would fail the build after an
    error. Raises NoToken, HelpersError."""
    try:
        uri = json.loads(data)["uri"]
    except (ValueError, TypeError, KeyError):
        uri = None
    if not isinstance(uri, str):
        raise NoToken('expected {"uri": "https://…"} on stdin')
    try:
        return answer(token_of(use_for(address(uri)), broker=broker))
    except NoCredential as reason:
        explain(PROGRAM, str(reason))
        return {"headers": {}}


def get() -> int:
    write(json.dumps(found_for(question())) + "\n")
    return 0


def main() -> int:
    """The console script."""
    return run(PROGRAM, {"get": get}, "bazel")
