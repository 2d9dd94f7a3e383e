# What was sealed opens in its own place, under its own key, unchanged, and in no other way (law 15).
from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.sealing import (
    KEY_BYTES,
    NONCE_BYTES,
    Bound,
    EnvelopeError,
    Keyring,
    fingerprint,
    unwrap,
    wrap,
)

BOUND = Bound("store-1", "reports", 7, "fingerprint-1")
PLAIN = b"a refresh token and its access token"
names = st.text(max_size=40)
bounds = st.builds(Bound, names, names, st.integers(0, 2**63), names)


class Random:
    """The Entropy port on the system's randomness; remembers the nonces."""

    def __init__(self) -> None:
        self.drawn: list[bytes] = []

    def bytes(self, n: int) -> bytes:
        self.drawn.append(os.urandom(n))
        return self.drawn[-1]

    def fraction(self) -> float:
        return 0.5


def keyring(key: bytes = b"k" * KEY_BYTES, key_id: int = 1) -> Keyring:
    made = Keyring(Random())
    made.add(key_id, key)
    return made


@given(st.binary(max_size=2_000), bounds)
def test_what_is_sealed_opens_in_its_place(plain: bytes, bound: Bound) -> None:
    ring = keyring()
    sealed = ring.seal(plain, bound)
    assert ring.open(sealed, bound) == plain
    assert len(plain) < 8 or plain not in sealed


@pytest.mark.parametrize(
    "moved",
    [
        replace(BOUND, store="store-2"),
        replace(BOUND, grant="ledger"),
        replace(BOUND, generation=6),
        replace(BOUND, generation=8),
        replace(BOUND, fingerprint="fingerprint-2"),
        replace(BOUND, store="store-1reports", grant=""),  # the parts do not run into each other
        replace(BOUND, grant="reports\x07"),
    ],
    ids=["store", "grant", "older", "newer", "fingerprint", "joined", "longer"],
)
def test_what_was_moved_elsewhere_does_not_open(moved: Bound) -> None:
    ring = keyring()
    with pytest.raises(EnvelopeError, match="moved here from another place"):
        ring.open(ring.seal(PLAIN, BOUND), moved)


@given(bounds, bounds)
def test_no_place_is_taken_for_another(one: Bound, other: Bound) -> None:
    assert (one.data(1) == other.data(1)) == (one == other)


def test_no_flipped_bit_goes_unnoticed() -> None:
    ring = keyring()
    sealed = ring.seal(PLAIN, BOUND)
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(EnvelopeError):
            ring.open(bytes(changed), BOUND)


@given(st.binary(max_size=100))
def test_nothing_that_was_not_sealed_opens(data: bytes) -> None:
    with pytest.raises(EnvelopeError):
        keyring().open(data, BOUND)


def test_what_was_cut_short_does_not_open() -> None:
    ring = keyring()
    sealed = ring.seal(PLAIN, BOUND)
    for length in range(len(sealed)):
        with pytest.raises(EnvelopeError):
            ring.open(sealed[:length], BOUND)


def test_another_key_does_not_open_it() -> None:
    with pytest.raises(EnvelopeError):
        keyring(b"x" * KEY_BYTES).open(keyring().seal(PLAIN, BOUND), BOUND)


def test_a_key_that_is_not_in_the_store_is_named() -> None:
    with pytest.raises(EnvelopeError, match="data key 2"):
        keyring().open(keyring(key_id=2).seal(PLAIN, BOUND), BOUND)


def test_new_things_are_sealed_under_the_newest_key_and_old_ones_still_open() -> None:
    ring = keyring()
    old = ring.seal(PLAIN, BOUND)
    ring.add(2, b"2" * KEY_BYTES)
    new = ring.seal(PLAIN, BOUND)
    assert ring.open(old, BOUND) == ring.open(new, BOUND) == PLAIN
    with pytest.raises(EnvelopeError, match="data key 2"):
        keyring().open(new, BOUND)


def test_a_thing_does_not_open_under_its_own_key_by_another_number() -> None:
    sealed = keyring(key_id=1).seal(PLAIN, BOUND)
    renumbered = sealed[:1] + (2).to_bytes(4, "big") + sealed[5:]
    with pytest.raises(EnvelopeError):
        keyring(key_id=2).open(renumbered, BOUND)


def test_every_seal_draws_a_nonce_of_its_own() -> None:
    entropy = Random()
    ring = Keyring(entropy)
    ring.add(1, b"k" * KEY_BYTES)
    sealed = {ring.seal(PLAIN, BOUND) for _ in range(100)}
    assert len(sealed) == 100
    assert [len(nonce) for nonce in entropy.drawn] == [NONCE_BYTES] * 100


def test_a_keyring_shows_no_key() -> None:
    assert repr(keyring(b"k" * KEY_BYTES)) == "Keyring(keys=[1], current=1)"


@given(st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES), st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES), names)
def test_a_wrapped_key_comes_back(key: bytes, kek: bytes, store: str) -> None:
    wrapped = wrap(key, kek, store, 1, Random())
    assert unwrap(wrapped, kek, store, 1) == key
    assert key not in wrapped


@pytest.mark.parametrize(
    ("kek", "store", "key_id"), [(b"x" * 32, "store-1", 1), (b"k" * 32, "store-2", 1), (b"k" * 32, "store-1", 2)]
)
def test_a_key_is_unwrapped_only_by_its_own_key_for_its_own_store_and_number(
    kek: bytes, store: str, key_id: int
) -> None:
    wrapped = wrap(b"d" * KEY_BYTES, b"k" * 32, "store-1", 1, Random())
    with pytest.raises(EnvelopeError, match="not the one that this store was sealed with"):
        unwrap(wrapped, kek, store, key_id)


def test_a_changed_or_cut_wrapping_is_refused() -> None:
    wrapped = wrap(b"d" * KEY_BYTES, b"k" * 32, "store-1", 1, Random())
    for broken in [bytes((wrapped[0] ^ 1,)) + wrapped[1:], wrapped[:-1], wrapped[:4], b""]:
        with pytest.raises(EnvelopeError):
            unwrap(broken, b"k" * 32, "store-1", 1)


def test_a_fingerprint_parts_what_looks_alike() -> None:
    assert fingerprint(("a", "bc")) != fingerprint(("ab", "c"))
    assert fingerprint(("a",)) != fingerprint(("a", ""))
    assert fingerprint(("a", "b")) == fingerprint(("a", "b"))
    assert len(fingerprint(("a",))) == 32
