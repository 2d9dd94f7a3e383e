"""The fixtures of the real servers. Where one cannot run, its tests are skipped and the end of the run says so loudly;
with BROKERD_REQUIRE_REAL=1 they fail. A server that can run and does not is a failure always.

`real_oidc` and `real_simplejwt` are one server for the whole run (access tokens live 60 s, refresh tokens an hour);
`start_oidc` and `start_simplejwt` start another, with the arguments of oidc_provider() and simplejwt(), for one test.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.did_not_run import did_not_run
from tests.real.servers import OidcProvider, Server, SimpleJwt, UnavailableError, oidc_provider, simplejwt

S = TypeVar("S", bound=Server)


@pytest.fixture(scope="session")
def real_oidc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcProvider]:
    with contextlib.ExitStack() as servers:
        yield _run(servers, oidc_provider(tmp_path_factory.mktemp("oidc-provider")))


@pytest.fixture(scope="session")
def real_simplejwt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleJwt]:
    with contextlib.ExitStack() as servers:
        yield _run(servers, simplejwt(tmp_path_factory.mktemp("simplejwt")))


@pytest.fixture
def start_oidc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., OidcProvider]]:
    """start_oidc(folder=None, **arguments of oidc_provider) -> OidcProvider, which ends with the test."""
    with contextlib.ExitStack() as servers:

        def start(folder: Path | None = None, **arguments: Any) -> OidcProvider:
            folder = folder or tmp_path_factory.mktemp("oidc-provider")
            return _run(servers, oidc_provider(folder, **arguments))

        yield start


@pytest.fixture
def start_simplejwt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., SimpleJwt]]:
    """start_simplejwt(folder=None, **arguments of simplejwt) -> SimpleJwt, which ends with the test."""
    with contextlib.ExitStack() as servers:

        def start(folder: Path | None = None, **arguments: Any) -> SimpleJwt:
            folder = folder or tmp_path_factory.mktemp("simplejwt")
            return _run(servers, simplejwt(folder, **arguments))

        yield start


def _run(servers: contextlib.ExitStack, server: AbstractContextManager[S]) -> S:
    try:
        return servers.enter_context(server)
    except UnavailableError as error:
        did_not_run("REAL SERVERS", str(error), required=os.environ.get("BROKERD_REQUIRE_REAL") == "1")
