# Which grant belongs to which address: what matches, what must not, and what is said of a wrong helpers.toml.
from __future__ import annotations

import os
from pathlib import Path

import pytest
from brokerd_client.helpers import HelpersError, address_of, files, find, look_up, read_uses

TABLES = """
[[use]]
url = "https://git.example/*"
grant = "git"
username = "oauth2"

[[use]]
url = "https://index.example/simple/*"
grant = "index"

[[use]]
url = "http://127.0.0.1:8080/one"
grant = "local"

[[use]]
url = "https://projects.example/My%20Team/*"
grant = "team"
"""


@pytest.fixture
def helpers(tmp_path: Path) -> Path:
    path = tmp_path / "helpers.toml"
    path.write_text(TABLES)
    return path


@pytest.mark.parametrize(
    ("url", "grant"),
    [
        ("https://git.example/group/project.git", "git"),
        ("https://git.example", "git"),
        ("https://GIT.example:443/x", "git"),
        ("https://user@git.example/x", "git"),
        ("git.example/v2/", "git"),
        ("https://index.example/simple/", "index"),
        ("https://index.example/simple", "index"),
        ("https://index.example/simple/pkg/", "index"),
        ("http://127.0.0.1:8080/one", "local"),
        ("https://projects.example/My%20Team/app", "team"),
        ("https://projects.example/My%20%54eam/app", "team"),
        # none of these is what it looks like
        ("https://git.example.evil.example/x", None),
        ("https://evil.example/git.example/x", None),
        ("https://git.example@evil.example/x", None),
        ("https://git.example:443@evil.example/x", None),
        ("https://evil.example#@git.example/", None),
        ("https://evil.example\\@git.example/", None),
        ("https://git.example:8443/x", None),
        ("http://git.example/x", None),
        ("ssh://git.example/x", None),
        ("https://xgit.example/x", None),
        ("https://git.example%2eevil.example/x", None),
        ("https://gıt.example/x", None),
        ("https://git.example\n.evil.example/x", None),
        ("https://index.example/simple2/", None),
        ("https://index.example/simple/../private/", None),
        ("https://index.example/simple/%2e%2e/private/", None),
        ("https://index.example/simple/..;/private/", None),
        ("https://index.example/simple/..%3bx/private/", None),
        ("https://index.example/simple/..;", None),
        ("https://index.example/simple/%2E./private/", None),
        ("https://index.example//simple/", None),
        ("https://index.example/simple//", None),
        ("https://index.example/simple/x/..", None),
        ("https://index.example/simple/%0ax", None),
        ("https://index.example/simple/%5c..", None),
        ("https://index.example/simple/%252e%252e/private/", None),
        ("https://index.example/simple/%ff", None),
        ("https://index.example/simple%2f..%2fprivate", None),
        ("http://127.0.0.1:8080/one/more", None),
        ("", None),
        ("https://", None),
        ("https://[::1", None),
        ("https://git.example:99999/", None),
    ],
)
def test_an_address_has_the_grant_of_its_table_and_a_look_alike_has_none(
    helpers: Path, url: str, grant: str | None
) -> None:
    use = find(address_of(url), read_uses((helpers,)))
    assert (use and use.grant) == grant


