# A recipe's `jwt`: what is signed and where it goes, mistakes found when the file is read, and keys that cannot sign.
from __future__ import annotations

import jwt
import pytest
import tomli
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from brokerd.core.exchange.steps import Request
from brokerd.core.validation import ConfigError
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.recipe.dialect import RecipeDialect
from brokerd.dialects.recipe.file import LONGEST_ASSERTION, read_recipe
from tests.unit.dialects.exchange_driver import BASE, NOW, begin, meaning, sent, view, words

KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
GOOD = 'jwt = { key = "{key}", algorithm = "ES256", claims = { iss = "{user}" } }'


def dialect(*lines: str) -> RecipeDialect:
    text = 'credentials = ["user", "key"]\nsettings = ["tenant"]\n[[issue]]\nrequest = "POST /token"\n'
    text += "\n".join(lines) + '\n[answer]\naccess_token = "token"\n'
    return RecipeDialect(read_recipe("mine", tomli.loads(text)), BASE, {})


def grant(key: str = PEM, **settings: object) -> GrantView:
    return view({"user": "me", "key": key}, settings)


def claims_of(signed: str) -> dict[str, object]:
    options = {"verify_exp": False, "verify_aud": False, "verify_iat": False}
    found: dict[str, object] = jwt.decode(signed, KEY.public_key(), ["ES256"], options=options)  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    "place", ['headers = { Authorization = "{jwt}" }', 'form = { a = "{jwt}" }', 'json = { a = ["{jwt}"] }']
)
def test_the_assertion_is_sent_where_the_recipe_says(place: str) -> None:
    request = sent(dialect(GOOD, place).issue(grant()))
    signed = next(secret for secret in request.request.secrets if secret.reveal().startswith("ey")).reveal()
    where = request.headers.get("Authorization", "") + request.request.body.decode()
    assert signed in where
    claims = claims_of(signed)
    assert len(str(claims.pop("jti"))) == 32
    assert claims == {"iss": "me", "iat": int(NOW.wall) - 60, "exp": int(NOW.wall) + 60}


def test_claims_keep_their_types_and_the_key_is_named() -> None:
    line = (
        'jwt = { key = "{key}", algorithm = "ES256", key_id = "{tenant}-1", lifetime = 300, '
        'claims = { iss = "{user}", n = 5, yes = true, at = "{tenant?}", who = { aud = ["{user}"] } } }'
    )
    request = sent(dialect(line, 'form = { a = "{jwt}" }').issue(grant(tenant="acme")))
    claims = claims_of(request.form["a"])
    assert jwt.get_unverified_header(request.form["a"])["kid"] == "acme-1"
    assert {name: claims[name] for name in ("n", "yes", "at", "who")} == {
        "n": 5,
        "yes": True,
        "at": "acme",
        "who": {"aud": ["me"]},
    }
    assert claims["exp"] == int(NOW.wall) + 300


def test_what_the_assertion_needs_the_operation_needs() -> None:
    line = 'jwt = { key = "{key}", algorithm = "ES256", claims = { t = "{tenant}" } }'
    one = dialect(line, 'form = { a = "{jwt}" }')
    assert not one.ability(grant()).issue
    assert one.ability(grant(tenant="acme")).issue


@pytest.mark.parametrize("key", ["test-only-no-key", PEM[:-40]])
def test_a_key_that_cannot_sign_is_misconfigured_and_not_shown(key: str) -> None:
    ended = begin(dialect(GOOD, 'form = { a = "{jwt}" }').issue(grant(key)))
    assert not isinstance(ended, Request)
    assert meaning(ended) == "misconfigured"
    assert words(ended).startswith("issue[0]: expected a private key in PEM")
    assert key not in words(ended)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((GOOD,), "issue[0].jwt: {jwt} is signed but never sent; put it into headers, query or a body"),
        (('form = { a = "{jwt}" }',), "issue[0].form: {jwt} is no credential or setting of this recipe; known: "),
        ((GOOD, "jtw = 5"), "issue[0].jtw: unknown key; did you mean jwt?"),
        (('jwt = { algorithm = "ES256" }',), "issue[0].jwt.key: this key is required and missing"),
        (('jwt = { key = "{key}" }',), "issue[0].jwt.algorithm: this key is required and missing"),
        (('jwt = { key = "{key}", algorithm = "none" }',), "issue[0].jwt.algorithm: expected one of ES256, RS256, "),
        (('jwt = { key = "{tenant}", algorithm = "ES256" }',), "issue[0].jwt.key: expected one of the credentials"),
        (('jwt = { key = "-----BEGIN", algorithm = "ES256" }',), "found text"),
        (
            ('jwt = { key = "{key}", algorithm = "ES256", claims = { iss = "{usr}" } }',),
            "issue[0].jwt: {usr} is no credential",
        ),
        (
            ('jwt = { key = "{key}", algorithm = "ES256", claims = { iss = "{jwt}" } }',),
            "issue[0].jwt: {jwt} is no credential",
        ),
        (('jwt = { key = "{key}", algorithm = "ES256", claims = { exp = 5 } }',), "jwt.claims.exp: brokerd sets this"),
        (
            ('jwt = { key = "{key}", algorithm = "ES256", claims = { at = 2027-01-15 } }',),
            "claims.at: expected what JSON",
        ),
        (
            ('jwt = { key = "{key}", algorithm = "ES256", key_id = "{user?}" }',),
            "jwt.key_id: a placeholder with ? may be left out",
        ),
        (('jwt = { key = "{key}", algorithm = "ES256", lifetime = 0 }',), "jwt.lifetime: expected seconds from 1 to"),
        (
            (f'jwt = {{ key = "{{key}}", algorithm = "ES256", lifetime = {LONGEST_ASSERTION + 1} }}',),
            f"issue[0].jwt.lifetime: expected seconds from 1 to {LONGEST_ASSERTION}, found {LONGEST_ASSERTION + 1}",
        ),
    ],
)
def test_a_mistake_is_found_when_the_file_is_read(lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        dialect(*lines)
    assert message in str(caught.value)
    assert "BEGIN" not in str(caught.value)


def test_jwt_is_no_name_for_a_credential() -> None:
    text = 'credentials = ["jwt"]\n[[issue]]\nrequest = "POST /t"\n[answer]\naccess_token = "t"'
    with pytest.raises(ConfigError, match="jwt is a name that brokerd uses itself"):
        read_recipe("mine", tomli.loads(text))
