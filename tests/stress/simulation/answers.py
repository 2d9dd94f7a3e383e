# Answers as real servers, and what stands before them, write them: tokens in other forms than RFC 6749's, refusals that
# are not the provider's, and refusals by another clock. What each means for a grant is judged in laws.py.
from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from urllib.parse import urlencode

from brokerd.edge.http.lenient_reading import decompressed

Body = Mapping[str, object]
SKEW = 20.0  # seconds by which a provider's clock differs where it refuses for that
MOST = 1 << 20  # bytes


@dataclass(frozen=True)
class Written:
    """A body with tokens as it is written; `cut`: why it came in part, as far as HTTP can tell."""

    content: bytes
    coding: str = ""
    cut: str | None = None

    def read(self) -> bytes:
        """As the HTTP client hands it on."""
        plain = decompressed(self.content, self.coding, MOST)
        return self.content if plain is None else plain[0]


def _json(body: Body) -> bytes:
    return json.dumps(body).encode()


def _form(body: Body) -> bytes:
    return urlencode({name: str(value) for name, value in body.items()}).encode()


def _without_access(body: Body) -> bytes:
    return _json({name: value for name, value in body.items() if name != "access_token"})


def _broken_access(body: Body) -> bytes:
    return _json({**body, "access_token": f"{body['access_token']}\n"})


# Everything in these can be read.
READABLE: dict[str, Callable[[Body], Written]] = {
    "form": lambda body: Written(_form(body)),
    "gzip": lambda body: Written(gzip.compress(_json(body), mtime=0), "gzip"),
    "notice": lambda body: Written(b"<br />\nNotice: Undefined index: x in /srv/token.php\n" + _json(body)),
    "nul": lambda body: Written(_json(body) + b"\0"),
    "latin-1": lambda body: Written(_json(body)[:-1] + b', "name": "Ren\xe9"}'),
    "tab": lambda body: Written(_json(body)[:-1] + b', "name": "a\tb"}'),
    "nan": lambda body: Written(_json(body)[:-1] + b', "quota": NaN}'),
    "array": lambda body: Written(b"[" + _json(body) + b"]"),
    "text": lambda body: Written(json.dumps(_json(body).decode()).encode()),
    "long-length": lambda body: Written(_json(body), cut="connection closed in the middle of the answer"),
    "last-chunk": lambda body: Written(_json(body), cut="connection closed in the middle of the answer"),
}
# Of these only the refresh token can be used: it is kept (law 3).
RESCUED: dict[str, Callable[[Body], Written]] = {
    "no-access": lambda body: Written(_without_access(body)),
    "broken-access": lambda body: Written(_broken_access(body)),
}
# The provider did nothing, and what answers is not the provider, or says nothing of the grant: status and body.
UNDONE: dict[str, tuple[int, Body]] = {
    "gateway-404": (404, {"status": 404, "error": "Not Found"}),
    "gateway-403": (403, {"error": "Forbidden", "message": "no route"}),
    "gateway-401": (401, {"error": "Unauthorized"}),
    "wait-403": (403, {"message": "API rate limit exceeded"}),
    "wait-401": (401, {"message": "slow down"}),
    "detail-400": (400, {"detail": "Incorrect username or password"}),
    "detail-401": (401, {"detail": "Incorrect username or password"}),
    "detail-422": (422, {"detail": [{"msg": "value is not valid"}]}),
}
SKEWED, STRAY = (
    "skewed",
    "stray",
)  # refused by another clock; `invalid_grant` from a server of the cluster that is behind
DOUBTFUL = (400, 401, 403, 422)  # how a password may be refused in a form of the server's own (law 7)
ALL = (*READABLE, *RESCUED, *UNDONE, SKEWED, STRAY, "expires-epoch", "expires-milliseconds", "slow")


def skewed(wall: float) -> tuple[dict[str, str], Body]:
    """Headers and body of a refusal by a clock that is behind ours."""
    date = formatdate(wall - SKEW, usegmt=True)
    return {"date": date}, {"error": "invalid_client", "error_description": "the assertion is of the future"}
