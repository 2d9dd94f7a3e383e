# The [store] table: what it becomes, and each mistake with its whole message.
from __future__ import annotations

import socket
from pathlib import Path

import pytest

from brokerd.config import store
from brokerd.config.load import load
from brokerd.config.settings import StoreSettings
from brokerd.config.store import A_NAME, A_URL, PLAIN
from brokerd.core.secret import SecretSource
from brokerd.core.validation import ConfigError
from tests.unit.config.files import A_DURATION, error_of, loaded, write

URL = 'etcd = ["https://10.0.0.1:2379"]\n'
FLEET = 'fleet = "prod"\nname = "web-1"\n'
TABLE = f"[store]\n{URL}{FLEET}"
EXAMPLE = '{ file = "/etc/brokerd/etcd-password" }'


def test_without_the_table_there_is_the_local_store_alone(main: Path) -> None:
    assert loaded(main, "").store is None


def test_what_is_left_out_has_its_default(main: Path) -> None:
    found = loaded(main, TABLE).store
    assert found == StoreSettings(("https://10.0.0.1:2379",), "prod", "web-1")
    assert (found.offline, found.clock_difference) == (None, 120.0)


def test_every_key_arrives(main: Path, tmp_path: Path) -> None:
    ca, cert, key = (str(write(tmp_path / each, "")) for each in ("ca.pem", "cert.pem", "key.pem"))
    text = (
        '[store]\netcd = ["https://etcd-1.example:2379", "https://[2001:db8::1]:2380", "http://127.0.0.1:2379"]\n'
        f'{FLEET}ca_file = "{ca}"\ncert_file = "{cert}"\nkey_file = "{key}"\nuser = "brokerd"\n'
        'password = { file = "/etc/brokerd/etcd-password" }\noffline = "1h"\nclock_difference = "10s"\n'
    )
    assert loaded(main, text).store == StoreSettings(
        ("https://etcd-1.example:2379", "https://[2001:db8::1]:2380", "http://127.0.0.1:2379"),
        *("prod", "web-1", ca, cert, key, "brokerd"),
        SecretSource(file="/etc/brokerd/etcd-password"),
        *(3_600.0, 10.0),
    )


def test_a_passphrase_is_no_key_for_a_fleet(main: Path) -> None:
    text = f"[daemon]\nkey = {{ passphrase = true }}\n{TABLE}"
    assert error_of(main, text).startswith("CONFIG: store: a fleet needs one key on all hosts")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "etcd.localhost"])
def test_plain_http_goes_to_this_machine(main: Path, host: str) -> None:
    found = loaded(main, f'[store]\netcd = ["http://{host}:2379"]\n{FLEET}').store
    assert found is not None
    assert found.etcd == (f"http://{host}:2379",)


def test_the_table_may_stand_in_a_file_of_conf_d_and_in_one_only(main: Path) -> None:
    beside = write(main.parent / "conf.d" / "fleet.toml", TABLE)
    found = loaded(main, "")
    assert found.store is not None
    assert found.store.fleet == "prod"
    write(main, TABLE)
    with pytest.raises(ConfigError) as caught:
        load(main)
    assert str(caught.value) == f"{beside}: store: stands in {main} too; keep one of them"


def test_a_host_without_a_name_is_called_as_the_machine(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "web-7.example")
    found = loaded(main, f'[store]\n{URL}fleet = "prod"').store
    assert found is not None
    assert found.name == "web-7.example"


