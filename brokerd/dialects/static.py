# The static dialect: a token that somebody wrote down and that never expires, such as an API key. The credential
# `token` is the access token, and every other credential is a field of it. No request is ever sent.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from brokerd.core.exchange.outcomes import IssuedToken, Misconfigured, Tokens
from brokerd.core.exchange.steps import Exchange
from brokerd.core.grant.record import PendingRevocation
from brokerd.core.grant.renewal import Ability
from brokerd.core.secret import Secret
from brokerd.core.validation import ConfigError
from brokerd.dialects import answer_fields, answer_values
from brokerd.dialects.dialect import DEFAULT_PRESENT, Dialect, GrantView, Needs
from brokerd.dialects.refusal_advice import shown

NAME = "static"
TOKEN = "token"  # noqa: S105 - the name of a credential
UNFIT = f"expected one line of visible ASCII without blanks, at most {answer_values.LONGEST_TOKEN // 1024} KiB"
LACKS = "a static token is for one thing only; make a grant of its own for the other"


@dataclass(frozen=True, slots=True)
class Static(Dialect):
    """No provider is asked. `header`: how an application sends the token."""

    header: str = DEFAULT_PRESENT

    @property
    def endpoints(self) -> Mapping[str, str]:
        return {}

    def present(self, _token_type: str) -> str:
        return self.header

    def check(self, credentials: frozenset[str], _settings: Mapping[str, object]) -> None:
        if TOKEN not in credentials:
            words = 'this credential is the token, and it is missing; write token = { file = "…" }'
            raise ConfigError(words, key=f"credentials.{TOKEN}")
        answer_fields.check_names(tuple(sorted(credentials - {TOKEN})), "credentials")

    def identity(self, _view: GrantView) -> tuple[str, ...]:
        return (NAME,)

    def ability(self, view: GrantView) -> Ability:
        return Ability(issue=view.target is None, renew=False)

    def lacks(self, _view: GrantView) -> str | None:
        return LACKS

    def unrenewable(self, view: GrantView) -> str | None:
        place = shown(TOKEN, view.sources.get(TOKEN))
        words = f"its token is static, so brokerd cannot renew it; write a new one to {place}"
        return f"{words}, which brokerd then reads within a minute"

    def needs(self, _settings: Mapping[str, object]) -> Needs:
        return Needs(in_credentials=True)

    def issue(self, view: GrantView) -> Exchange:
        yield from ()
        value = answer_values.token(view.credentials[TOKEN].reveal())
        if value is None:
            return Misconfigured(f"{shown(TOKEN, view.sources.get(TOKEN))}: {UNFIT}; write the token there, alone")
        texts = {name: each.reveal() for name, each in view.credentials.items() if name != TOKEN}
        wanted = answer_fields.Wanted(tuple(texts))
        return answer_fields.with_fields(Tokens(IssuedToken(Secret(value))), wanted, texts.get, NAME)

    def renew(self, view: GrantView) -> Exchange:
        raise AssertionError(f"a static token cannot be renewed: {sorted(view.credentials)}")

    def revoke(self, _view: GrantView, _token: PendingRevocation) -> Exchange | None:
        return None
