# What is signed is verified here by the other half of the key, as a server would.
from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from brokerd.core.exchange.algorithms import UnusableKey
from brokerd.core.exchange.signing import Signer, check_key, public_jwk, thumbprint
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from brokerd.edge.system.entropy import SystemEntropy

NOW = 1_700_000_000


class Clock:
    def now(self) -> Moment:
        return Moment(NOW + 0.7, 5.0, "boot")


def signer() -> Signer:
    return Signer(Clock(), SystemEntropy())


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> Secret:
    return Secret(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


EC, ED = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize(("algorithm", "key"), [("ES256", EC), ("RS256", RSA), ("PS256", RSA), ("EdDSA", ED)])
def test_an_assertion_is_verified_with_the_public_key(algorithm: str, key: ec.EllipticCurvePrivateKey) -> None:
    signed = signer().assertion({"iss": "me", "aud": "you"}, pem(key), algorithm, key_id="k1").reveal()
    claims = jwt.decode(signed, key.public_key(), [algorithm], audience="you", options={"verify_exp": False})
    assert (claims["iss"], claims["iat"], claims["exp"]) == ("me", NOW - 60, NOW + 60)
    assert jwt.get_unverified_header(signed)["kid"] == "k1"


def test_an_assertion_lives_for_an_hour_at_most_from_when_it_says_that_it_was_made() -> None:
    signed = signer().assertion({"iss": "me"}, pem(EC), "ES256", lifetime=3_600).reveal()
    claims = jwt.decode(signed, options=UNVERIFIED)
    assert claims["exp"] - claims["iat"] == 3_600


def test_a_server_whose_clock_is_20_s_behind_ours_takes_an_assertion() -> None:
    signed = signer().assertion({"iss": "me"}, pem(EC), "ES256").reveal()
    claims = jwt.decode(signed, options=UNVERIFIED)
    assert claims["iat"] <= NOW - 20 < claims["exp"]
    assert "nbf" not in claims


def test_a_shared_secret_signs_with_hs256() -> None:
    secret = Secret("test-only-" + "s" * 32)
    signed = signer().assertion({"iss": "me"}, secret, "HS256").reveal()
    assert jwt.decode(signed, secret.reveal(), ["HS256"], options={"verify_exp": False})["iss"] == "me"


def test_no_two_assertions_have_the_same_jti() -> None:
    made = signer()
    decoded = [jwt.decode(made.assertion({}, pem(EC), "ES256").reveal(), options=UNVERIFIED) for _ in range(2)]
    assert decoded[0]["jti"] != decoded[1]["jti"]


def test_claims_that_are_named_win() -> None:
    signed = signer().assertion({"exp": 5, "jti": "mine"}, pem(EC), "ES256").reveal()
    found = jwt.decode(signed, options=UNVERIFIED)
    assert (found["exp"], found["jti"]) == (5, "mine")


@pytest.mark.parametrize(
    ("key", "algorithm", "words"),
    [
        (pem(EC), "RS256", "expected an RSA key for RS256, found an EC key on secp256r1"),
        (pem(RSA), "ES256", "expected an EC key on P-256 for ES256, found an RSA key"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "ES256", "found an EC key on secp384r1"),
        (pem(RSA), "EdDSA", "expected an Ed25519 key"),
        (pem(rsa.generate_private_key(65537, 1024)), "RS256", "2048 bits or more, found 1024"),
        (Secret("test-only-not-a-key"), "ES256", "expected a private key in PEM"),
        (pem(EC), "none", "expected an algorithm of"),
        (Secret(""), "HS256", "of 32 bytes or more (RFC 7518 §3.2), found 0"),
        (Secret("test-only-too-short"), "HS256", "found 19"),
    ],
)
def test_a_key_that_does_not_fit_is_named_without_showing_it(key: Secret, algorithm: str, words: str) -> None:
    with pytest.raises(UnusableKey) as caught:
        check_key(key, algorithm)
    assert words in str(caught.value)
    assert not key or key.reveal() not in str(caught.value)


def test_a_proof_names_its_request_and_carries_its_key() -> None:
    made = signer()
    key = made.new_key()
    signed = made.proof(key, "POST", "https://api.test/token?x=1#y", nonce="n").reveal()
    header = jwt.get_unverified_header(signed)
    assert (header["typ"], header["alg"], header["jwk"]) == ("dpop+jwt", "ES256", public_jwk(key))
    public = load_pem_private_key(key.reveal().encode(), None).public_key()
    claims = jwt.decode(signed, public, ["ES256"], options={"verify_iat": False})
    assert (claims["htm"], claims["htu"], claims["nonce"], claims["iat"]) == (
        "POST",
        "https://api.test/token",
        "n",
        NOW,
    )
    assert "ath" not in claims


def test_a_proof_is_of_the_servers_time_where_that_is_known() -> None:
    made = signer()
    signed = made.proof(made.new_key(), "POST", "https://api.test/token", at=NOW - 20.0).reveal()
    assert jwt.decode(signed, options=UNVERIFIED)["iat"] == NOW - 20


def test_a_proof_for_a_resource_is_bound_to_the_token() -> None:
    made = signer()
    signed = made.proof(made.new_key(), "GET", "https://api.test/", access_token=Secret("test-only-token")).reveal()
    digest = hashlib.sha256(b"test-only-token").digest()
    ath = jwt.decode(signed, options=UNVERIFIED)["ath"]
    assert ath == urlsafe_b64encode(digest).rstrip(b"=").decode()


def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    key = signer().new_key()
    members = {name: public_jwk(key)[name] for name in ("crv", "kty", "x", "y")}
    canonical = json.dumps(members, separators=(",", ":")).encode()
    assert thumbprint(key) == urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()


def test_every_new_key_is_another() -> None:
    made = signer()
    assert made.new_key() != made.new_key()


UNVERIFIED = {"verify_signature": False, "verify_exp": False, "verify_aud": False}
