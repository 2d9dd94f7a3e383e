# brokerd --check: every mistake at once, each with its file and line, and no error that only follows from another one.
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from brokerd.config.line_numbers import line_of, line_of_syntax
from brokerd.config.load import load
from brokerd.core.validation import ConfigError
from brokerd.edge.store import key_file
from brokerd.setup.check import check_configuration, located, warnings

WRONG = """\
# A configuration with a mistake in nearly every table.
[daemon]
socket = "run/s"
audit = "maybe"

[providers.idp]
dialect = "oauth2"
token_url = "ftp://idp.example/token"
concurency = 3
reuse_grace = "soon"

[providers."ix.v2"]
dialect = "oauth2"
token_url = "https://ix.example/token"

[grants.app]
provider = "idp"
grant_type = "password"
scope = "read"

[grants.other]
provider = "ix.v2"
grant_type = "client_credentials"
credentials = { client_id = "me", client_secret = { file = "secret" } }

[grants.third]
provider = "nowhere"

[[allow]]
grants = ["app"]
caller = { user = "root" }

[[allow]]
grants = ["ap"]
caller = [
  { user = "root" },
  { usr = "root" },
]
actions = ["got"]
"""


@pytest.fixture
def main(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir(mode=0o755)
    return folder / "brokerd.toml"


def write(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True, mode=0o755)
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def found(path: str) -> list[str]:
    """All errors, without the path and the remedies."""
    try:
        check_configuration(path)
    except ConfigError as error:
        return [located(each).removeprefix(path) for each in (error, *error.others)]
    return []


def test_every_mistake_is_named_once_with_its_line(main: Path) -> None:
    text = "\n".join(found(write(main, WRONG)))
    for words in (
        ":3: daemon.socket: expected an absolute path",
        ":4: daemon.audit: expected one of serve, stop, off",
        ":8: providers.idp.token_url: expected an https:// URL",
        ":9: providers.idp.concurency: unknown key; did you mean concurrency",
        ":10: providers.idp.reuse_grace: expected a duration",
        ":19: grants.app.scope: expected an array",
        ":24: grants.other.credentials.client_secret.file: expected an absolute path",
        ":27: grants.third.provider: expected a provider of this configuration",
        ":34: allow[1].grants: expected a grant of this configuration",
        ":39: allow[1].actions[0]: expected one of",
    ):
        assert text.count(words) == 1, words
    assert text.count("\n") == 9
    assert "grants.app.provider" not in text, "its provider is there, and has mistakes of its own"
    assert "allow[0]" not in text, "its grant is there, and has mistakes of its own"


def test_the_program_prints_them_all_and_ends_with_2(main: Path) -> None:
    path = write(main, WRONG)
    command = [sys.executable, "-m", "brokerd.daemon.main", "--config", path, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == len(found(path)) > 7
    assert all(re.match(rf"brokerd: {re.escape(path)}:\d+: \S+: ", each) for each in lines), lines
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.others, "whoever else reads it has them all as well"


def test_files_beside_it_are_named_and_what_is_no_toml_hides_what_follows_from_it(main: Path) -> None:
    write(main, '[grants.app]\nprovider = "idp"\n')
    broken = write(main.parent / "conf.d" / "a.toml", '# one\n[providers.idp]\ndialect = "oauth2\n')
    other = write(main.parent / "conf.d" / "b.toml", "\n\n[provider]\n")
    said = found(str(main))
    assert len(said) == 2
    assert said[0].startswith(f"{broken}:3: this is not TOML")
    assert said[1].startswith(f"{other}:3: provider: unknown table")


def complete(main: Path, provider: str, grant: str = "", rule: str = "", state: str | None = None) -> str:
    key = main.parent / "key"
    key.exists() or key_file.create(key)
    daemon = f'[daemon]\nkey = {{ file = "{key}" }}\nstate_dir = "{state or main.parent / "state"}"\n'
    return write(main, f'{daemon}[providers.idp]\ndialect = "oauth2"\n{provider}\n{grant}\n{rule}\n')


@pytest.mark.parametrize(
    ("provider", "error", "warning"),
    [
        ('token_url = "https://idp.example/token"', False, False),
        ('token_url = "http://127.0.0.1:1/token"', False, False),
        ('token_url = "http://[::1]:1/token"', False, False),
        ('token_url = "http://localhost/token"', False, False),
        ('token_url = "http://192.0.2.1/token"', True, False),
        ('token_url = "http://192.0.2.1/token"\ninsecure_http = true', False, False),
        ('token_url = "http://idp.example/token"', False, True),
        ('issuer = "http://192.0.2.1"', True, False),
    ],
)
def test_plain_http_is_found_where_nothing_would_be_sent(main: Path, provider: str, error: bool, warning: bool) -> None:
    path = complete(main, provider)
    said = found(path)
    assert [":4: providers.idp: plain http://" in each for each in said] == [True] * error
    assert [located(each) for each in warnings(path) if "insecure_http" in str(each)] != [] or not warning
    assert bool(list(warnings(path))) is warning


STORE = '[store]\netcd = ["https://192.0.2.1:2379"]\nfleet = "test-only"\nname = "one"\n'


def test_the_files_of_a_store_are_read_and_its_secrets_are_closed(main: Path, tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    host = ca.issue_cert("one.example")
    host.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    host.private_key_pem.write_to_path(tmp_path / "key.pem")
    write(tmp_path / "password", "test-only-secret\n")
    names = ("ca", "cert", "key")
    files = "".join(f'{each}_file = "{tmp_path / each}.pem"\n' for each in names)
    files += f'user = "brokerd"\npassword = {{ file = "{tmp_path / "password"}" }}\n'
    path = complete(main, 'token_url = "https://idp.example/token"', rule=STORE + files)
    (tmp_path / "key.pem").chmod(0o640)
    assert found(path) == []
    assert list(warnings(path)) == []
    (tmp_path / "key.pem").chmod(0o644)
    (tmp_path / "password").chmod(0o604)
    (tmp_path / "ca.pem").write_text("no certificate")
    said = found(path)
    assert [each.partition(" can be opened by everybody")[0] for each in said[1:]] == [
        f":14: store.key_file: {tmp_path}/key.pem",
        f":16: store.password: {tmp_path}/password",
    ]
    assert said[0] == f":8: store: ca_file {tmp_path}/ca.pem: holds no certificate in PEM form"
    assert "test-only-secret" not in "".join(said)


def test_a_password_with_a_line_break_too_many_is_a_warning(main: Path, tmp_path: Path) -> None:
    write(tmp_path / "password", "test-only-secret\n\n")
    user = f'user = "brokerd"\npassword = {{ file = "{tmp_path / "password"}" }}\n'
    path = complete(main, 'token_url = "https://idp.example/token"', rule=STORE + user)
    (warning,) = warnings(path)
    assert located(warning).startswith(f"{path}:13: store.password: {tmp_path}/password has a line break at its end")


def test_users_and_groups_that_are_not_there_are_a_warning_with_a_line(main: Path) -> None:
    path = complete(
        main,
        'token_url = "https://idp.example/token"',
        rule='[[allow]]\ngrants = ["*"]\ncaller = [{ user = "root" }, { group = "test-only-nobody" }]\n'
        '[[allow]]\ngrants = ["*"]\ncaller = { user = "test-only-gone" }\n'
        '[[allow]]\ngrants = ["*"]\ncaller = [{ user = "nobody", unit = "x.service" }, { group = "nogroup" }]',
    )
    assert "is right" in check_configuration(path)
    without = "is 65534, which the kernel shows for everybody that has no number here, so this caller matches nobody"
    own = "run the program as a {} of its own, and name that here"
    said = [located(each).removeprefix(path) for each in warnings(path)]
    assert said == [
        ":10: allow[0].caller: there is no group test-only-nobody on this machine, so this caller matches nobody",
        ":13: allow[1].caller: there is no user test-only-gone on this machine, so this caller matches nobody",
        f":16: allow[2].caller: the user nobody {without}; {own.format('user')}",
        f":16: allow[2].caller: the group nogroup {without}; {own.format('group')}",
    ]


def test_one_wrong_table_hides_nothing_of_what_the_others_name(main: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    state.chmod(0o755)
    path = complete(
        main,
        'token_url = "http://192.0.2.1/token"\n[providers.slip]\ndialect = "oauth2"\ntoken_ulr = "https://x.example"',
        grant='[grants.app]\nprovider = "idp"\ngrant_type = "client_credentials"\n'
        'credentials = { client_id = "me", client_secret = { file = "/nowhere/secret" } }\n'
        '[grants.other]\nprovider = "slipp"\n',
        rule='[[allow]]\ngrants = ["app"]\ncaller = { user = "test-only-gone" }',
        state=str(state),
    )
    text = "\n".join(found(path))
    for words in (
        ":3: daemon.state_dir:",
        ":4: providers.idp: plain http://",
        ":9: providers.slip.token_ulr: unknown key",
        ":13: grants.app.credentials.client_secret: /nowhere/secret: No such file",
        ":15: grants.other.provider: expected a provider of this configuration (idp, slip)",
    ):
        assert text.count(words) == 1, words
    assert text.count("\n") == 4
    assert any("there is no user test-only-gone" in str(each) for each in warnings(path))
    write(main, main.read_text().replace("state_dir", "state_dri"))
    assert [each for each in found(path) if "daemon" in each] == [
        ":3: daemon.state_dri: unknown key; did you mean state_dir?"
    ], "of a [daemon] that is wrong it is not known where state and key are"


def test_a_state_directory_that_cannot_be_made_is_a_mistake(
    main: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_url = 'token_url = "https://idp.example/token"'
    write(tmp_path / "file", "")
    path = complete(main, token_url, state=str(tmp_path / "file" / "state"))
    assert [f"cannot create it in {tmp_path}/file; create it yourself" in each for each in found(path)] == [True]
    path = complete(main, token_url, state=str(tmp_path / "new" / "state"))
    assert "is right" in check_configuration(path), "the start makes it"
    may = os.access
    monkeypatch.setattr(os, "access", lambda place, mode: may(place, mode) and Path(place) != tmp_path)
    (said,) = found(path)
    assert said.startswith(":3: daemon.state_dir: ")
    assert f"cannot create it in {tmp_path}" in said


def test_a_socket_that_brokerd_could_not_make_is_a_warning(main: Path, tmp_path: Path) -> None:
    """It is none where systemd passes the socket."""
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    path = complete(main, 'token_url = "https://idp.example/token"')
    assert list(warnings(path)) == []
    socket = f'[daemon]\nsocket = "{folder}/s"\nsocket_group = "test-only-nobody"\n'
    write(main, main.read_text().replace("[daemon]\n", socket))
    assert "is right" in check_configuration(path)
    said = [located(each).removeprefix(path) for each in warnings(path)]
    assert said[0].startswith(f":2: daemon.socket: {folder} can be written by others, who could replace the socket; ")
    assert said[1:] == [
        ":3: daemon.socket_group: there is no group test-only-nobody on this machine; write one that exists"
    ]


def test_a_state_directory_that_brokerd_would_refuse_is_found(main: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    path = complete(main, 'token_url = "https://idp.example/token"', state=str(state))
    assert found(path) == [], "it is made at the start"
    state.mkdir(mode=0o755)
    state.chmod(0o755)
    (said,) = found(path)
    assert f":3: daemon.state_dir: {state} can be opened by others than its owner; chmod 700" in said
    state.rmdir()
    state.touch(0o600)
    assert any("is not a directory" in each for each in found(path))


def test_what_several_names_lead_to_is_told_of_each(main: Path) -> None:
    secrets = {name: main.parent / name for name in ("one", "two")}
    grants = "\n".join(
        f'[grants.{name}]\nprovider = "idp"\ngrant_type = "client_credentials"\n'
        f'credentials = {{ client_id = "me", client_secret = {{ file = "{file}" }} }}'
        for name, file in secrets.items()
    )
    said = found(complete(main, 'token_url = "https://idp.example/token"', grants))
    assert [bool(re.match(r":\d+: grants\.(one|two)\.credentials\.client_secret: ", each)) for each in said] == [
        True
    ] * 2


TEXT = '''\
top = 1  # "not a string
"quoted key" = [
  1, # ] = 2
  { a = "}" },
]
[a."b.c".d]
x.y = """
[not.a.table]
z = 1
"""
\tz = 'it''s'
w = """a\\"""b"""
[[list]]
[[list]]
k = 1
[[list.inner]]
k = 2
'''


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("top", 1),
        ("quoted key[1].a", 2),
        ("a.b.c.d", 6),
        ("a.b.c.d.x.y", 7),
        ("a.b.c.d.missing", 6),
        ("a.b.c.d.z", 11),
        ("a.b.c.d.w", 12),
        ("list[0]", 13),
        ("list[1].k", 15),
        ("nowhere", None),
        ("topmost", None),
    ],
)
def test_the_line_of_a_key_is_found_and_nothing_is_made_up(key: str, line: int | None) -> None:
    assert line_of(TEXT, key) == line


def test_the_line_of_a_mistake_in_the_syntax_is_what_the_reader_says() -> None:
    assert line_of_syntax("this is not TOML: Invalid value (at line 7, column 5)") == 7
    assert line_of_syntax("this is not TOML: something") is None


def test_an_error_without_a_file_is_said_as_it_is() -> None:
    assert located(ConfigError("x", key="a", file="/nowhere/at/all")) == "/nowhere/at/all: a: x"


def test_a_static_token_is_checked_as_a_secret_file(tmp_path: Path) -> None:
    main, key = tmp_path / "brokerd.toml", tmp_path / "key1"
    main.touch(0o600)
    main.write_text(
        '[providers.s]\ndialect = "static"\n[grants.g]\nprovider = "s"\n'
        f'credentials = {{ token = {{ file = "{key}" }} }}\n'
        f'[daemon]\nkey = {{ file = "{tmp_path / "key"}" }}\nstate_dir = "{tmp_path / "state"}"\n'
    )
    key_file.create(tmp_path / "key")
    with pytest.raises(ConfigError) as caught:
        check_configuration(str(main))
    assert str(caught.value).startswith(f"{main}: grants.g.credentials.token: {key}: No such file or directory")
    key.touch(0o600)
    key.write_text("key-1\n")
    assert "1 provider, 1 grant" in check_configuration(str(main))
    assert list(warnings(str(main))) == []
    key.write_text("key-1 \n")
    assert "a blank at its end" in str(next(iter(warnings(str(main)))))
