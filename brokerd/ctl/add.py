# The command add: from the URL of a protected resource, or of an issuer, to a provider and a grant in a drop-in file of
# the configuration, of which the daemon then learns. A failure leaves no file.
from __future__ import annotations

import time

from brokerd_client import Broker, BrokerError, NoDaemon

from brokerd.ctl.terminal import Failed, away, plain, write

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping
    from pathlib import Path

    from brokerd.adding import Place
    from brokerd.dialects.oauth2.registration import Client
    from brokerd.edge.drop_in import Files

ANSWERS_WITHIN = 20.0  # seconds; somebody waits
UNDONE = "; nothing was changed here"


def add(arguments: Namespace) -> int:
    """Ask, register, write, reload, and say what comes next."""
    from pathlib import Path

    import trio

    from brokerd.adding import CannotAdd, files, name_for
    from brokerd.config import load
    from brokerd.core.typed import ConfigError

    url = arguments.resource or arguments.issuer
    if url is None:
        raise Failed("expected --resource URL, or --issuer URL; see brokerctl add --help")
    main = Path(arguments.config).absolute()
    try:
        name = name_for(url, load(main), arguments.name)
        place, client = trio.run(_asked, arguments, main.parent, name)
    except (CannotAdd, ConfigError) as error:
        raise Failed(f"{plain(str(error))}{UNDONE}") from None
    texts = files(place, client, name, arguments.scope or (), main.parent, _ca_file(arguments))
    drop_in = list(texts)[-1]
    if arguments.dry_run:
        write(f"{plain(str(drop_in))} would be:\n\n{texts[drop_in]}")
        return 0
    made = _written(texts, main, client)
    write(f"{plain(str(drop_in))}: written")
    if client.secret_ends is not None:
        write(f"the secret of its client expires {away(client.secret_ends - time.time())}")
    _reload(arguments.socket, name, made, client)
    if place.resource and place.resource.scopes and not arguments.scope:
        write(f"it names scopes, of which none is asked for: {plain(' '.join(place.resource.scopes))}")
    rule = f"a rule for who may have its tokens: see {plain(str(drop_in))}"
    if arguments.login:
        write(f"what remains is {rule}")
        return _log_in(arguments.socket, name)
    write(f"next: brokerctl login {name}, and {rule}")
    return 0


def _log_in(path: str | None, name: str) -> int:
    from brokerd.ctl.arguments import read_arguments
    from brokerd.ctl.login import login

    with Broker(path) as broker:
        return login(broker, read_arguments(["login", name]))


async def _asked(arguments: Namespace, folder: Path, name: str) -> tuple[Place, Client]:
    """Raises CannotAdd."""
    import socket
    from pathlib import Path

    from brokerd.adding import by_hand, look, register
    from brokerd.edge.clock import SystemClock
    from brokerd.edge.http import HttpClient, HttpSettings

    trusted = _ca_file(arguments)
    settings = HttpSettings(ca_file=Path(trusted) if trusted else None, total_timeout=ANSWERS_WITHIN)
    http = HttpClient(settings, SystemClock())
    try:
        place = await look(http, arguments.resource, arguments.issuer)
        if arguments.client_id is not None:
            return place, by_hand(place, arguments.client_id)
        if arguments.dry_run:
            return place, by_hand(place, "the one that is registered")
        _check_free(folder, name)
        return place, await register(http, place, f"brokerd on {socket.gethostname()}", arguments.scope or ())
    finally:
        await http.aclose()


def _check_free(folder: Path, name: str) -> None:
    """Before a client is registered: what it would be written into must not be there."""
    from brokerd.adding import CannotAdd, secret_files

    for path in (folder / "conf.d" / f"{name}.toml", *secret_files(folder, name).values()):
        if path.exists():
            raise CannotAdd(f"{path} is there already and was left as it is; choose another name: --name NAME")


def _written(texts: Mapping[Path, str], main: Path, client: Client) -> Files:
    """The files, which the whole configuration is right with."""
    from brokerd.config import load
    from brokerd.core.typed import ConfigError
    from brokerd.edge.drop_in import Files

    made = Files()
    try:
        made.create(texts, main, private=frozenset(list(texts)[:-1]))
        load(main)
    except OSError as error:
        raise Failed(f"{error.filename or main.parent}: {error.strerror}{UNDONE}{_left(client)}") from None
    except ConfigError as error:
        made.undo()
        raise Failed(f"{plain(str(error))}{UNDONE}{_left(client)}") from None
    return made


def _reload(path: str | None, name: str, made: Files, client: Client) -> None:
    """Let the daemon know, if there is one. One that does not take it undoes it."""
    try:
        with Broker(path) as broker:
            added = broker.call("reload")["added"]
    except NoDaemon:
        write("brokerd does not run; it reads this when it starts")
    except BrokerError as error:
        if error.code == "misconfigured":
            made.undo()
            raise Failed(f"{plain(error.message)}{UNDONE}{_left(client)}") from None
        write(f"brokerd does not know of it yet ({plain(error.message)}): brokerctl reload")
    else:
        known = (
            "brokerd knows of it" if name in added else "brokerd reads another configuration; name that with --config"
        )
        write(known)


def _left(client: Client) -> str:
    return f" (the client {plain(client.id)} stays registered at the server)"


def _ca_file(arguments: Namespace) -> str | None:
    from pathlib import Path

    return str(Path(arguments.ca_file).absolute()) if arguments.ca_file else None
