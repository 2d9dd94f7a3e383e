# AWS's STS as far as get-caller-identity needs it, and the check of Signature Version 4, from AWS's documents
# "Create a signed AWS API request" and "GetCallerIdentity". Keys come from a provider's tokens.
from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import parse_qs

from tests.servers.http import Answer, Request, Response, Server

AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<day>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, "
    r"SignedHeaders=(?P<headers>[^,]+), Signature=(?P<signature>[0-9a-f]{64})"
)
IDENTITY = """<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>
<Arn>arn:aws:iam::000000000000:user/{key}</Arn><UserId>{key}</UserId><Account>000000000000</Account>
</GetCallerIdentityResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></GetCallerIdentityResponse>"""
ERROR = "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{code}</Message></Error></ErrorResponse>"


class Key(NamedTuple):
    secret: str
    session_token: str | None


class AwsServer:
    """`keys`: the living key of an access key id, or None. `used`: the ids of the requests that were let in."""

    down = False

    def __init__(self, keys: Callable[[str], Key | None]) -> None:
        self.keys = keys
        self.used: list[str] = []

    def mounted(self, server: Server, url: str) -> None:
        pass

    async def answer(self, request: Request) -> Answer:
        found = AUTHORIZATION.fullmatch(request.header("authorization") or "")
        key = self.keys(found["key"]) if found else None
        if found is None or key is None:
            return _xml(403, ERROR.format(code="InvalidClientTokenId"))
        if request.header("x-amz-security-token") != key.session_token:
            return _xml(403, ERROR.format(code="InvalidClientTokenId"))
        if not hmac.compare_digest(signature(request, found, key.secret), found["signature"]):
            return _xml(403, ERROR.format(code="SignatureDoesNotMatch"))
        if parse_qs(request.body.decode()).get("Action") != ["GetCallerIdentity"]:
            return _xml(400, ERROR.format(code="InvalidAction"))
        self.used.append(found["key"])
        return _xml(200, IDENTITY.format(key=found["key"]))


def signature(request: Request, found: re.Match[str], secret: str) -> str:
    """What the Signature of this request has to be."""
    headers = "".join(f"{name}:{(request.header(name) or '').strip()}\n" for name in found["headers"].split(";"))
    body = hashlib.sha256(request.body).hexdigest()
    canonical = "\n".join((request.method, request.path or "/", request.query, headers, found["headers"], body))
    scope = f"{found['day']}/{found['region']}/{found['service']}/aws4_request"
    when, digest = request.header("x-amz-date"), hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, f"AWS4-HMAC-SHA256\n{when}\n{scope}\n{digest}".encode(), "sha256").hexdigest()


def _xml(status: int, text: str) -> Response:
    return Response(status, (("content-type", "text/xml"),), text.encode())
