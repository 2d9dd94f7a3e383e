# Drives logins of the dialect with lists of answers: what they ask of the server and of the person, and how long they
# wait in between.
from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from brokerd.core.exchange.outcomes import Issued, Outcome
from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.exchange.steps import Ask, Discover, Exchange, Request, Response, Unanswered, Wait
from brokerd.core.secret import Secret
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.oauth2.dialect import OAuth2
from tests.unit.dialects.exchange_driver import NOW, answer, view

IDP = "https://idp.example"
TOKENS = {"access_token": "test-only-access", "refresh_token": "test-only-refresh", "expires_in": 3_600}
BEGUN = {
    "device_code": "test-only-device-code",
    "user_code": "ABCD-EFGH",
    "verification_uri": f"{IDP}/device",
    "verification_uri_complete": f"{IDP}/device?user_code=ABCD-EFGH",
    "expires_in": 60,
    "interval": 2,
}
SERVER = OAuth2(
    f"{IDP}/token", device_authorization_url=f"{IDP}/device_authorization", authorization_url=f"{IDP}/authorize"
)
PENDING = answer(400, {"error": "authorization_pending"})
Heard = Response | Unanswered | Metadata | Mapping[str, str] | None


def grant(grant_type: str, scope: tuple[str, ...] = ("openid",), **settings: object) -> GrantView:
    credentials = {"client_id": "client-1", **({"username": "user-1"} if grant_type == "password" else {})}
    return view(credentials, {"grant_type": grant_type, "client_auth": "none", "scope": scope, **settings})


def form(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.body.decode(), keep_blank_values=True))


class Driven:
    """A login, driven to its end or to where the answers ran out. Every answer has to be wanted."""

    def __init__(self, exchange: Exchange, *heard: Heard) -> None:
        self.requests: list[Request] = []
        self.waits: list[float] = []
        self.asked: list[Ask] = []
        self.outcome: Outcome | None = None
        answers = list(heard)
        reply: object = None
        try:
            while True:
                step = exchange.send(reply)  # type: ignore[arg-type]
                reply = None
                match step:
                    case Wait(seconds):
                        self.waits.append(seconds)
                        continue
                    case Ask():
                        self.asked.append(step)
                        if not step.waits:
                            continue
                    case Request():
                        self.requests.append(step)
                    case Discover():
                        pass
                if not answers:
                    exchange.close()
                    return
                reply = answers.pop(0)
                if isinstance(reply, dict):
                    reply = {name: Secret(value) for name, value in reply.items()}
        except StopIteration as stop:
            assert not answers, "the login ended before it had heard every answer"
            self.outcome = stop.value

    @property
    def subject(self) -> str | None:
        assert isinstance(self.outcome, Issued), self.outcome
        return self.outcome.tokens.subject


def metadata(**more: object) -> Metadata:
    endpoints = {"token_endpoint": f"{IDP}/token", "authorization_endpoint": f"{IDP}/authorize"}
    return Metadata(IDP, NOW, endpoints, **more)  # type: ignore[arg-type]
