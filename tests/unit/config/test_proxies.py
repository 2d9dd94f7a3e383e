# FILE.toml of brokerd-proxy: defaults, and what is wrong is named.
from __future__ import annotations

from pathlib import Path

import pytest

from brokerd.config.proxies import ProxySettings, read
from brokerd.config.proxy_places import ProxyPlace
from brokerd.core.access.policy import Selector
from brokerd.core.http.forwarding import Upstream
from brokerd.core.validation import ConfigError, as_one

BASE = {
    "grant": '"ix"',
    "upstream": '"https://api.example/v2/"',
    "listen": '"127.0.0.1:8081"',
    "caller": '{ user = "portal" }',
}


def text(name: str = "ix", **keys: str | None) -> str:
    said = {key: value for key, value in {**BASE, **keys}.items() if value is not None}
    return f"[proxies.{name}]\n" + "".join(f"{key} = {value}\n" for key, value in said.items())


def load(path: Path, *tables: str) -> tuple[ProxySettings, ...]:
    path /= "proxy.toml"
    path.write_text("\n".join(tables))
    found, errors = read(path)
    if errors:
        raise as_one(errors)
    return found


def test_four_keys_are_enough(tmp_path: Path) -> None:
    (found,) = load(tmp_path, text())
    assert found.place == ProxyPlace(host="127.0.0.1", port=8081)
    assert found.callers == (Selector(user="portal"),)
    assert found.upstream == Upstream("https://api.example", "api.example", "/v2")
    assert (found.allowed.methods, found.allowed.paths, found.timeout) == (None, None, 60.0)
    assert str(found.place) == "127.0.0.1:8081"


def test_a_socket_has_a_path_and_ipv6_is_loopback_too(tmp_path: Path) -> None:
    socket = text("a", listen=None, socket='"/run/x.sock"', caller='[{ unit = "a.service" }, { uid = 0 }]')
    found = load(tmp_path, socket, text("b", listen='"[::1]:8082"'))
    assert [str(each.place) for each in found] == ["/run/x.sock", "[::1]:8082"]
    assert found[0].callers == (Selector(unit="a.service"), Selector(uid=0))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"grant": '""'}, "the name of a grant"),
        ({"caller": None}, "caller"),
        ({"caller": "[]"}, "a caller such as"),
        ({"caller": '{ unit = "a.service" }'}, "at a TCP port only user and uid are known"),
        ({"listen": None}, "expected one of socket"),
        ({"socket": '"/run/x.sock"'}, "expected one of socket"),
        ({"listen": None, "socket": '"x.sock"'}, "an absolute path"),
        ({"listen": '"0.0.0.0:8081"'}, "a loopback address"),
        ({"listen": '"192.0.2.1:8081"'}, "a loopback address"),
        ({"listen": '"127.0.0.1:0"'}, "a loopback address"),
        ({"listen": '"127.0.0.1:70000"'}, "a loopback address"),
        ({"listen": '"localhost:8081"'}, "a loopback address"),
        ({"upstream": '"http://api.example/"'}, "in the clear"),
        ({"upstream": '"api.example"'}, "expected a URL"),
        ({"upstream": '"https://user:pw@api.example/"'}, "expected a URL"),
        ({"upstream": '"https://api.example/?key=1"'}, "expected a URL"),
        ({"upstream": '"https://api.example:0/"'}, "expected a URL"),
        ({"upstream": '"https://[::1/"'}, "expected a URL"),
        ({"upstream": '"https://api.example/a b"'}, "expected a URL"),
        ({"methods": '["CONNECT"]'}, "never forwarded"),
        ({"methods": '["TRACE"]'}, "never forwarded"),
        ({"methods": '["get"]'}, "methods such as GET"),
        ({"methods": "[]"}, "leave the key out"),
        ({"paths": '["v2/*"]'}, "paths that begin with a slash"),
        ({"paths": "[]"}, "leave the key out"),
        ({"timeout": "0"}, "seconds"),
        ({"time_out": "1"}, "unknown key"),
        ({"ca_file": '"ca.pem"'}, "the absolute path of a file that exists"),
        ({"ca_file": '"/not/there.pem"'}, "the absolute path of a file that exists"),
        ({"key_file": '"/etc/passwd"'}, "key_file needs cert_file"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, keys: dict[str, str | None], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text(**keys))
    assert words in str(error.value)


def test_every_mistake_of_a_table_is_named(tmp_path: Path) -> None:
    wrong = text(
        grant='""',
        upstream="7",
        listen='"0.0.0.0:1"',
        caller="{ usr = 'x' }",
        methods='["get"]',
        paths="[]",
        timeout="0",
        ca_file='"x"',
        time_out="1",
    )
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, wrong, "[proxies.b]\n", "[metadata.c]\nkind = 'gce'\nlisten = 7\ncaller = {}\nemail = 'a/b'\n")
    keys = [each.key.split(".", 2)[1:] for each in (caught.value, *caught.value.others)]
    assert sorted(key for name, key in keys if name == "ix") == [
        *("ca_file", "caller.usr", "grant", "listen", "methods", "paths", "time_out", "timeout", "upstream")
    ]
    assert sorted(key for name, key in keys if name == "b") == ["caller", "grant", "socket", "upstream"]
    assert sorted(key for name, key in keys if name == "c") == ["caller", "email", "grant", "listen"]


def test_a_misspelt_key_is_one_mistake_not_two(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text(grant=None, grand='"x"'))
    assert (caught.value.key, caught.value.others) == ("proxies.ix.grand", ())


def test_a_place_belongs_to_one_proxy_and_something_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is the place of a too"):
        load(tmp_path, text("a"), text("b"))
    with pytest.raises(ConfigError, match=r"expected \[proxies.NAME\] tables"):
        load(tmp_path, "")
    with pytest.raises(ConfigError, match="unknown table"):
        load(tmp_path, text(), "[proxy.ix]\ngrant = 'ix'")


def test_plain_http_is_for_this_machine_unless_somebody_says_so(tmp_path: Path) -> None:
    loopback = text("a", upstream='"http://127.0.0.1:9000"')
    assert (
        len(
            load(
                tmp_path,
                loopback,
                text("b", upstream='"http://api.example"', insecure_http="true", listen='"127.0.0.1:1"'),
            )
        )
        == 2
    )
