# Reads secrets in threads of their own: a disk or a command that hangs delays nobody else (law 13).
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import trio

from brokerd.broker.exchanges import SecretsUnreadable
from brokerd.config.settings import GrantSettings
from brokerd.core.secret import Secret, SecretSource
from brokerd.edge.files.secret_sources import SecretUnreadable, read_secret
from brokerd.edge.system.thread_limit import ThreadLimit

T = TypeVar("T")
_secrets = ThreadLimit(8)
LOOK_LONGEST = 5.0  # seconds for a look at all secret files


async def in_secrets_thread(work: Callable[[], T]) -> T:
    return await _secrets.run(work, abandon=False)


async def read_secrets(sources: Mapping[str, SecretSource]) -> dict[str, Secret]:
    """The credentials of a grant. Raises SecretsUnreadable."""

    def read() -> dict[str, Secret]:
        found = {}
        for name, source in sources.items():
            try:
                found[name] = read_secret(source)
            except SecretUnreadable as error:
                raise SecretsUnreadable(str(error), in_file=source.file is not None) from None
        return found

    return await _secrets.run(read)


async def read_files(settings: GrantSettings) -> dict[str, Secret] | None:
    """Those credentials of a grant that are in files. None: one of them cannot be read."""

    def read() -> dict[str, Secret]:
        return {name: read_secret(each) for name, each in settings.credentials.items() if each.file is not None}

    try:
        return await _secrets.run(read)
    except SecretUnreadable:
        return None


async def unreadable_files(grants: Iterable[GrantSettings]) -> dict[str, str]:
    """Of each grant with a secret file that cannot be read: why. A disk that does not answer is not waited for."""
    found: dict[str, str] = {}

    def read() -> None:
        for grant in grants:
            for name, source in grant.sources:
                if source.file is not None and grant.name not in found:
                    try:
                        read_secret(source)
                    except SecretUnreadable as error:
                        found[grant.name] = f"{name}: {error}"

    with trio.move_on_after(LOOK_LONGEST):
        await _secrets.run(read)
    return dict(found)


async def files_are_readable(settings: GrantSettings) -> bool:
    """Whether all of the grant's secret files can be read."""

    def read() -> None:
        for _, source in settings.sources:
            if source.file is not None:
                read_secret(source)

    try:
        await _secrets.run(read)
    except SecretUnreadable:
        return False
    return True
