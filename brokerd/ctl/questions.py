# What `brokerctl add` asks a person, unless the command line says it. It asks at a terminal only. A secret is typed
# without being shown, or read from a file: everybody on the machine can read a command line.
from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from brokerd.config.grants import PUBLIC
from brokerd.core.secret import Secret
from brokerd.ctl.terminal import Failed, at_terminal, plain, type_unseen

LONGEST = 256 * 1024 + 2  # bytes of a secret and a line break; the daemon has the same limit


class Answers:
    def __init__(self, arguments: Namespace) -> None:
        """Raises Failed."""
        self.asks = at_terminal()  # whether somebody can be asked
        self._said = dict(_pairs("--credential", arguments.credential))
        if arguments.client_id is not None:
            if not arguments.client_id:
                raise Failed("expected --client-id ID; found an empty one")
            self._said["client_id"] = arguments.client_id
        self._has_secret = arguments.client_id is None  # --client-id means a public client
        self._files = dict(_pairs("--credential-file", arguments.credential_file))
        for name in self._said:
            if not self._said[name]:
                raise Failed(f"expected --credential {plain(name)}=ID; found nothing after the =")
            if name not in PUBLIC:
                words = "is a secret, and everybody can read a command line; type it when asked, or use"
                raise Failed(f"{plain(name)} {words} --credential-file {plain(name)}=FILE")

    def refuse_others(self, known: tuple[str, ...], whose: str) -> None:
        """Raises Failed if the command line names a credential that is not `known`."""
        for name in sorted({*self._said, *self._files} - set(known)):
            words = ", ".join(known) or "none"
            raise Failed(f"{plain(whose)} has no credential {plain(name)}; it has: {words}")

    @property
    def given(self) -> tuple[str, ...]:
        """The credentials that the command line names."""
        return (*self._said, *self._files)

    def text(self, question: str, said: str | None = None) -> str | None:
        """What the command line said, else what the person types. None: nothing."""
        if said is not None or not self.asks:
            return said
        print(f"{question}: ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip() or None

    def credentials(self, names: tuple[str, ...]) -> tuple[dict[str, str], dict[str, Secret]]:
        """The credentials that are no secret, and those that are. Raises Failed."""
        texts, secrets = {}, {}
        for name in names:
            if name in self._files:
                secrets[name] = Secret(_read(self._files[name]))
            elif name in PUBLIC:
                if (text := self.text(f"{name} (empty: none)", self._said.get(name))) is not None:
                    texts[name] = text
            elif self.asks and self._has_secret and (typed := type_unseen(f"{name} (not shown; empty: none): ")):
                secrets[name] = Secret(typed)
        return texts, secrets


def _pairs(option: str, words: list[str]) -> list[tuple[str, str]]:
    found = [word.partition("=") for word in words]
    if any(not equals for _, equals, _ in found):
        raise Failed(f"expected {option} NAME=…")
    return [(name, value) for name, _, value in found]


def _read(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            data = file.read(LONGEST + 1)
        text = data.decode().removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"{plain(name)} cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    if not text or len(data) > LONGEST:
        raise Failed(f"{plain(name)}: expected a secret of 1 to {LONGEST} bytes")
    return text
