# Configuration files: any bytes load or are refused in words that name the file and show no secret (laws 11, 14); and
# what loads can be started. Text up to a line "#### conf.d/more.toml" or "#### recipes/mine.toml", which begins a file.
from __future__ import annotations

import math
import re
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from brokerd.config.load import load
from brokerd.config.settings import Configuration
from brokerd.core.exchange.steps import Request
from brokerd.core.ports import TransportError
from brokerd.core.secret import Secret
from brokerd.core.validation import ConfigError
from brokerd.dialects.dialect import GrantView
from brokerd.edge.http.connection import split_url
from tests.stress.fuzz.shown_text import fit_for_people

FILE = re.compile(rb"^#### ((?:conf\.d|recipes)/[a-z0-9-]{1,20}\.toml)\n", re.MULTILINE)
SOURCES = frozenset({"file", "credential", "env", "command"})  # keys whose values say where a secret is
SHORTEST = 8  # characters of a secret that is looked for
MODES = {b"": 0o600, b"# exposed": 0o644}
FOLDER = tempfile.TemporaryDirectory(prefix="brokerd-fuzz-")


def check(data: bytes) -> None:
    main = Path(FOLDER.name) / "brokerd.toml"
    texts = write(main, data)
    try:
        configuration = load(main)
    except ConfigError as error:
        refused(str(error), texts)
    else:
        can_be_started(configuration)
    finally:
        for path in texts:
            path.unlink()


def refused(error: str, texts: dict[Path, bytes]) -> None:
    assert any(error.startswith(str(path)) for path in texts), f"which file? {error}"
    fit_for_people(error, 10 * sum(map(len, texts.values())) + 2_000)
    for secret in secrets_of(texts.values()):
        assert secret not in error, "the error shows a secret"


def write(main: Path, data: bytes) -> dict[Path, bytes]:
    """The files that an input holds; the first line may say that everybody can read them."""
    first, *others = FILE.split(data)
    texts = {main: first} | {
        main.parent / name.decode(): text for name, text in zip(others[::2], others[1::2], strict=True)
    }
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text)
        path.chmod(MODES.get(data.partition(b"\n")[0], 0o600))
    return texts


def secrets_of(texts: Iterable[bytes]) -> list[str]:
    """Text that stands where a secret belongs, and nowhere else."""
    joined, found = b"\n".join(texts), list[str]()
    for text in texts:
        try:
            raw = tomllib.loads(text.decode())
        except (ValueError, RecursionError):
            continue
        grants = raw.get("grants")
        for grant in grants.values() if isinstance(grants, dict) else ():
            if isinstance(grant, dict):
                found += _texts(grant.get("credentials"))
    return [each for each in found if len(each) >= SHORTEST and joined.count(each.encode()) == 1]


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for each in value:
                yield from _texts(each)
        case dict():
            for key, each in value.items():
                if key not in SOURCES:
                    yield from _texts(each)


def can_be_started(configuration: Configuration) -> None:
    for provider in configuration.providers.values():
        finite(provider.reuse_grace, f"{provider.name}.reuse_grace")
        assert provider.concurrency >= 1
    for grant in configuration.grants.values():
        finite(grant.pace.lifetime, f"{grant.name}.lifetime")
        assert isinstance(grant.requested, str)
        dialect = grant.provider.dialect
        seen = GrantView(dict.fromkeys(grant.credentials, Secret("test-only-secret")), grant.settings)
        dialect.identity(seen)
        if dialect.ability(seen).issue:
            sendable(next(dialect.issue(seen)))
    for rule in configuration.rules:
        assert rule.grants
        assert rule.callers
    assert 0 <= configuration.daemon.socket_mode <= 0o777


def sendable(request: object) -> None:
    assert isinstance(request, Request)
    try:
        split_url(request.url)
    except TransportError as error:
        raise AssertionError(f"a URL that loads cannot be asked: {error}") from None


def finite(seconds: float, name: str) -> None:
    assert 0 <= seconds < math.inf, f"{name} is {seconds}"
    assert seconds <= LONGEST, f"{name} is {seconds}: arithmetic with dates would fail"


LONGEST = 1e10  # seconds
