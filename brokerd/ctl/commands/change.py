# The commands that change something: refresh, revoke, import, reload, forget, adopt, trust. Each says what it did.
from __future__ import annotations

import sys
import time
from argparse import Namespace

from brokerd_client import Broker
from brokerd_client.address import manager
from brokerd_client.errors import from_map
from brokerd_client.request import WAIT

from brokerd.ctl.terminal import Failed, ask, at_terminal, away, complain, decoded, plain, type_unseen, write

LONGEST_TOKEN = 256 * 1024  # bytes
PART = 15_000  # characters of a refresh token that a request has room for, however they are encoded
NOT_DURABLE = 4


def refresh(broker: Broker, arguments: Namespace) -> int:
    """Renew now."""
    done = broker.call("refresh", grant=arguments.grant)
    expires_at = done["expires_at"]
    expiry = "its expiry is not known" if expires_at is None else f"its token expires {away(expires_at - time.time())}"
    write(f"{arguments.grant}: refreshed; {expiry}")
    return 0


def revoke(broker: Broker, arguments: Namespace) -> int:
    """End the grant, after asking the person at the terminal."""
    grant = arguments.grant
    if not arguments.yes:
        if not at_terminal():
            raise Failed(f"revoking {plain(grant)} cannot be undone, and there is no terminal to ask at; add --yes")
        unrevoked = " The provider is not told, so its tokens stay valid there." if arguments.forget_only else ""
        if not ask(f"Revoke {plain(grant)}? It then has no tokens until a new login or import.{unrevoked}"):
            raise Failed(f"{plain(grant)} was not revoked")
    done = broker.call("revoke", grant=grant, **({"local": True} if arguments.forget_only else {}))
    write(f"{grant}: revoked; {'stored' if done['stored'] else 'NOT STORED'}; {plain(done['detail'])}")
    if not done["stored"]:
        words = "the revocation could not be stored; fix the store, then revoke again"
        raise Failed(f"{plain(grant)}: {words}", NOT_DURABLE)
    return 0


def import_token(broker: Broker, arguments: Namespace) -> int:
    """Give the grant a refresh token from stdin."""
    from brokerd.core.secret import doubts

    token = read_secret(arguments.grant, "refresh token")
    if (words := doubts(token, token=True)) is not None:
        complain(f"the refresh token has {words}, and was sent as it is; if that is wrong, import it again without")
    *parts, last = (token[start : start + PART] for start in range(0, len(token), PART))
    requests = [("import_part", {"grant": arguments.grant, "part": part}) for part in parts]
    request = {"grant": arguments.grant, "refresh_token": last, "wait": WAIT}
    *_, done = broker.call_on_one([*requests, ("import", request)])
    if not done["accepted"]:
        complain(f"{arguments.grant}: the refresh token was imported and stored; its provider has not accepted it")
        raise from_map(done["error"])
    write(f"{arguments.grant}: the refresh token was imported, and its provider has accepted it")
    return 0


TABLES = {"rules": "[[allow]]", "on_event": "[[on_event]]"}  # those that are not [name]


def reload(broker: Broker, _arguments: Namespace) -> int:
    """Read the configuration again."""
    from brokerd.edge.systemd import service_manager

    done = broker.call("reload")
    lines = [f"{what}: {plain(', '.join(done[what]))}" for what in ("changed", "added", "removed") if done[what]]
    tables, later = ([TABLES.get(each, f"[{each}]") for each in done.get(when, ())] for when in ("tables", "later"))
    if tables:
        lines.append(f"also changed: {plain(', '.join(tables))}")
    if done.get("restart"):
        verb = "have changed, which take" if len(later) > 1 else "has changed, which takes"
        restart = f"{manager(broker.path)} restart brokerd" if service_manager.is_running() else "restart brokerd"
        lines.append(
            f"{plain(' and '.join(later) or '[daemon]')} {verb} effect at the next start; to start again: {restart}"
        )
    for line in lines or ["the configuration has not changed; secrets are read again"]:
        write(line)
    for each in done.get("unreadable", ()):
        reason, _, to_fix = each["reason"].partition("; ")
        complain(plain(f"warning: {each['grant']}: {reason}; {each['then']}{f'; to fix: {to_fix}' if to_fix else ''}"))
    return 0


def forget(broker: Broker, arguments: Namespace) -> int:
    """Delete what is stored of a grant."""
    number = broker.call("forget", grant=arguments.grant)["forgotten"]
    write(f"{arguments.grant}: {number} stored record{'' if number == 1 else 's'} deleted")
    return 0


def adopt(broker: Broker, _arguments: Namespace) -> int:
    """Allow a copied store to be used here."""
    adopted = broker.call("adopt")["adopted"]
    write("the store now belongs to this machine" if adopted else "nothing to adopt: the store belongs to this machine")
    return 0


def trust(broker: Broker, arguments: Namespace) -> int:
    """Accept the endpoints in a provider's metadata."""
    done = broker.call("trust", provider=arguments.provider)
    again = f"; these grants are tried again: {plain(', '.join(done['grants']))}" if done["grants"] else ""
    write(f"{arguments.provider}: brokerd reads the metadata again, and trusts the endpoints in it{again}")
    return 0


def read_secret(grant: str, what: str) -> str:
    """A token from stdin, without the line break at its end. It is never shown, not even in errors."""
    if sys.stdin is None:
        raise Failed(f"expected a {what} on stdin, which is closed")
    if at_terminal():
        text = type_unseen(f"{what.capitalize()} of {plain(grant)} (not shown): ")
    else:
        text = decoded(sys.stdin.buffer.read(LONGEST_TOKEN + 2), f"a {what}")
    if not text:
        raise Failed(f"expected a {what} on stdin, found nothing")
    if len(text.encode()) > LONGEST_TOKEN:
        raise Failed(f"expected a {what} of at most {LONGEST_TOKEN} bytes on stdin")
    return text
