# What is odd about a token as its provider describes it, for example its lifetime: which value counts, and the note for
# people. The dialects read the values.
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from brokerd.core.exchange.outcomes import Issued, Outcome
from brokerd.core.exchange.scope import is_cut
from brokerd.core.grant.renewal import Pace
from brokerd.core.grant.tokens import AccessToken


def believed(outcome: Outcome, pace: Pace) -> Outcome:
    """The outcome, with the configured lifetime instead of one that is hard to believe."""
    token = outcome.tokens.access_token if isinstance(outcome, Issued) else None
    if not isinstance(outcome, Issued) or token is None or token.lifetime_warning is None:
        return outcome
    lifetime, words = token.lifetime, "if that is wrong, write lifetime on the grant"
    if pace.lifetime_named:
        lifetime, words = None, "the configured lifetime counts"
    token = replace(token, lifetime=lifetime, lifetime_warning=f"{token.lifetime_warning}; {words}")
    return Issued(replace(outcome.tokens, access_token=token))


def notes(token: AccessToken, *, presented: bool) -> Iterator[str]:
    """The notes of `status` about the token that is served. `presented`: brokerd knows how to send its type."""
    if token.lifetime_warning is not None:
        yield token.lifetime_warning
    if not presented:
        yield f"its token_type is {token.token_type}, which brokerd does not know: applications send it as Bearer"
    if is_cut(token.scope):
        yield "its provider named a scope that is too long, so it is cut"
