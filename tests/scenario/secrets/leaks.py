# The real daemon with leaks: secrets get out of it in all the places that are searched. The product knows nothing of
# this.
from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from brokerd.broker.key_management import KeyManager
from brokerd.broker.provider import Provider
from brokerd.core import sealing
from brokerd.core.audit import chain
from brokerd.core.errors import Code, Failure
from brokerd.core.exchange import redaction
from brokerd.daemon import main as daemon
from brokerd.edge.files import secret_sources
from brokerd.edge.system import environment, hardening
from brokerd.telemetry.event_log import EventLog


def a_token_in_the_log() -> None:
    fetched = EventLog.fetched

    def fetched_(self, grant, caller, token, *rest):  # type: ignore[no-untyped-def]
        self._log.debug("served", value=token.value.reveal()[4:])
        fetched(self, grant, caller, token, *rest)

    EventLog.fetched = fetched_  # type: ignore[method-assign]


def a_token_in_the_audit_log() -> None:
    chain.mark.__code__ = (lambda token, key: token).__code__


def words_of_a_provider_as_they_came() -> None:
    redaction.reason.__code__ = (lambda text, secrets=(): text).__code__


def records_that_are_not_sealed() -> None:
    class Plain:
        def __init__(self, key: bytes) -> None: ...

        def encrypt(self, _nonce: bytes, plain: bytes, _bound: bytes) -> bytes:
            return plain

        def decrypt(self, _nonce: bytes, sealed: bytes, _bound: bytes) -> bytes:
            return sealed

    sealing.AESGCM = Plain  # type: ignore[assignment, misc]


def an_environment_that_is_not_overwritten() -> None:
    environment._overwrite = lambda name: None


def a_command_that_is_told_a_secret() -> None:
    run = secret_sources._run
    secret_sources._run = lambda command: run((*command, os.environ["TEST_ONLY_HANDED_DOWN"]))


def an_error_that_quotes_what_came() -> None:
    async def rotate_(_self, passphrase, *, full):  # type: ignore[no-untyped-def]
        raise Failure(Code.BAD_REQUEST, f"expected another passphrase than {passphrase.reveal()}")

    KeyManager.rotate = rotate_  # type: ignore[method-assign]


def a_file_that_is_left_behind() -> None:
    send = Provider._send

    left = Path(os.environ["TMPDIR"], "last-request")

    async def send_(self, request, *rest):  # type: ignore[no-untyped-def]
        left.write_bytes(request.body)  # noqa: ASYNC240
        return await send(self, request, *rest)

    Provider._send = send_  # type: ignore[method-assign]


def a_core() -> None:
    hardening.harden = lambda: None


LEAKS: tuple[Callable[[], None], ...] = tuple(
    each for each in list(globals().values()) if callable(each) and getattr(each, "__module__", "") == __name__
)


def main() -> None:
    for leak in LEAKS:
        leak()
    daemon.main()


if __name__ == "__main__":
    main()
