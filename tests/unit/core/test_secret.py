# A secret is shown nowhere but where somebody says reveal() (law 11).
from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from dataclasses import dataclass

import pytest

from brokerd.core.exchange.steps import Request, Response
from brokerd.core.secret import Secret, SecretSource, doubts
from brokerd.core.timing.moment import Moment

VALUE = "hunter2-correct-horse"
SECRET = Secret(VALUE)


@dataclass(frozen=True)
class Holder:
    token: Secret


@pytest.mark.parametrize(
    "text",
    [
        repr(SECRET),
        str(SECRET),
        f"{SECRET}",
        f"{SECRET!r}",
        f"{SECRET!s}",
        f"{SECRET:>40}",
        format(SECRET, "40"),
        f"{SECRET:s}",
        "%s %r" % (SECRET, SECRET),  # noqa: UP031
        repr([SECRET, {"a": SECRET}, (SECRET,)]),
        repr(Holder(SECRET)),
        repr(SecretSource(text=SECRET)),
        json.dumps({"a": SECRET}, default=str),
        repr(vars(Holder(SECRET))),
    ],
)
def test_a_secret_is_masked_wherever_text_is_made_of_it(text: str) -> None:
    assert "hunter2" not in text
    assert "***" in text


def test_a_secret_is_masked_in_exceptions_and_tracebacks() -> None:
    def use(secret: Secret) -> None:
        raise ValueError("cannot use", secret)

    with pytest.raises(ValueError) as caught:
        use(SECRET)
    lines = traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    assert "hunter2" not in "".join(lines).replace('"hunter2-correct-horse"', "")


def test_an_exchange_shows_neither_what_was_sent_nor_what_came() -> None:
    now, fields = Moment(0.0, 0.0, "boot"), (("authorization", f"Bearer {VALUE}"),)
    request = Request("POST", f"https://x.example/{VALUE}", fields, VALUE.encode(), (SECRET,))
    response = Response(400, (("www-authenticate", VALUE),), VALUE.encode(), now, now)
    assert "hunter2" not in repr((request, response))


def test_a_secret_is_masked_in_a_log(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").warning("token %s of %r", SECRET, Holder(SECRET))
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("write", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_secret_cannot_be_pickled_or_copied(write: object) -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        write(SECRET)  # type: ignore[operator]


def test_a_secret_has_no_dict_to_be_found_in() -> None:
    with pytest.raises(TypeError):
        vars(SECRET)
    with pytest.raises(AttributeError):
        SECRET.other = 1  # type: ignore[attr-defined]


def test_a_secret_is_given_out_by_reveal_alone() -> None:
    assert SECRET.reveal() == VALUE


def test_secrets_are_compared_by_value_and_never_equal_text() -> None:
    assert Secret("ü" + VALUE) == Secret("ü" + VALUE)
    assert Secret("a") != Secret("b")
    assert SECRET != VALUE
    assert hash(Secret(VALUE)) == hash(SECRET)
    assert len({Secret(VALUE), SECRET}) == 1


def test_an_empty_secret_is_false() -> None:
    assert not Secret("")
    assert Secret(" ")


PEM = "-----BEGIN PRIVATE KEY-----\ntest-only\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("hunter2", None),
        ("hunter2 with blanks", None),
        ("\ufeffhunter2", "a byte order mark (BOM) at its beginning"),
        (" hunter2", "a blank at its beginning"),
        ("hunter2\t", "a blank at its end"),
        ("hunter2\u00a0", "a blank at its end"),
        ("hunter2\n", "a line break at its end"),
        ("\nhunter2 ", "a line break at its beginning and a blank at its end"),
        (PEM + "\n", None),
        ("\ufeff" + PEM, "a byte order mark (BOM) at its beginning"),
    ],
)
def test_what_is_most_likely_a_slip_in_a_secret_is_named_without_showing_it(text: str, found: str | None) -> None:
    assert doubts(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [("R-0", None), ("R 0", "a blank in it"), ("R\n0\n", "a line break at its end and a blank in it")],
)
def test_a_token_has_no_blank_in_it(text: str, found: str | None) -> None:
    assert doubts(text, token=True) == found
