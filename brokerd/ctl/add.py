# The command add, which init is another name of: from a recipe, an issuer, a protected resource or a token endpoint to
# a provider, a grant and a rule in a drop-in file. Where nothing is configured, it does what install does first.
from __future__ import annotations

import os
import socket
import time
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import trio
from brokerd_client import Broker, BrokerError, NoDaemon
from brokerd_client.address import CALLERS

from brokerd.adding import (
    OFFLINE,
    REGISTRATION,
    Addition,
    CannotAdd,
    Place,
    at_server,
    drop_in,
    look,
    name_for,
    register,
    secret_files,
)
from brokerd.config import DEFAULT_CONFIG, Configuration, load
from brokerd.config.tables import Recipes
from brokerd.core.typed import ConfigError
from brokerd.ctl import socket_of
from brokerd.ctl.answers import Answers
from brokerd.ctl.arguments import read_arguments
from brokerd.ctl.install import Setup, first_configuration
from brokerd.ctl.key_place import make_key
from brokerd.ctl.login import login
from brokerd.ctl.recipe import settings
from brokerd.ctl.terminal import Failed, away, plain, write
from brokerd.dialects.oauth2.registration import Client, logins
from brokerd.dialects.recipe import RecipeDialect
from brokerd.edge.clock import SystemClock
from brokerd.edge.drop_in import Files
from brokerd.edge.http import HttpClient, HttpSettings
from brokerd.installing import in_use, is_own, state_in_use

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Iterator, Mapping

ANSWERS_WITHIN = 20.0  # seconds; somebody waits
UNDONE = "; the grant was not written"
UNREGISTERED = "the one that is registered"
OF_A_CLIENT = ("client_id", "client_secret")
OF_A_REGISTRATION = ("client_secret", REGISTRATION)  # secrets that a server may give a client
UNKNOWN_CA = "name it with ca_file"  # how the reason ends that a certificate is signed by an unknown authority


def add(arguments: Namespace) -> int:
    """Ask, install where nothing is configured, write, check, reload, and say what is missing."""
    setup, main = _where(arguments)
    answers = Answers(arguments)
    client = None
    try:
        before = load(main) if _is_there(main) else Configuration(str(main))
        addition, server = _addition(arguments, answers, before)
        check_free(main.parent, addition.name, addition.secrets if server is None else OF_A_REGISTRATION)
        if server is not None and not arguments.dry_run:
            _agree_to_register(answers, server.metadata.issuer)
        _prepare(arguments, setup, main)
        if server is not None and not arguments.dry_run:
            client = trio.run(_registered, arguments, server, addition.grant["scope"])
            addition = addition.with_client(client)
    except (CannotAdd, ConfigError) as error:
        raise Failed(f"{plain(str(error))}{UNDONE}") from None
    texts = addition.files(main.parent)
    if arguments.dry_run:
        file = list(texts)[-1]
        write(f"{plain(str(file))} would be:\n\n{texts[file]}")
        return 0
    left = "" if client is None else registered(client)
    made = written(texts, main, left)
    for path in texts:
        write(f"{plain(str(path))}: written")
    if client is not None and client.secret_ends is not None:
        write(f"the secret of its client expires {away(client.secret_ends - time.time())}")
    reload(socket_of(arguments), addition.name, made, left)
    missing = _missing(main, addition.name)
    logs_in = arguments.login and missing == "login"
    write("\nnext:")
    for line in _next(setup, main, addition, None if logs_in else missing):
        write(f"  {line}")
    return _log_in(socket_of(arguments), addition.name) if logs_in else 0


def _where(arguments: Namespace) -> tuple[Setup | None, Path]:
    """What may have to be installed first, and the main file of the configuration. Raises Failed."""
    main = Path(in_use(arguments.config)[0]).absolute()
    chosen = arguments.system or arguments.user
    if arguments.config is not None or (not chosen and _is_there(main) and os.access(main.parent, os.W_OK)):
        return None, main
    arguments.root = arguments.prefix = None
    arguments.system = arguments.system or not (arguments.user or os.geteuid())
    arguments.user = not arguments.system
    setup = Setup(arguments)
    return setup, setup.layout.config


