# The endpoint of Azure's App Service that Azure's SDKs ask (IDENTITY_ENDPOINT, IDENTITY_HEADER). Pure. What the SDKs
# demand: docs/metadata.md.
from __future__ import annotations

import hmac
from dataclasses import dataclass

from brokerd.core.metadata.answers import Asked, Given, MetadataAnswer, NotGiven, as_json, only

HEADER = "x-identity-header"
VERSIONS = ("2019-08-01", "2017-09-01")
NO_END = 3_600  # seconds that a token without a known end is said to live


@dataclass(frozen=True, slots=True)
class Azure:
    """`resource`: what the grant's tokens are for; nothing else is given out. `header`: what X-IDENTITY-HEADER must be,
    None: anything, because the caller's user is enough."""

    grant: str
    resource: str
    header: str | None = None

    def check(self, asked: Asked) -> MetadataAnswer | None:
        only("GET", asked)
        found = asked.headers.get(HEADER, "")
        if not found or (self.header is not None and not hmac.compare_digest(found.encode(), self.header.encode())):
            raise NotGiven(401, "expected X-IDENTITY-HEADER as IDENTITY_HEADER says it")
        if asked.query.get("api-version") not in VERSIONS:
            raise NotGiven(400, f"expected api-version={' or '.join(VERSIONS)}")
        if asked.query.get("resource", "").rstrip("/") != self.resource.rstrip("/"):
            words = f"the grant {self.grant} has tokens for the resource {self.resource} alone"
            raise NotGiven(400, words)
        return None

    def answer(self, asked: Asked, given: Given, now: float) -> MetadataAnswer:
        ends = int(now + NO_END if given.expires_at is None else given.expires_at)
        found = {
            "access_token": given.value,
            "expires_on": str(ends),
            "resource": asked.query["resource"],
            "token_type": "Bearer",
        }
        return as_json(found)
