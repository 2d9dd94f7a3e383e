# What a provider says of a token that is hard to believe or not known: who is believed, and what people are told of it.
# Reading it is the dialects' matter.
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from brokerd.core.outcome import Issued, Outcome
from brokerd.core.record import AccessToken
from brokerd.core.renewal import Pace
from brokerd.core.scope import is_cut


def believed(outcome: Outcome, pace: Pace) -> Outcome:
    """The outcome, in which the configured lifetime wins over one that is hard to believe."""
    token = outcome.tokens.access_token if isinstance(outcome, Issued) else None
    if not isinstance(outcome, Issued) or token is None or token.odd is None:
        return outcome
    if pace.lifetime_named:
        token = replace(token, lifetime=None, odd=f"{token.odd}; the configured lifetime counts")
    else:
        token = replace(token, odd=f"{token.odd}; if that is wrong, write lifetime on the grant")
    return Issued(replace(outcome.tokens, access_token=token))


def notes(token: AccessToken, *, presented: bool) -> Iterator[str]:
    """What status says of a token that is served. `presented`: it is known how tokens of its type are sent."""
    if token.odd is not None:
        yield token.odd
    if not presented:
        yield f"its token_type is {token.token_type}, which is not known: it is presented as Bearer"
    if is_cut(token.scope):
        yield "its provider named a scope that is too long, so it is cut"
