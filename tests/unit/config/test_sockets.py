# [http] and [credentials]: one absolute path, in one file.
from __future__ import annotations

from pathlib import Path

import pytest

from brokerd.config.sockets import read_socket
from brokerd.core.validation import ConfigError

MAIN, MORE = Path("/etc/brokerd/brokerd.toml"), Path("/etc/brokerd/conf.d/more.toml")


def test_it_is_off_unless_it_is_said() -> None:
    assert read_socket("http", []).socket is None
    assert read_socket("http", [(MAIN, {})]).socket is None
    assert read_socket("http", [(MAIN, {"socket": "/run/brokerd/http.sock"})]).socket == "/run/brokerd/http.sock"


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ([(MAIN, {"socket": "http.sock"})], "http.socket: expected an absolute path"),
        ([(MAIN, {"socket": 5})], "http.socket: expected"),
        ([(MAIN, {"metrics": "localhost:9464"})], "http.metrics: expected an IP address and a port, such as"),
        ([(MAIN, {"metrics": "127.0.0.1"})], "http.metrics: expected an IP address and a port"),
        ([(MAIN, {"metrics": "127.0.0.1:65536"})], "http.metrics: expected an IP address and a port"),
        ([(MAIN, {"metrics": "127.0.0.1:+80"})], "http.metrics: expected an IP address and a port"),
        ([(MAIN, {"metrics": "::1:9464"})], "http.metrics: expected an IP address and a port"),
        ([(MAIN, {"metrics": "[127.0.0.1]:9464"})], "http.metrics: expected an IP address and a port"),
        ([(MAIN, {"metrics": 9464})], "http.metrics: expected"),
        ([(MAIN, {"port": 80})], "http.port: unknown"),
        ([(MAIN, {}), (MORE, {})], "stands in /etc/brokerd/brokerd.toml too; keep one of them"),
    ],
)
def test_a_mistake_is_told_with_its_key(tables: list[tuple[Path, object]], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_socket("http", tables)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "is_loopback"), [("127.0.0.1:9464", True), ("[::1]:9464", True), ("10.0.0.1:1", False)]
)
def test_metrics_have_an_address_and_a_port(text: str, is_loopback: bool) -> None:
    address = read_socket("http", [(MAIN, {"metrics": text})]).metrics
    assert address is not None
    assert (str(address), address.is_loopback) == (text, is_loopback)
    with pytest.raises(ConfigError, match="unknown"):
        read_socket("credentials", [(MAIN, {"metrics": text})])


def test_a_mistake_of_the_other_table_names_that_one() -> None:
    with pytest.raises(ConfigError) as caught:
        read_socket("credentials", [(MAIN, {"socket": "credentials.sock"})])
    assert str(caught.value).startswith(f"{MAIN}: credentials.socket: expected an absolute path")