def _is_there(path: Path) -> bool:
    """Also where it cannot be seen: whoever reads it says why."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _prepare(arguments: Namespace, setup: Setup | None, main: Path) -> None:
    """What a first grant needs: all that install does, or with --config a configuration and a key. Raises Failed."""
    if setup is not None:
        setup.put_in_place()
    elif arguments.config is not None:
        if not _is_there(main):
            write(first_configuration(main, dry=arguments.dry_run))
        elif _is_there(state_in_use(arguments.state_dir, str(main)) / "brokerd.db"):
            return  # the store was made with a key
        write(f"key: {plain(make_key(main, None, dry=arguments.dry_run))}")


def _next(setup: Setup | None, main: Path, addition: Addition, missing: str | None) -> Iterator[str]:
    """What a person is to do now."""
    if setup is not None:
        yield f"{setup.start}, if brokerd does not run yet"
    if str(main) == DEFAULT_CONFIG:
        for user in addition.allow:
            yield f"usermod -aG {CALLERS} {plain(user)}, for the socket lets in root and that group alone"
    if not (addition.allow or is_own(str(main))):
        yield f"a rule for who may have its tokens: see {plain(str(drop_in(main.parent, addition.name)))}"
    if missing:
        yield f"brokerctl {missing} {addition.name}"
    yield f"brokerctl get {addition.name}"


def _log_in(path: str | None, name: str) -> int:
    with Broker(path) as broker:
        return login(broker, read_arguments(["login", name]))


def _missing(main: Path, name: str) -> str | None:
    """The command that brings the first token, where credentials do not."""
    grant = load(main).grants[name]
    dialect = grant.provider.dialect
    if isinstance(dialect, RecipeDialect):
        have = {*grant.credentials, *grant.settings, *dialect.settings}
        return None if any(each.needs <= have for each in dialect.recipe.issue) else "import"
    return None if grant.settings["grant_type"] == "client_credentials" else "login"


# -- what is added, in each of the ways to name it


def _addition(arguments: Namespace, answers: Answers, before: Configuration) -> tuple[Addition, Place | None]:
    """With the server that a client has to be registered at. Raises CannotAdd, ConfigError, Failed."""
    if not (arguments.recipe or arguments.issuer or arguments.token_url or arguments.resource):
        chosen = answers.text("A recipe (brokerctl recipe list), or the https:// address of an OAuth 2.0 issuer")
        if chosen is None:
            words = "expected --recipe NAME, --issuer URL, --resource URL or --token-url URL; see brokerctl add --help"
            raise Failed(words)
        setattr(arguments, "issuer" if "://" in chosen else "recipe", chosen)
    if arguments.resource and (arguments.recipe or arguments.token_url):
        raise Failed("--resource goes with --issuer or alone: it names the server by itself")
    if arguments.recipe:
        return _of_recipe(arguments, answers, before), None
    if arguments.token_url:
        return _of_token_url(arguments, answers, before), None
    return _of_server(arguments, answers, before)


def _of_recipe(arguments: Namespace, answers: Answers, before: Configuration) -> Addition:
    recipe = Recipes(Path(before.path).parent / "recipes").get(arguments.recipe)
    base_url = answers.text("The address of its API, https://…", arguments.base_url)
    if base_url is None:
        raise Failed("expected --base-url URL: where the recipe's paths are appended to")
    answers.refuse_others(recipe.credentials, recipe.name)
    name = name_for(base_url, before, answers.text(f"A name for it ({recipe.name})", arguments.name) or recipe.name)
    texts, secrets = answers.credentials(recipe.credentials)
    said = settings(arguments.setting)
    own = said.pop("settings")
    for each in recipe.settings:
        if each not in own and (value := answers.text(f"{each}, a setting (empty: none)")) is not None:
            own |= settings([f"{each}={value}"])["settings"]
    free = [each for each in recipe.settings if each not in own]
    about = [f"By brokerctl add, for the recipe {recipe.name}: brokerctl recipe show {recipe.name}", _head(before)]
    about += [f"Settings that it knows, too: {', '.join(free)}"] if free else []
    scope = {"scope": arguments.scope} if arguments.scope else {}
    provider = {"dialect": recipe.name, "base_url": base_url, "ca_file": ca_file(arguments)}
    grant = {"credentials": texts, **said, **scope, "settings": own}
    return Addition(name, about, provider, grant, secrets, _allowed(arguments, answers, before))


def _of_token_url(arguments: Namespace, answers: Answers, before: Configuration) -> Addition:
    """Of a server that has no metadata: a client that needs nobody."""
    answers.refuse_others(OF_A_CLIENT, "a server's client")
    if arguments.grant_type not in (None, "client_credentials"):
        raise Failed("with --token-url only --grant-type client_credentials; a login needs --issuer")
    name = name_for(arguments.token_url, before, answers.text("A name for it (the host's)", arguments.name))
    texts, secrets = answers.credentials(OF_A_CLIENT)
    if not (texts and secrets):
        raise Failed("expected the client: --credential client_id=ID and --credential-file client_secret=FILE")
    provider = {"dialect": "oauth2", "token_url": arguments.token_url, "ca_file": ca_file(arguments)}
    grant = {"grant_type": "client_credentials", "credentials": texts, "scope": arguments.scope or []}
    about = ["By brokerctl add.", _head(before)]
    return Addition(name, about, provider, grant, secrets, _allowed(arguments, answers, before))


def _of_server(arguments: Namespace, answers: Answers, before: Configuration) -> tuple[Addition, Place | None]:
    """Of a server that says where its endpoints are: a client that is known there, or one that is registered."""
    answers.refuse_others(OF_A_CLIENT, "an issuer's client")
    needs_nobody = arguments.grant_type == "client_credentials"
    url = arguments.resource or arguments.issuer
    name = name_for(url, before, arguments.name)  # before anybody is asked
    if arguments.name is None:
        name = name_for(url, before, answers.text(f"A name for it ({name})"))
    place = _found(arguments, answers)
    scope = arguments.scope or []
    scope = scope if needs_nobody else _scope(answers, scope, place)
    texts, secrets = answers.credentials(OF_A_CLIENT)
    if needs_nobody and not (texts and secrets):
        words = "client_credentials needs a client that was registered by hand: --credential client_id=ID and"
        raise Failed(f"{words} --credential-file client_secret=FILE")
    grant_type = arguments.grant_type or logins(place.metadata)[0]
    client = Client(
        texts.get("client_id", UNREGISTERED), "auto" if secrets else "none", grant_type, secrets.get("client_secret")
    )
    about = ["By brokerctl add.", _head(before)]
    allow = _allowed(arguments, answers, before)
    addition = at_server(place, client, name, scope, ca_file(arguments), allow, about)
    return addition, None if texts else place


def _found(arguments: Namespace, answers: Answers) -> Place:
    """The server. At a terminal the certificates of an unknown authority are asked for. Raises CannotAdd."""

    async def asked() -> Place:
        person = arguments.grant_type != "client_credentials"
        async with _http(arguments) as client:
            return await look(client, arguments.resource, arguments.issuer, person=person)

    try:
        return trio.run(asked)
    except CannotAdd as error:
        if not (str(error).endswith(UNKNOWN_CA) and arguments.ca_file is None and answers.asks):
            raise
        write(plain(str(error)))
    arguments.ca_file = answers.text("The file with the certificates (PEM) of that authority")
    return trio.run(asked)


def _scope(answers: Answers, given: list[str], place: Place) -> list[str]:
    """The scope of a login, with offline_access where the server has it and a person agrees."""
    named = plain(" ".join(place.resource.scopes if place.resource else ()))
    which = f"; the resource names {named}" if named else ""
    scope = given or (answers.text(f"Scopes, with blanks between (empty: none{which})") or "").split()
    if named and not scope:
        write(f"the resource names scopes, and none is asked for: {named}")
    if OFFLINE not in scope and place.metadata.offers_offline_access:
        words = f"{plain(place.metadata.issuer)} has the scope {OFFLINE}; without it a login may bring no refresh token"
        if given or not answers.asks:
            write(f"{words}: --scope {OFFLINE}")
        elif (answers.text(f"{words}. Ask for it? [Y/n]") or "y").lower() in ("y", "yes"):
            return [*scope, OFFLINE]
    return scope


def _agree_to_register(answers: Answers, issuer: str) -> None:
    """Nobody has a client registered without knowing of it. Raises Failed."""
    words = f"No client_id was given: a client of its own is registered for brokerd at {plain(issuer)}"
    if not answers.asks:
        write(words)
    elif (answers.text(f"{words}. Is that right? [y/N]") or "").lower() not in ("y", "yes"):
        raise Failed("nothing was registered or written; name a client: --client-id ID")


async def _registered(arguments: Namespace, place: Place, scope: list[str]) -> Client:
    """Raises CannotAdd."""
    name = f"brokerd on {socket.gethostname()}"  # as people see it among the clients of their server
    async with _http(arguments) as http:
        client = await register(http, place, name, scope)
    return replace(client, grant_type=arguments.grant_type or client.grant_type)


def _allowed(arguments: Namespace, answers: Answers, before: Configuration) -> list[str]:
    if arguments.allow or is_own(before.path):  # a user's own brokerd gives them everything
        return list(arguments.allow)
    user = answers.text("The user who may have its tokens (empty: nobody but root)")
    return [] if user is None else [user]


def _head(before: Configuration) -> str:
    """With the configuration, where it is not the one that brokerd reads by itself."""

    which = "" if before.path == DEFAULT_CONFIG else f"--config {quote(before.path)} "
    return f"Every key is in brokerd.toml(5). After a change: brokerd {which}--check, then brokerctl {which}reload."


# -- what is asked, written and told


def _http(arguments: Namespace) -> aclosing[HttpClient]:

    trusted = ca_file(arguments)
    settings = HttpSettings(ca_file=Path(trusted) if trusted else None, total_timeout=ANSWERS_WITHIN)
    return aclosing(HttpClient(settings, SystemClock()))


def check_free(folder: Path, name: str, secrets: Iterable[str]) -> None:
    """Before anything is asked of anybody: what would be written must not be there. Raises CannotAdd."""
    for path in (drop_in(folder, name), *secret_files(folder, name, secrets).values()):
        if path.exists():
            raise CannotAdd(f"{path} is there already and was left as it is; choose another name: --name NAME")


def written(texts: Mapping[Path, str], main: Path, left: str) -> Files:
    """The files, which the whole configuration is right with. `left`: what stays where they are not."""
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
    return str(Path(arguments.ca_file).absolute()) if arguments.ca_file else None
