# The command add: from the URL of a protected resource, or of an issuer, to a provider and a grant in a drop-in file of
# the configuration, of which the daemon then learns. A failure leaves no file.
from __future__ import annotations

import time

from brokerd_client import Broker, BrokerError, NoDaemon

from brokerd.ctl.terminal import Failed, away, plain, write

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from brokerd.adding import Place
    from brokerd.dialects.oauth2.registration import Client
    from brokerd.edge.drop_in import Files
    from brokerd.edge.http import HttpClient

ANSWERS_WITHIN = 20.0  # seconds; somebody waits
UNDONE = "; the grant was not written"
UNREGISTERED = "the one that is registered"


def add(arguments: Namespace) -> int:
    """Ask, register, write, reload, and say what comes next."""
    from pathlib import Path

    import trio

    from brokerd.adding import CannotAdd, at_server, name_for
    from brokerd.config import load
    from brokerd.core.typed import ConfigError
    from brokerd.ctl import socket_of
    from brokerd.installing import in_use

    url = arguments.resource or arguments.issuer
    if url is None:
        raise Failed("expected --resource URL, or --issuer URL; see brokerctl add --help")
    main = Path(in_use(arguments.config)[0]).absolute()
    try:
        name = name_for(url, load(main), arguments.name)
        place, client = trio.run(_asked, arguments, main.parent, name)
    except (CannotAdd, ConfigError) as error:
        raise Failed(f"{plain(str(error))}{UNDONE}") from None
    texts = at_server(place, client, name, arguments.scope or (), ca_file(arguments)).files(main.parent)
    drop_in = list(texts)[-1]
    if arguments.dry_run:
        show(drop_in, texts[drop_in])
        return 0
    made = written(texts, main, registered(client))
    write(f"{plain(str(drop_in))}: written")
    if client.secret_ends is not None:
        write(f"the secret of its client expires {away(client.secret_ends - time.time())}")
    reload(socket_of(arguments), name, made, registered(client))
    if place.resource and place.resource.scopes and not arguments.scope:
        write(f"it names scopes, of which none is asked for: {plain(' '.join(place.resource.scopes))}")
    rule = f"a rule for who may have its tokens: see {plain(str(drop_in))}"
    if arguments.login:
        write(f"what remains is {rule}")
        return _log_in(socket_of(arguments), name)
    write(f"next: brokerctl login {name}, and {rule}")
    return 0


def _log_in(path: str | None, name: str) -> int:
    from brokerd.ctl.arguments import read_arguments
    from brokerd.ctl.login import login

    with Broker(path) as broker:
        return login(broker, read_arguments(["login", name]))


async def _asked(arguments: Namespace, folder: Path, name: str) -> tuple[Place, Client]:
    """Raises CannotAdd."""
    from brokerd.adding import by_hand, look, register

    async with http(arguments) as client:
        place = await look(client, arguments.resource, arguments.issuer)
        if arguments.client_id is not None:
            return place, by_hand(place, arguments.client_id)
        if arguments.dry_run:
            return place, by_hand(place, UNREGISTERED)
        check_free(folder, name, ("client_secret", "registration"))
        return place, await register(client, place, our_name(), arguments.scope or ())


# -- what init does in the same way


def http(arguments: Namespace) -> AbstractAsyncContextManager[HttpClient]:
    from contextlib import aclosing
    from pathlib import Path

    from brokerd.edge.clock import SystemClock
    from brokerd.edge.http import HttpClient, HttpSettings

    trusted = ca_file(arguments)
    settings = HttpSettings(ca_file=Path(trusted) if trusted else None, total_timeout=ANSWERS_WITHIN)
    return aclosing(HttpClient(settings, SystemClock()))


def our_name() -> str:
    """As a server's people see it among their clients."""
    import socket

    return f"brokerd on {socket.gethostname()}"


def show(drop_in: Path, text: str) -> None:
    write(f"{plain(str(drop_in))} would be:\n\n{text}")


def check_free(folder: Path, name: str, secrets: Iterable[str]) -> None:
    """Before anything is asked of anybody: what would be written must not be there. Raises CannotAdd."""
    from brokerd.adding import CannotAdd, drop_in, secret_files

    for path in (drop_in(folder, name), *secret_files(folder, name, secrets).values()):
        if path.exists():
            raise CannotAdd(f"{path} is there already and was left as it is; choose another name: --name NAME")


def written(texts: Mapping[Path, str], main: Path, left: str) -> Files:
    """The files, which the whole configuration is right with. `left`: what stays where they are not."""
    from brokerd.config import load
    from brokerd.core.typed import ConfigError
    from brokerd.edge.drop_in import Files

    made = Files()
    try:
        made.create(texts, main, private=frozenset(list(texts)[:-1]))
        load(main)
    except OSError as error:
        raise Failed(f"{error.filename or main.parent}: {error.strerror}{UNDONE}{left}") from None
    except ConfigError as error:
        made.undo()
        raise Failed(f"{plain(str(error))}{UNDONE}{left}") from None
    return made


def reload(path: str | None, name: str, made: Files, left: str) -> None:
    """Let the daemon know, if there is one. One that does not take it undoes it."""
    try:
        with Broker(path) as broker:
            added = broker.call("reload")["added"]
    except NoDaemon:
        write("brokerd does not run; it reads this when it starts")
    except BrokerError as error:
        if error.code == "misconfigured":
            made.undo()
            raise Failed(f"{plain(error.message)}{UNDONE}{left}") from None
        write(f"brokerd does not know of it yet ({plain(error.message)}): brokerctl reload")
    else:
        known = (
            "brokerd knows of it" if name in added else "brokerd reads another configuration; name that with --config"
        )
        write(known)


def registered(client: Client) -> str:
    return f" (the client {plain(client.id)} stays registered at the server)"


def ca_file(arguments: Namespace) -> str | None:
    from pathlib import Path

    return str(Path(arguments.ca_file).absolute()) if arguments.ca_file else None
