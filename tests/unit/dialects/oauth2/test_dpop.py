# DPoP proofs (RFC 9449): made again for a nonce or for the server's clock, once each.
from __future__ import annotations

from typing import cast

import jwt
import pytest

from brokerd.core.exchange.outcomes import Outcome
from brokerd.core.exchange.steps import Answer, Request, Response
from brokerd.core.secret import Secret
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.oauth2.dialect import OAuth2
from tests.unit.dialects.exchange_driver import NOW, answer, http_date, meaning, view
from tests.unit.dialects.oauth2.configured_grants import PEM, TOKEN_URL


def bound(**more: object) -> GrantView:
    grant = view({"client_id": "client-1"}, {"grant_type": "refresh_token", "client_auth": "none"}, refresh="r-1")
    return GrantView(grant.credentials, grant.settings, None, grant.refresh_token, grant.signer, Secret(PEM), **more)  # type: ignore[arg-type]


def proofs(*answers: Response) -> tuple[list[dict[str, object]], Outcome]:
    exchange, left = OAuth2(token_url=TOKEN_URL).renew(bound()), list(answers)
    given, found = cast(Answer, None), list[dict[str, object]]()
    while True:
        try:
            step = exchange.send(given)
        except StopIteration as stop:
            assert not left
            return found, stop.value
        assert isinstance(step, Request)
        found.append(jwt.decode(dict(step.headers)["DPoP"], options={"verify_signature": False}))
        given = left.pop(0)


GIVEN = answer(200, {"access_token": "a", "token_type": "DPoP"})


@pytest.mark.parametrize("skew", [-20.0, 20.0, 3_600.0])
@pytest.mark.parametrize(
    "error",
    [{"error": "invalid_dpop_proof"}, {"error": "invalid_request", "error_description": "DPoP proof is not active"}],
)
def test_a_proof_that_is_refused_for_its_time_is_made_again_by_the_servers_clock(
    skew: float, error: dict[str, str]
) -> None:
    refused = answer(400, error, {"date": http_date(NOW.wall + skew)})
    made, found = proofs(refused, GIVEN)
    assert [each["iat"] for each in made] == [int(NOW.wall), int(NOW.wall + skew)]
    assert made[0]["jti"] != made[1]["jti"]
    assert meaning(found) == "issued"


def test_a_proof_is_made_again_once_for_its_nonce_and_once_for_its_time() -> None:
    late = answer(400, {"error": "invalid_dpop_proof"}, {"date": http_date(NOW.wall + 90)})
    nonce = answer(400, {"error": "use_dpop_nonce"}, {"dpop-nonce": "n-1"})
    made, found = proofs(nonce, late, GIVEN)
    assert [each.get("nonce") for each in made] == [None, "n-1", "n-1"]
    assert meaning(found) == "issued"
    made, found = proofs(late, nonce, late)
    assert (len(made), meaning(found)) == (3, "misconfigured")


@pytest.mark.parametrize(
    "refused",
    [
        answer(400, {"error": "invalid_dpop_proof"}, {"date": http_date(NOW.wall + 1)}),
        answer(400, {"error": "invalid_dpop_proof"}),
        answer(400, {"error": "invalid_request"}, {"date": http_date(NOW.wall + 90)}),
        answer(400, {"error": "use_dpop_nonce"}),
    ],
)
def test_a_proof_is_not_made_again_where_that_could_not_help(refused: Response) -> None:
    made, found = proofs(refused)
    assert (len(made), meaning(found)) == (1, "misconfigured")
