# The commands that change something: refresh, revoke, import, reload, forget, adopt, trust. Each says what happened.
from __future__ import annotations

import sys
import time

from brokerd.ctl.terminal import Failed, ask, away, complain, plain, write

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace

    from brokerd_client import Broker

LONGEST = 60_000  # bytes of a refresh token: what a message holds
LONGEST_TOKEN = 256 * 1024  # bytes of an access token
NOT_DURABLE = 4


def refresh(broker: Broker, arguments: Namespace) -> int:
    """Renew now."""
    done = broker.call("refresh", grant=arguments.grant)
    expires_at = done["expires_at"]
    expiry = "no expiry is known" if expires_at is None else f"its token expires {away(expires_at - time.time())}"
    write(f"{arguments.grant}: refreshed; {expiry}")
    return 0


def revoke(broker: Broker, arguments: Namespace) -> int:
    """End the grant, when the person at the terminal is sure."""
    grant = arguments.grant
    if not arguments.yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise Failed(f"revoking {plain(grant)} cannot be undone and nobody can be asked here; add --yes")
        untold = " Its provider is not told: its tokens live on there." if arguments.forget_only else ""
        if not ask(f"Revoke {plain(grant)}? It serves nothing more until a new refresh token is imported.{untold}"):
            raise Failed(f"{plain(grant)} was not revoked")
    done = broker.call("revoke", grant=grant, **({"local": True} if arguments.forget_only else {}))
    write(f"{grant}: revoked; {'stored' if done['stored'] else 'NOT STORED'}; {plain(done['detail'])}")
    if not done["stored"]:
        raise Failed(f"{plain(grant)}: the revocation is not durable; mend the store and repeat it", NOT_DURABLE)
    return 0


def import_token(broker: Broker, arguments: Namespace) -> int:
    """Give the grant a refresh token from stdin."""
    from brokerd.core.secret import doubts

    token = read_secret(arguments.grant, "refresh token")
    if (words := doubts(token, token=True)) is not None:
        complain(f"the refresh token has {words}, and is sent so; if that does not belong to it, import it without")
    broker.call("import", grant=arguments.grant, refresh_token=token)
    write(f"{arguments.grant}: the refresh token was imported; brokerd uses it from now on")
    return 0


def reload(broker: Broker, _arguments: Namespace) -> int:
    """Read the configuration again."""
    from brokerd_client.address import manager

    from brokerd.edge import service_manager

    done = broker.call("reload")
    lines = [f"{what}: {plain(', '.join(done[what]))}" for what in ("changed", "added", "removed") if done[what]]
    if done.get("restart"):
        restart = f"{manager(broker.path)} restart brokerd" if service_manager.is_running() else "restart brokerd"
        lines.append(f"[daemon] has changed: that counts from the next start on; to use it now: {restart}")
    for line in lines or ["nothing has changed"]:
        write(line)
    return 0


def forget(broker: Broker, arguments: Namespace) -> int:
    """Delete what is stored of a grant."""
    number = broker.call("forget", grant=arguments.grant)["forgotten"]
    write(f"{arguments.grant}: {number} stored record{'' if number == 1 else 's'} forgotten")
    return 0


def adopt(broker: Broker, _arguments: Namespace) -> int:
    """Let a copied store be used here."""
    adopted = broker.call("adopt")["adopted"]
    write("the store is this machine's now" if adopted else "there was nothing to adopt: the store is this machine's")
    return 0


def trust(broker: Broker, arguments: Namespace) -> int:
    """Agree to what a provider's metadata names."""
    done = broker.call("trust", provider=arguments.provider)
    again = f"; tried again: {plain(', '.join(done['grants']))}" if done["grants"] else ""
    write(f"{arguments.provider}: its metadata is read anew, and what it names then is remembered{again}")
    return 0


def read_secret(grant: str, what: str, longest: int = LONGEST) -> str:
    """A token from stdin, without the line break at its end. It is never shown, also not in errors."""
    if sys.stdin is None:
        raise Failed(f"expected a {what} on stdin, which is closed")
    if sys.stdin.isatty():
        from getpass import getpass

        try:
            text = getpass(f"{what.capitalize()} of {plain(grant)} (not shown): ")
        except EOFError:
            text = ""
    else:
        data = sys.stdin.buffer.read(longest + 2)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise Failed(f"expected a {what} in UTF-8 on stdin, found other bytes") from None
        text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise Failed(f"expected a {what} on stdin, found nothing")
    if len(text.encode()) > longest:
        raise Failed(f"expected a {what} of at most {longest} bytes on stdin")
    return text