def test_a_program_that_says_no_path_gets_the_grant_of_a_whole_host_only(helpers: Path) -> None:
    uses = read_uses((helpers,))
    for url, grant in {"https://git.example/": "git", "https://index.example/": None}.items():
        address = address_of(url)
        assert address is not None
        use = find(address._replace(path=None), uses)
        assert (use and use.grant) == grant


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[use", "cannot be read as TOML"),
        ('grant = "x"', "expected [[use]] tables such as"),
        ('use = "x"', "expected [[use]] tables such as"),
        ("[[use]]", "[[use]] number 1: the key url is missing"),
        ('[[use]]\nurl = "http://git.example/*"\ngrant = "g"', "expected https; http would send the token unencrypted"),
        ('[[use]]\nurl = "http://127.0.0.1.evil.example/*"\ngrant = "g"', "so it is for this machine only (127.0.0.1)"),
        ('[[use]]\nurl = "https://a.example/*"', "the key grant is missing"),
        (
            '[[use]]\nurl = "https://a.example/*"\ngrant = "g"\nuser = "u"',
            "unknown key user; known: url, grant",
        ),
        ('[[use]]\nurl = "a.example"\ngrant = "g"', "url: expected https://HOST/PATH"),
        ('[[use]]\nurl = "https://u@a.example/*"\ngrant = "g"', "url: expected https://HOST/PATH"),
        ('[[use]]\nurl = "https://*.example/*"\ngrant = "g"', "url: expected https://HOST/PATH"),
        ('[[use]]\nurl = "https://a.example/x*"\ngrant = "g"', 'expected "/*" at its end'),
        ('[[use]]\nurl = 1\ngrant = "g"', "expected a table of texts"),
        ('[[use]]\nurl = "https://a.example/*"\ngrant = "g"\nusername = "u\\npassword=x"', "texts of one line"),
    ],
)
def test_a_wrong_file_is_refused_with_what_to_write(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "helpers.toml"
    path.write_text(text)
    with pytest.raises(HelpersError) as caught:
        read_uses((path,))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_users_file_comes_before_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BROKERD_HELPERS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert [str(path) for path in files()] == [f"{tmp_path}/brokerd/helpers.toml", "/etc/brokerd/helpers.toml"]
    monkeypatch.setenv("BROKERD_HELPERS", "/elsewhere.toml")
    assert [str(path) for path in files()] == ["/elsewhere.toml"]


def test_a_machine_without_the_file_has_no_tables(tmp_path: Path) -> None:
    assert read_uses((tmp_path / "none.toml",)) == []


# Who can change the file decides where tokens are sent.


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o777, 0o1666])
def test_a_file_that_others_can_write_is_refused_with_its_remedy(helpers: Path, mode: int) -> None:
    helpers.chmod(mode)
    with pytest.raises(HelpersError, match=f"{helpers}: others may write to it") as caught:
        read_uses((helpers,))
    helpers.chmod(int(str(caught.value)[-4:], 8))
    assert read_uses((helpers,))


def test_a_folder_in_which_others_can_replace_the_file_is_refused(helpers: Path) -> None:
    helpers.parent.chmod(0o777)
    with pytest.raises(HelpersError, match=f"{helpers.parent}: others may write to it"):
        read_uses((helpers,))
    helpers.parent.chmod(0o1777)  # as /tmp: only the owner may replace it
    assert read_uses((helpers,))


@pytest.mark.skipif(os.geteuid() != 0, reason="FILES OF ANOTHER USER DID NOT RUN: only root makes one")
def test_a_file_or_folder_of_another_user_is_refused_also_through_a_link(helpers: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(helpers)
    os.chown(helpers, 4711, 4711)
    for path in (helpers, link):
        with pytest.raises(HelpersError, match=f"{path}: the user 4711 owns it"):
            read_uses((path,))
    os.chown(helpers, 0, 0)
    os.chown(tmp_path, 4711, 4711)
    with pytest.raises(HelpersError, match=f"{tmp_path}: the user 4711 owns it"):
        read_uses((helpers,))


def test_a_file_that_the_environment_names_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKERD_HELPERS", str(tmp_path / "missing.toml"))
    with pytest.raises(HelpersError, match=r"missing\.toml: there is no such file; BROKERD_HELPERS names it$"):
        look_up(address_of("https://git.example/x"))


@pytest.mark.parametrize("path", ["a/..;/b", "a//b", "a%2fb"])
def test_an_odd_path_has_the_grant_of_a_whole_host_only(helpers: Path, path: str) -> None:
    """There both readings have the same one."""
    uses = read_uses((helpers,))
    use = find(address_of(f"https://git.example/{path}"), uses)
    assert use is not None
    assert use.grant == "git"
    assert find(address_of(f"https://index.example/simple/{path}"), uses) is None
    assert find(address_of("https://git.example:0/"), uses) is None


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "helpers.toml", 0o600)
    with pytest.raises(HelpersError, match="expected a regular file"):
        read_uses((tmp_path / "helpers.toml",))


def test_who_may_not_read_it_is_told_what_root_can_do(helpers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(HelpersError, match=f"{helpers}: you may not read it$"):  # nobody knows who else needs its mode
        read_uses((helpers,))
    monkeypatch.setattr("brokerd_client.helpers.SYSTEM", str(helpers))
    with pytest.raises(HelpersError, match=f"you may not read it; to fix, as root: chmod o.r {helpers}$"):
        read_uses((helpers,))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(HelpersError, match=f"chmod o.x {helpers.parent}$"):
        read_uses((helpers,))


def test_an_address_of_the_users_own_file_needs_no_other_file(
    helpers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[use")
    monkeypatch.setattr("brokerd_client.helpers.files", lambda: (helpers, broken))
    found = look_up(address_of("https://git.example/"))
    assert found is not None
    assert found.grant == "git"
    with pytest.raises(HelpersError, match="cannot be read as TOML"):
        look_up(address_of("https://other.example/"))
