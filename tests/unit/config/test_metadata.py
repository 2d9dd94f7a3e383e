# The [metadata.NAME] tables: defaults, and what is wrong is named.
from __future__ import annotations

from pathlib import Path

import pytest

from brokerd.config.metadata import EndpointSettings, read_endpoint
from brokerd.config.proxies import read
from brokerd.config.proxy_places import ProxyPlace
from brokerd.core.access.policy import Selector
from brokerd.core.validation import ConfigError

BASE = {"kind": "aws-imds", "grant": "aws", "listen": "127.0.0.1:9901", "caller": {"user": "portal"}}
OF_KIND = {
    "aws-container": {},
    "aws-imds": {},
    "gce": {"email": "app@project.example"},
    "azure": {"resource": "https://graph.example"},
}


def endpoint(**keys: object) -> EndpointSettings:
    return read_endpoint("one", {key: value for key, value in {**BASE, **keys}.items() if value is not None})


@pytest.mark.parametrize("kind", OF_KIND)
def test_each_kind_needs_little(kind: str) -> None:
    found = endpoint(kind=kind, **OF_KIND[kind])
    assert (found.kind, found.source.grant, found.callers) == (kind, "aws", (Selector(user="portal"),))
    assert found.place == ProxyPlace(host="127.0.0.1", port=9901)
    assert found.word_file is None


def test_the_file_with_the_word_is_named() -> None:
    assert endpoint(kind="aws-container", authorization_file="/run/word").word_file == Path("/run/word")
    found = endpoint(kind="azure", header_file="/run/word", **OF_KIND["azure"])
    assert found.word_file == Path("/run/word")
    assert found.values == {"resource": "https://graph.example"}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"kind": "aws"}, 'expected one of aws-container, aws-imds, gce, azure, found "aws"'),
        ({"kind": "gce"}, "an endpoint of the kind gce needs this key"),
        ({"kind": "azure"}, "an endpoint of the kind azure needs this key"),
        ({"kind": "gce", "email": "a@b", "region": "x"}, "belongs to aws-imds, not to gce; remove it"),
        ({"grant": ""}, "the name of a grant"),
        ({"role": "a/b"}, "a name without slashes"),
        ({"kind": "aws-container", "authorization_file": "word"}, "an absolute path"),
        ({"listen": "0.0.0.0:80"}, "a loopback address and a port"),
        ({"caller": {"unit": "a.service"}}, "at a TCP port only user and uid are known"),
        ({"socket": "/run/x"}, "unknown key"),
    ],
)
def test_what_is_wrong_is_named(keys: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        endpoint(**keys)
    assert words in str(error.value)


def test_a_place_belongs_to_one_proxy_or_endpoint(tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text(
        """
        [proxies.api]
        grant = "aws"
        upstream = "https://api.example"
        listen = "127.0.0.1:9901"
        caller = { uid = 0 }
        [metadata.one]
        kind = "aws-imds"
        grant = "aws"
        listen = "127.0.0.1:9901"
        caller = { uid = 0 }
        """
    )
    found, (error,) = read(file)
    assert [each.name for each in found] == ["api"]
    assert (error.key, str(error.message)) == ("metadata.one.listen", "is the place of api too; name another")
