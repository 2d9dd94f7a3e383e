# docker-credential-brokerd: the protocol of docker-credential-helpers, which docker, podman and skopeo speak: the
# address of a registry on stdin, JSON on stdout; after a failure, words on stdout and exit code 1.
from __future__ import annotations

import json

from brokerd_client.credentials.asking import (
    FAILED,
    USERNAME,
    NoCredential,
    NoToken,
    explain,
    question,
    run,
    token_of,
    use_for,
    write,
)
from brokerd_client.helpers import PORTS, Address, HelpersError, Use, address_of, read_uses

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = "docker-credential-brokerd"
NOT_FOUND = "credentials not found in native keychain"  # clients compare these words, and look elsewhere
REGISTRY = "/v2/"  # all of a registry's API is below it; a client names the host alone
HUB = "/v1/"  # docker calls Docker Hub https://index.docker.io/v1/


def registry(text: str) -> Address | None:
    """The address that a client means: HOST, HOST:PORT, or a URL."""
    found = address_of(text)
    return found._replace(path=REGISTRY) if found and found.path == "/" else found


def listed(uses: list[Use]) -> dict[str, str]:
    """The registries of helpers.toml as clients name them, each with its user."""
    found: dict[str, str] = {}
    for use in uses:
        host = f"[{use.host}]" if ":" in use.host else use.host
        name = host if use.port == PORTS["https"] else f"{host}:{use.port}"
        if use.scheme == "https" and use.path in ("/*", f"{REGISTRY}*", f"{HUB}*"):
            found.setdefault(f"https://{name}{HUB}" if use.path == f"{HUB}*" else name, use.username or USERNAME)
    return found


def get() -> int:
    name = _name()
    try:
        use = use_for(registry(name))
        token = token_of(use)
    except NoCredential as reason:
        explain(PROGRAM, str(reason))
        write(f"{NOT_FOUND}\n")
        return FAILED
    _write_json({"ServerURL": name, "Username": use.username or USERNAME, "Secret": token.value})
    return 0


def list_all() -> int:
    _write_json(listed(read_uses()))
    return 0


def store() -> int:
    """docker stores a credential again after it was used to log in. One that a person typed would be lost: refused."""
    try:
        asked = json.loads(question())
        use_for(registry(asked["ServerURL"]))
    except NoCredential:
        write("brokerd keeps no passwords; use another credential helper for this registry (credHelpers)\n")
        return FAILED
    except (ValueError, TypeError, KeyError):
        write('expected {"ServerURL": …, "Username": …, "Secret": …}\n')
        return FAILED
    return 0


def erase() -> int:
    question()
    return 0


def version() -> int:
    from brokerd_client import __version__

    write(f"{PROGRAM} (brokerd-client) {__version__}\n")
    return 0


def told(operation: Callable[[], int]) -> Callable[[], int]:
    """The operation with its errors on stdout, where clients of this protocol look for them. Some never show them, and
    what is on stderr reaches the terminal from there."""

    def work() -> int:
        try:
            return operation()
        except (NoCredential, NoToken, HelpersError) as reason:
            explain(PROGRAM, str(reason))
            write(f"{PROGRAM}: {' '.join(str(reason).split())}\n")
            return FAILED

    return work


def _name() -> str:
    try:
        return question().decode().strip()
    except UnicodeDecodeError:
        return ""  # no address


def _write_json(value: object) -> None:
    write(json.dumps(value) + "\n")


def main() -> int:
    """The console script."""
    operations = {"get": get, "list": list_all, "store": store, "erase": erase, "version": version}
    return run(PROGRAM, {name: told(each) for name, each in operations.items()}, "docker")
