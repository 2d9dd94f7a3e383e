# What a person should check after a refusal: which credentials were sent, where each comes from, and which client
# authentication was used. No secret is in the words.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from brokerd.core.exchange.outcomes import Blame, Cause, Misconfigured, Outcome, RetryLater
from brokerd.core.exchange.steps import Response
from brokerd.core.secret import SecretSource
from brokerd.dialects.dialect import GrantView

WORDLESS = (401, 403)
CLOCK = "this machine's clock"  # stands in a refusal whose Date differs from it (law 8)


def advised(outcome: Outcome, response: Response, view: GrantView, client: Sequence[str], method: str = "") -> Outcome:
    """The outcome, with what to check if the client or a password was or may have been refused: a 401 or 403 without a
    message may be that. `client`: the credentials that were sent besides the password; `method`: client_auth."""
    refused = isinstance(outcome, Misconfigured) and outcome.blames is not Blame.REQUEST
    wordless = isinstance(outcome, RetryLater) and outcome.cause is Cause.SILENT and response.status in WORDLESS
    if not isinstance(outcome, Misconfigured | RetryLater) or not (refused or wordless):
        return outcome
    names = list(client)
    if isinstance(outcome, Misconfigured) and outcome.blames is Blame.PASSWORD:
        names, method = [name for name in PERSON if name in view.credentials], ""
    items = [shown(name, view.sources.get(name)) for name in names]
    if method:
        items.append(f"client_auth ({method} was used{INSTEAD.get(method, '')})")
    if not items:
        return outcome
    listed = " and ".join(filter(None, (", ".join(items[:-1]), items[-1])))
    first = f"{CLOCK} first (timedatectl status), then " if CLOCK in outcome.reason else ""
    return replace(outcome, reason=f"{outcome.reason}; check {first}{listed}")


def shown(name: str, source: SecretSource | None) -> str:
    """A credential and where it comes from."""
    match source:
        case SecretSource(file=str(path)):
            return f"{name} ({path})"
        case SecretSource(credential=str(credential)):
            return f"{name} (systemd credential {credential})"
        case SecretSource(env=str(variable)):
            return f"{name} (${variable})"
        case SecretSource(command=(program, *_)):
            return f"{name} (printed by {program})"
        case SecretSource(grant=str(grant), field=field):
            return f"{name} ({f'{field} of the' if field else 'the'} token of the grant {grant})"
        case _:
            return name


PERSON = ("username", "user", "email", "password")
INSTEAD = {  # the protocol has no error code for a secret in the wrong place
    "client_secret_basic": ", some servers want client_secret_post",
    "client_secret_basic_raw": ", some servers want client_secret_post",
    "client_secret_post": ", some servers want client_secret_basic",
}
