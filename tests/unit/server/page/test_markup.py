from __future__ import annotations

import pytest

from brokerd.server.page.markup import LONGEST, Html, foreign, joined, tag, text


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("\"onload='x' & more", "&quot;onload=&#x27;x&#x27; &amp; more"),
        ("abc\u202egnp.exe\u2066", "abc\ufffdgnp.exe\ufffd"),  # marks that turn the direction of what follows
        ("a\x00b\x1b[31mc\r\nd\u2028", "a\ufffdb\ufffd[31mc\ufffd\ufffdd\ufffd"),
        ("żółć שלום", "żółć שלום"),
    ],
)
def test_text_of_others_is_shown_and_is_no_markup(value: str, written: str) -> None:
    assert text(value) == written
    assert tag("b", value) == f"<b>{written}</b>"
    assert tag("b", title=value) == f'<b title="{written}"></b>'


def test_foreign_text_has_its_own_direction_and_a_long_one_is_cut() -> None:
    assert foreign("שלום") == "<bdi>שלום</bdi>"
    assert foreign("x" * 10_000) == f"<bdi>{'x' * LONGEST} … and 9400 characters more</bdi>"


def test_html_is_not_escaped_again() -> None:
    assert tag("p", tag("b", "<"), None, " & ") == "<p><b>&lt;</b> &amp; </p>"
    assert isinstance(joined("a", Html("<br>")), Html)


def test_attributes() -> None:
    assert (
        tag("a", class_="x", data_at=3, hidden=True, title=None, open=False) == '<a class="x" data-at="3" hidden></a>'
    )
