# What the tests of the HTTP client share: a clock that counts, short ways to make requests, clients and certificates.
from __future__ import annotations

import contextlib
import datetime
import ssl
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from brokerd.core.exchange.steps import Request
from brokerd.core.ports import TransportError
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from brokerd.edge.http.client import HttpClient, HttpSettings
from brokerd.edge.http.dial import Lookup, system_lookup

SECRET = "hunter2-" + "x" * 20
CA = trustme.CA()


class StepClock:
    """Each reading is a millisecond after the last; `advance` moves both clocks."""

    def __init__(self) -> None:
        self._now = Moment(1_800_000_000.0, 1_000.0, "boot")

    def now(self) -> Moment:
        self.advance(0.001)
        return self._now

    def advance(self, seconds: float) -> None:
        self._now = self._now.after(seconds)


@contextlib.asynccontextmanager
async def client(
    *,
    clock: StepClock | None = None,
    environ: Mapping[str, str] | None = None,
    lookup: Lookup = system_lookup,
    within: float = 20,
    **settings: Any,
) -> AsyncGenerator[HttpClient, None]:
    """A client that the environment of whoever runs the tests cannot reach; a test that uses it ends in time."""
    made = HttpClient(HttpSettings(**settings), clock or StepClock(), environ=environ or {}, lookup=lookup)
    with trio.fail_after(within):
        try:
            yield made
        finally:
            await made.aclose()


def get(url: str, **more: Any) -> Request:
    return Request("GET", url, **more)


def post(url: str, body: bytes = b"a=b", **more: Any) -> Request:
    return Request("POST", url, body=body, **more)


async def failure(made: HttpClient, request: Request) -> TransportError:
    """The TransportError that this request ends in; none of its text or context holds SECRET."""
    with pytest.raises(TransportError) as caught:
        await made.send(request)
    error = caught.value
    assert error.__context__ is None
    assert error.__cause__ is None
    assert SECRET not in error.reason
    assert "\n" not in error.reason
    assert str(error) == error.reason
    return error


def server_tls(*names: str, ca: trustme.CA = CA, expired: bool = False, early: bool = False) -> ssl.SSLContext:
    now = datetime.datetime.now(datetime.UTC)
    years = datetime.timedelta(days=730)
    certificate = ca.issue_cert(
        *names,
        not_before=now + years if early else now - 2 * years,
        not_after=now - years if expired else now + 2 * years,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def ca_file(directory: Path, ca: trustme.CA = CA) -> Path:
    path = directory / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path


def secret(text: str) -> Secret:
    return Secret(text)
