from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.exchange.jwt_claims import unverified_claims

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.text(), values, max_size=5))
def test_it_reads_what_pyjwt_signed(claims: dict[str, Any]) -> None:
    claims = {name: value for name, value in claims.items() if name not in ("iss", "exp", "iat", "nbf", "sub", "jti")}
    token = jwt.encode(claims, "a secret that is long enough for HS256", "HS256")
    assert unverified_claims(token) == claims


def part(value: object) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


HEADER = part({"alg": "HS256"})


@pytest.mark.parametrize(
    "token",
    [
        "",
        "opaque",
        "a.b",
        f"{HEADER}.{part({})}",
        f"{HEADER}.{part({})}.e30.e30",
        f"{HEADER}.{part([])}.e30",
        f"{HEADER}.{part('text')}.e30",
        f"{part([])}.{part({})}.e30",
        f"{HEADER}.e.e30",
        f"{HEADER}.{part({})}.e",
        f"{HEADER}.\xe9.e30",
        f"{HEADER}.{urlsafe_b64encode(b'{').decode()}.e30",
        f"{HEADER}.{urlsafe_b64encode(bytes([0x22, 0xFF, 0x22])).decode()}.e30",
        f"{HEADER}.{urlsafe_b64encode(b'[' * 100_000).decode()}.e30",
    ],
)
def test_what_is_no_jwt_is_refused_and_not_quoted(token: str) -> None:
    with pytest.raises((jwt.PyJWTError, ValueError, RecursionError)):
        jwt.decode(token, options={"verify_signature": False})
    with pytest.raises(ValueError, match=r"^no JWT$"):
        unverified_claims(token)