@pytest.mark.parametrize("name", ["localhost", "", "web 7", "x" * 65])
def test_a_machine_without_a_name_of_its_own_needs_one(main: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: name)
    assert error_of(main, f'[store]\n{URL}fleet = "prod"') == (
        f"CONFIG: store.name: this machine is called {name!r}, which is no name of a host in a fleet; write one here "
        'that no other host has, such as name = "web-1"'
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[store]\nfleet = 'prod'", "store.etcd: this key is required and missing"),
        (f"[store]\n{URL}", "store.fleet: this key is required and missing"),
        (f"{TABLE}etdc = []", "store.etdc: unknown key; did you mean etcd?"),
        ("[stroe]", "stroe: unknown table; known: "),
        (f'[store]\netcd = "https://10.0.0.1:2379"\n{FLEET}', "store.etcd: expected an array, found"),
        (f"[store]\netcd = []\n{FLEET}", f"store.etcd: expected {A_URL}, one for each server of the cluster, found"),
        (f"[store]\netcd = [2379]\n{FLEET}", "store.etcd[0]: expected text, found 2379"),
        (f'[store]\netcd = ["10.0.0.1:2379"]\n{FLEET}', f"store.etcd[0]: expected {A_URL}, and nothing behind"),
        (f'[store]\netcd = ["ftp://10.0.0.1:2379"]\n{FLEET}', f"store.etcd[0]: expected {A_URL}, and nothing behind"),
        (f'[store]\netcd = ["https://10.0.0.1:2379/"]\n{FLEET}', f"store.etcd[0]: expected {A_URL}, and nothing"),
        (f'[store]\netcd = ["https://10.0.0.1:2379/v3"]\n{FLEET}', f"store.etcd[0]: expected {A_URL}, and nothing"),
        (f'[store]\netcd = ["https://10.0.0.1:2379?a=b"]\n{FLEET}', f"store.etcd[0]: expected {A_URL}, and nothing"),
        (f'[store]\netcd = ["https://10.0.0.1"]\n{FLEET}', f"store.etcd[0]: expected {A_URL}; write the port, which"),
        (f'[store]\netcd = ["https://:2379"]\n{FLEET}', f"store.etcd[0]: expected {A_URL}"),
        (f'[store]\netcd = ["https://10.0.0.1:99999"]\n{FLEET}', f"store.etcd[0]: expected {A_URL}, found"),
        (f'[store]\netcd = ["https://[::1:2379"]\n{FLEET}', f"store.etcd[0]: expected {A_URL}, found"),
        (f'[store]\netcd = ["http://10.0.0.1:2379"]\n{FLEET}', f"store.etcd[0]: {PLAIN}"),
        (f'[store]\netcd = ["http://etcd.example:2379"]\n{FLEET}', f"store.etcd[0]: {PLAIN}"),
        (
            f'[store]\netcd = ["https://a:1", "https://b:1", "https://a:1"]\n{FLEET}',
            "store.etcd[2]: stands there twice",
        ),
        (f'[store]\n{URL}fleet = ""', f'store.fleet: expected {A_NAME}, found ""'),
        (f'[store]\n{URL}fleet = "a/b"', f'store.fleet: expected {A_NAME}, found "a/b"'),
        (f'[store]\n{URL}fleet = "prod"\nname = "web 1"', f'store.name: expected {A_NAME}, found "web 1"'),
        (
            f'{TABLE}cert_file = "/c"',
            "store.cert_file: cert_file needs key_file too; add key_file, or remove cert_file",
        ),
        (f'{TABLE}key_file = "/k"', "store.key_file: key_file needs cert_file too; add cert_file, or remove key_file"),
        (f'{TABLE}ca_file = "ca.pem"', "store.ca_file: expected the absolute path of a file that exists"),
        (f'{TABLE}ca_file = "/nowhere/ca.pem"', "store.ca_file: expected the absolute path of a file that exists"),
        (f'{TABLE}user = "u"', "store.user: user needs password too; add password, or remove user"),
        (f"{TABLE}password = {EXAMPLE}", "store.password: password needs user too; add user, or remove password"),
        (f'{TABLE}user = ""\npassword = {EXAMPLE}', 'store.user: expected the name of a user of etcd, found ""'),
        (f'{TABLE}user = "u"\npassword = {{ fil = "/p" }}', "store.password.fil: unknown key; did you mean file?"),
        (f'{TABLE}user = "u"\npassword = {{ file = "p" }}', "store.password.file: expected an absolute path"),
        (f'{TABLE}user = "u"\npassword = {{ }}', "store.password: expected exactly one of file, credential, env"),
        (f'{TABLE}offline = "soon"', f'store.offline: expected {A_DURATION}, found "soon"'),
        (f"{TABLE}offline = 0", "store.offline: expected a duration of more than 0, found 0"),
        (f'{TABLE}clock_difference = "0s"', "store.clock_difference: expected a duration of more than 0, found 0"),
        (f"{TABLE}clock_difference = -1", f"store.clock_difference: expected {A_DURATION}, found -1"),
    ],
)
def test_a_mistake_is_told_with_its_key_and_what_to_do(main: Path, text: str, message: str) -> None:
    assert error_of(main, text).startswith(f"CONFIG: {message}")


def test_a_file_of_certificates_needs_a_server_with_tls(main: Path, tmp_path: Path) -> None:
    ca = write(tmp_path / "ca.pem", "")
    text = f'[store]\netcd = ["http://127.0.0.1:2379"]\n{FLEET}ca_file = "{ca}"'
    words = "is only for https:// URLs, and etcd names none; remove it"
    assert error_of(main, text) == f"CONFIG: store.ca_file: {words}"


@pytest.mark.parametrize(
    "text",
    [
        f'[store]\netcd = ["https://root:test-only-secret@10.0.0.1:2379"]\n{FLEET}',
        f'[store]\netcd = ["https://root:test-only-secret@10.0.0.1:x"]\n{FLEET}',
        f'[store]\netcd = ["ftp://10.0.0.1:1/@test-only-secret"]\n{FLEET}',
        f'[store]\netcd = "https://root:test-only-secret@10.0.0.1:2379"\n{FLEET}',
        f'{TABLE}user = "u"\npassword = "test-only-secret"',
        f'{TABLE}user = "u"\npassword = ["test-only-secret"]',
        f'{TABLE}user = "u"\npassword = {{ file = "test-only-secret" }}',
    ],
)
def test_no_mistake_shows_a_password(main: Path, text: str) -> None:
    assert "test-only-secret" not in error_of(main, text)


def test_several_mistakes_are_told_at_once(main: Path) -> None:
    write(main, f"{TABLE}offline = 'soon'\nclock_difference = 'late'\nextra = 1")
    with pytest.raises(ConfigError) as caught:
        load(main)
    keys = {each.key for each in (caught.value, *caught.value.others)}
    assert keys == {"store.offline", "store.clock_difference", "store.extra"}


def test_the_names_of_nobody_are_those_of_fresh_machines() -> None:
    assert "localhost" in store.OF_NOBODY
