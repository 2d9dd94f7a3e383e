# What a person is asked for by add, or has said on the command line. Questions only at a terminal; a secret is typed
# unseen or comes from a file, for a command line is read by everybody on the machine.
from __future__ import annotations

import sys

from brokerd.ctl.terminal import Failed, plain

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace

    from brokerd.core.secret import Secret

LONGEST = 64 * 1024  # bytes of a secret, as the daemon has it


class Answers:
    def __init__(self, arguments: Namespace) -> None:
        """Raises Failed."""
        from brokerd.config.grants import PUBLIC

        self._public = PUBLIC
        self._asks = sys.stdin is not None and sys.stdin.isatty()
        self._said = dict(_pairs("--credential", arguments.credential))
        if arguments.client_id is not None:
            if not arguments.client_id:
                raise Failed("expected --client-id ID; found an empty one")
            self._said["client_id"] = arguments.client_id
        self._has_secret = arguments.client_id is None  # --client-id names a public client
        self._files = dict(_pairs("--credential-file", arguments.credential_file))
        for name in self._said:
            if not self._said[name]:
                raise Failed(f"expected --credential {plain(name)}=ID; found nothing behind the =")
            if name not in PUBLIC:
                words = "is a secret, and everybody sees a command line; type it when asked, or"
                raise Failed(f"{plain(name)} {words}: --credential-file {plain(name)}=FILE")

    @property
    def asks(self) -> bool:
        """Whether somebody can be asked."""
        return self._asks

    def refuse_others(self, known: tuple[str, ...], whose: str) -> None:
        """Credentials of the command line that are not known. Raises Failed."""
        for name in sorted({*self._said, *self._files} - set(known)):
            words = ", ".join(known) or "none"
            raise Failed(f"{plain(name)} is no credential of {plain(whose)}; it has: {words}")

    def text(self, question: str, said: str | None = None) -> str | None:
        """What was said, else what is typed; None for nothing."""
        if said is not None or not self._asks:
            return said
        print(f"{question}: ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip() or None

    def credentials(self, names: tuple[str, ...]) -> tuple[dict[str, str], dict[str, Secret]]:
        """Those that say who, and those that are secret. Raises Failed."""
        from brokerd.core.secret import Secret

        texts, secrets = {}, {}
        for name in names:
            if name in self._files:
                secrets[name] = Secret(_read(self._files[name]))
            elif name in self._public:
                if (text := self.text(f"{name} (empty: none)", self._said.get(name))) is not None:
                    texts[name] = text
            elif self._asks and self._has_secret and (typed := _unseen(f"{name} (not shown; empty: none): ")):
                secrets[name] = Secret(typed)
        return texts, secrets


def _pairs(option: str, words: list[str]) -> list[tuple[str, str]]:
    found = [word.partition("=") for word in words]
    if any(not equals for _, equals, _ in found):
        raise Failed(f"expected {option} NAME=…")
    return [(name, value) for name, _, value in found]


def _unseen(prompt: str) -> str:
    from getpass import getpass

    try:
        return getpass(prompt)
    except EOFError:
        return ""


def _read(name: str) -> str:
    from pathlib import Path

    try:
        with Path(name).open("rb") as file:
            data = file.read(LONGEST + 1)
        text = data.decode().removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"{plain(name)} cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    if not text or len(data) > LONGEST:
        raise Failed(f"{plain(name)}: expected a secret of 1 to {LONGEST} bytes")
    return text
