# The two endpoints that AWS SDKs ask: that of containers (AWS_CONTAINER_CREDENTIALS_FULL_URI) and that of instances
# (IMDS), version 2 only. Pure. What SDKs demand: docs/metadata.md.
from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass

from brokerd.core.metadata.answers import Asked, Given, MetadataAnswer, NotGiven, as_json, as_text, only, utc

TOKEN_TTL, TOKEN = "x-aws-ec2-metadata-token-ttl-seconds", "x-aws-ec2-metadata-token"
LONGEST_TTL = 21_600  # seconds
TTL = re.compile(r"[1-9][0-9]{0,4}")
CREDENTIALS = "/latest/meta-data/iam/security-credentials/"
ZONE, REGION = "/latest/meta-data/placement/availability-zone", "/latest/meta-data/placement/region"


def _keys(given: Given, grant: str) -> dict[str, object]:
    """Raises NotGiven if the grant has no temporary keys: SDKs take empty values for real ones."""
    fields = given.fields
    if not (fields.get("access_key_id") and fields.get("secret_access_key")) or given.expires_at is None:
        words = f"the grant {grant} has no temporary keys of AWS: its token needs the fields access_key_id and "
        words += "secret_access_key, and an end, as the recipe aws-sts gives them"
        raise NotGiven(500, words)
    return {
        "AccessKeyId": fields["access_key_id"],
        "SecretAccessKey": fields["secret_access_key"],
        "Token": given.value,
        "Expiration": utc(given.expires_at),
    }


@dataclass(frozen=True, slots=True)
class Container:
    """`authorization`: what the header Authorization must be, from the file that the application's
    AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names; None: the caller's user is enough."""

    grant: str
    authorization: str | None = None

    def check(self, asked: Asked) -> MetadataAnswer | None:
        only("GET", asked)
        if self.authorization is not None:
            found = asked.headers.get("authorization", "")
            if not hmac.compare_digest(found.encode(), self.authorization.encode()):
                words = "expected the Authorization of the file in AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
                raise NotGiven(401, words)
        return None

    def answer(self, _asked: Asked, given: Given, _now: float) -> MetadataAnswer:
        return as_json(_keys(given, self.grant))


@dataclass(frozen=True, slots=True)
class Instance:
    """IMDSv2: a session token first, then the name of the role, then its keys. Sessions are signed with `key`, 32
    bytes that live as long as the process, and belong to the user that began them."""

    grant: str
    role: str
    region: str | None
    key: bytes

    def check(self, asked: Asked, uid: int, now: float) -> MetadataAnswer | None:
        """The answer if it needs no credentials. Raises NotGiven."""
        if asked.path == "/latest/api/token":
            return self._begin(asked, uid, now)
        only("GET", asked)
        if not self._lives(asked.headers.get(TOKEN, ""), uid, now):
            words = f"expected the header {TOKEN} with a token from PUT /latest/api/token (IMDSv2)"
            raise NotGiven(401, words)
        if asked.path == CREDENTIALS or asked.path + "/" == CREDENTIALS:
            return as_text(self.role)
        if self.region is not None and asked.path.rstrip("/") == REGION:
            return as_text(self.region)
        if self.region is not None and asked.path.rstrip("/") == ZONE:
            return as_text(f"{self.region}a")
        if asked.path != CREDENTIALS + self.role:
            raise NotGiven(404, f"this endpoint has the keys of one role: {CREDENTIALS}{self.role}")
        return None

    def answer(self, _asked: Asked, given: Given, now: float) -> MetadataAnswer:
        keys = _keys(given, self.grant)
        return as_json({"Code": "Success", "LastUpdated": utc(now), "Type": "AWS-HMAC", **keys})

    def _begin(self, asked: Asked, uid: int, now: float) -> MetadataAnswer:
        only("PUT", asked)
        text = asked.headers.get(TOKEN_TTL, "")
        if not (TTL.fullmatch(text) and int(text) <= LONGEST_TTL):
            words = f"expected the header {TOKEN_TTL} with 1 to {LONGEST_TTL} seconds"
            raise NotGiven(400, words)
        stamp = f"{int(now) + int(text)}.{uid}"
        return as_text(f"{stamp}.{self._sign(stamp)}", {TOKEN_TTL: text})

    def _lives(self, token: str, uid: int, now: float) -> bool:
        stamp, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(stamp).encode()):
            return False
        until, owner = map(int, stamp.split("."))
        return owner == uid and until > now

    def _sign(self, stamp: str) -> str:
        return hmac.digest(self.key, stamp.encode(), hashlib.sha256).hex()
