# Tokens that others signed and brokerd passes on: client assertions, assertions and subject tokens, from a file or from
# another grant. One that has expired is not sent: the server's refusal would not say who should have renewed it.
from __future__ import annotations

from datetime import timedelta

from brokerd.core.exchange.jwt_claims import unverified_claims
from brokerd.core.grant.revocation import EPOCH
from brokerd.core.secret import Secret
from brokerd.dialects.answer_values import number
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.refusal_advice import shown

LEEWAY = 60  # seconds: a clock that is ahead of the signer's by less is no reason to send nothing


class UnusableToken(Exception):
    """The token would be refused. The text says which one, where it comes from and why, and nothing of the token."""


def signed_by_others(view: GrantView, name: str, *, is_jwt: bool = False) -> Secret:
    """A credential that others signed. `is_jwt`: it can be nothing else; any other token that is no JWT says nothing
    about its life. Raises UnusableToken."""
    token, where = view.credentials[name], shown(name, view.sources.get(name))
    try:
        claims = unverified_claims(token.reveal())
    except ValueError:
        if not is_jwt:
            return token
        words = "expected a JWT (three parts, joined by dots), found something else; write the JWT there"
        raise UnusableToken(f"{where}: {words}") from None
    end = number(claims.get("exp"))
    if end is not None and (late := view.sign.now() - end) > LEEWAY:
        when = EPOCH + timedelta(seconds=max(0.0, end))
        words = f"this JWT expired {late:.0f} s ago, at {when:%Y-%m-%d %H:%M:%S} UTC; see why nothing renews it"
        raise UnusableToken(f"{where}: {words}")
    return token
