# AWS STS: AssumeRoleWithWebIdentity, from the STS API Reference ("AssumeRoleWithWebIdentity", "Common Errors") and
# botocore's data/sts/2011-06-15/service-2.json (parameters, their limits, error codes and their statuses). It verifies
# the token as the trust policy of a role does. Answers are XML unless the client accepts JSON alone.
from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar
from xml.sax.saxutils import escape

import jwt

from tests.servers import body
from tests.servers.body import Malformed
from tests.servers.gallery.credentials import AWS_AUDIENCE, ROLE_ARN, app_key
from tests.servers.http import Request, Response, json_response
from tests.servers.provider import Handler, Provider, Refusal, Settings, echo, whole
from tests.servers.tokens import Token

VERSION = "2011-06-15"
NEEDED = ("Action", "Version", "RoleArn", "RoleSessionName", "WebIdentityToken")
OPTIONAL = ("DurationSeconds", "Policy", "PolicyArns.member.1.arn", "ProviderId")
SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}")
SHORTEST, LONGEST = 900, 43_200  # seconds
TRUSTED = "https://idp.example"


class AwsSts(Provider[Settings]):
    """Operation: issue. `access_lifetime` counts where no DurationSeconds is given."""

    name = "aws-sts"
    prefix = "/sts"
    paths: ClassVar[Mapping[str, Mapping[str, str]]] = {"/": {"POST": "issue"}}

    def __init__(self) -> None:
        super().__init__(Settings())

    def handlers(self) -> Mapping[str, Handler]:
        return {"issue": self._issue}

    def malformed(self, error: Malformed) -> Refusal:
        return Refusal(400, f"1 validation error detected: {error.field}: {error.reason}", "ValidationError")

    def render(self, refusal: Refusal, request: Request | None) -> Response:
        said = {"Code": refusal.code or "InternalFailure", "Message": refusal.reason + echo(request), "Type": "Sender"}
        return json_response(refusal.status, {"Error": said, "RequestId": "test-only"}, refusal.headers)

    def secret_values(self) -> set[str]:
        """The session tokens, and the secret keys that belong to them."""
        return super().secret_values() | {self.secret_key(token) for token in self.ledger.of_kind("access")}

    @staticmethod
    def key_id(token: Token) -> str:
        return f"TESTONLY{token.id.upper().replace('-', '')}"

    @staticmethod
    def secret_key(token: Token) -> str:
        return f"test-only-secret-key-of-{token.id}"

    def _issue(self, request: Request) -> Response:
        given = body.require(body.form(request), NEEDED, OPTIONAL)
        if (given["Action"], given["Version"]) != ("AssumeRoleWithWebIdentity", VERSION):
            raise Refusal(400, f"Could not find operation {given['Action']}", "InvalidAction")
        if not SESSION_NAME.fullmatch(given["RoleSessionName"]):
            raise Malformed("must satisfy regular expression pattern", field="roleSessionName")
        seconds = given.get("DurationSeconds", str(whole(self.settings.access_lifetime)))
        if not seconds.isdecimal() or not SHORTEST <= int(seconds) <= LONGEST:
            raise Malformed("must have value greater than or equal to 900", field="durationSeconds")
        if "Policy" in given and not given["Policy"].startswith("{"):
            raise Refusal(400, "The policy is not in the valid JSON format.", "MalformedPolicyDocument")
        who = self._identity(given["WebIdentityToken"])
        if given["RoleArn"] != ROLE_ARN:
            raise Refusal(403, "Not authorized to perform sts:AssumeRoleWithWebIdentity", "AccessDenied")
        expires_at = whole(self.settings.now() + int(seconds))
        token = self.issue_access(self.ledger.family(), who, expires_at=expires_at)
        self.counts.issued += 1
        found = {"AccessKeyId": self.key_id(token), "SecretAccessKey": self.secret_key(token)}
        said: dict[str, object] = {**found, "SessionToken": token.value, "Expiration": float(expires_at)}
        if request.header("accept") != "application/json":
            return _as_xml(said)
        result = {"Credentials": said, "SubjectFromWebIdentityToken": who, "Audience": AWS_AUDIENCE}
        answer = {"AssumeRoleWithWebIdentityResult": result, "ResponseMetadata": {"RequestId": "test-only"}}
        return json_response(200, {"AssumeRoleWithWebIdentityResponse": answer})

    def _identity(self, token: str) -> str:
        options = {
            "require": ["iss", "sub", "aud", "exp"],
            "verify_exp": False,
            "verify_iat": False,
            "verify_aud": False,
        }
        try:
            claims = jwt.decode(token, app_key().public_key(), ["RS256"], options=options)  # type: ignore[arg-type]
        except jwt.PyJWTError:
            self.wrong_credentials()
            raise Refusal(400, "The ID Token provided is not a valid JWT.", "InvalidIdentityToken") from None
        now = self.settings.now()
        if claims["exp"] <= now:
            words = f"Token expired: current date/time {now:.0f} must be before the expiration date/time"
            raise Refusal(400, f"{words} {claims['exp']}", "ExpiredTokenException")
        if claims["iss"] != TRUSTED or claims["aud"] != AWS_AUDIENCE:
            raise Refusal(400, "Incorrect token audience", "InvalidIdentityToken")
        return str(claims["sub"])


def _as_xml(said: Mapping[str, object]) -> Response:
    members = "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in said.items())
    result = f"<AssumeRoleWithWebIdentityResult><Credentials>{members}</Credentials></AssumeRoleWithWebIdentityResult>"
    whole_ = f"<AssumeRoleWithWebIdentityResponse>{result}</AssumeRoleWithWebIdentityResponse>"
    return Response(200, (("content-type", "text/xml"),), whole_.encode())
