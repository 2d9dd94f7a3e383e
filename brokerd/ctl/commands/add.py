# The command add, also called init: writes a provider, a grant and a rule to a drop-in file, for a recipe, an issuer, a
# protected resource or a token endpoint. If nothing is configured yet, it first does what install does.
from __future__ import annotations

import os
import socket
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from shlex import quote

import trio
from brokerd_client import Broker, BrokerError, NoDaemon
from brokerd_client.address import CALLERS

from brokerd.config.load import load
from brokerd.config.recipes import Recipes
from brokerd.config.settings import Configuration
from brokerd.config.toml_files import DEFAULT_CONFIG
from brokerd.core.validation import ConfigError
from brokerd.ctl import socket_of
from brokerd.ctl.arguments import read_arguments
from brokerd.ctl.commands.install import Setup, first_configuration
from brokerd.ctl.commands.login import login
from brokerd.ctl.commands.recipe import settings
from brokerd.ctl.first_key import make_key
from brokerd.ctl.questions import Answers
from brokerd.ctl.terminal import Failed, away, plain, write
from brokerd.dialects.oauth2.registration import Client, logins
from brokerd.dialects.recipe.dialect import RecipeDialect
from brokerd.dialects.static import TOKEN, Static
from brokerd.edge.files.drop_in import CreatedFiles
from brokerd.edge.http.client import HttpClient, HttpSettings
from brokerd.edge.system.clock import SystemClock
from brokerd.setup.layout import in_use, is_own, state_in_use
from brokerd.setup.new_grant import (
    OFFLINE,
    REGISTRATION,
    Addition,
    CannotAdd,
    TokenSource,
    at_server,
    drop_in,
    look,
    name_for,
    register,
    secret_files,
)

ANSWERS_WITHIN = 20.0  # seconds; a person waits
UNDONE = "; the grant was not written"
UNREGISTERED = "the client that will be registered"
OF_A_CLIENT = ("client_id", "client_secret")
OF_A_REGISTRATION = ("client_secret", REGISTRATION)  # secrets that a server may give a client
UNKNOWN_CA = "name it with ca_file"  # how the error ends if an unknown authority has signed a certificate


def add(arguments: Namespace) -> int:
    """Ask, install if nothing is configured, write, check, reload, and say what to do next."""
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
        write(f"the client's secret expires {away(client.secret_ends - time.time())}")
    reload(socket_of(arguments), addition.name, made, left)
    missing = _missing(main, addition.name)
    logs_in = arguments.login and missing == "login"
    write("\nnext:")
    for line in _next(setup, main, addition, None if logs_in else missing):
        write(f"  {line}")
    if not logs_in:
        return 0
    with Broker(socket_of(arguments)) as broker:
        return login(broker, read_arguments(["login", addition.name]))


def _where(arguments: Namespace) -> tuple[Setup | None, Path]:
    """The installation to make first, if any, and the main file of the configuration. Raises Failed."""
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
    """Whether the file exists. True also if that cannot be known: reading it then gives the error."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _prepare(arguments: Namespace, setup: Setup | None, main: Path) -> None:
    """Make what a first grant needs: an installation, or with --config a configuration and a key. Raises Failed."""
    if setup is not None:
        setup.put_in_place()
    elif arguments.config is not None:
        if not _is_there(main):
            write(first_configuration(main, dry=arguments.dry_run))
        elif _is_there(state_in_use(arguments.state_dir, str(main)) / "brokerd.db"):
            return  # the store was made with a key
        write(f"key: {plain(make_key(main, None, dry=arguments.dry_run))}")


def _next(setup: Setup | None, main: Path, addition: Addition, missing: str | None) -> Iterator[str]:
    """What the person should do next."""
    if setup is not None:
        yield f"{setup.start}, if brokerd does not run yet"
    if str(main) == DEFAULT_CONFIG:
        for user in addition.allow:
            yield f"usermod -aG {CALLERS} {plain(user)}, because only root and that group may connect to the socket"
    if not (addition.allow or is_own(str(main))):
        yield f"write a rule that says who may have the tokens: see {plain(str(drop_in(main.parent, addition.name)))}"
    if missing:
        yield f"brokerctl {missing} {addition.name}"
    yield f"brokerctl get {addition.name}"


def _missing(main: Path, name: str) -> str | None:
    """The command that brings the first token, if the credentials cannot."""
    grant = load(main).grants[name]
    dialect = grant.provider.dialect
    if isinstance(dialect, Static):
        return None
    if isinstance(dialect, RecipeDialect):
        have = {*grant.credentials, *grant.settings, *dialect.settings}
        return None if any(each.needs <= have for each in dialect.recipe.issue) else "import"
    return None if grant.settings["grant_type"] == "client_credentials" else "login"


# -- what is added, for each way to name the provider


def _addition(arguments: Namespace, answers: Answers, before: Configuration) -> tuple[Addition, TokenSource | None]:
    """And the server at which a client must be registered, if any. Raises CannotAdd, ConfigError, Failed."""
    if arguments.static:
        return _of_static(arguments, answers, before), None
    if not (arguments.recipe or arguments.issuer or arguments.token_url or arguments.resource):
        kinds = "A recipe (brokerctl recipe list), the https:// address of an OAuth 2.0 issuer, or static (an API key)"
        chosen = answers.text(kinds)
        if chosen is None:
            words = "expected --recipe NAME, --issuer URL, --resource URL, --token-url URL or --static"
            raise Failed(f"{words}; see brokerctl add --help")
        if chosen == "static":
            arguments.static = True
            return _of_static(arguments, answers, before), None
        setattr(arguments, "issuer" if "://" in chosen else "recipe", chosen)
    if arguments.resource and (arguments.recipe or arguments.token_url):
        raise Failed("--resource names the server itself: use it alone or with --issuer")
    if arguments.recipe:
        return _of_recipe(arguments, answers, before), None
    if arguments.token_url:
        return _of_token_url(arguments, answers, before), None
    return _of_server(arguments, answers, before)


def _of_recipe(arguments: Namespace, answers: Answers, before: Configuration) -> Addition:
    recipe = Recipes(Path(before.path).parent / "recipes").get(arguments.recipe)
    base_url = answers.text("The address of its API, https://…", arguments.base_url)
    if base_url is None:
        raise Failed("expected --base-url URL: the recipe's paths are appended to it")
    answers.refuse_others(recipe.credentials, recipe.name)
    name = name_for(base_url, before, answers.text(f"A name for it ({recipe.name})", arguments.name) or recipe.name)
    texts, secrets = answers.credentials(recipe.credentials)
    said = settings(arguments.setting)
    own = said.pop("settings")
    for each in recipe.settings:
        if each not in own and (value := answers.text(f"{each}, a setting (empty: none)")) is not None:
            own |= settings([f"{each}={value}"])["settings"]
    free = [each for each in recipe.settings if each not in own]
    made = f"Written by brokerctl add for the recipe {recipe.name}: brokerctl recipe show {recipe.name}"
    about = [made, _head(before)]
    about += [f"More settings of this recipe: {', '.join(free)}"] if free else []
    scope = {"scope": arguments.scope} if arguments.scope else {}
    provider = {"dialect": recipe.name, "base_url": base_url, "ca_file": ca_file(arguments)}
    grant = {"credentials": texts, **said, **scope, "settings": own}
    return Addition(name, about, provider, grant, secrets, _allowed(arguments, answers, before))


def _of_static(arguments: Namespace, answers: Answers, before: Configuration) -> Addition:
    """A token that somebody wrote down. Every other credential is a field of it."""
    if arguments.resource or arguments.base_url or arguments.setting or arguments.scope or arguments.ca_file:
        raise Failed("--static asks no provider, so it has no address, setting, scope or certificate; leave them out")
    if (chosen := answers.text("A name for it", arguments.name)) is None:
        raise Failed("expected --name NAME")
    name = name_for("", before, chosen)
    texts, secrets = answers.credentials(tuple(dict.fromkeys((TOKEN, *answers.given))))
    if TOKEN not in secrets:
        raise Failed(f"expected the token: --credential-file {TOKEN}=FILE")
    about = ["By brokerctl add. brokerd looks at the files of the token every minute.", _head(before)]
    allow = _allowed(arguments, answers, before)
    return Addition(name, about, {"dialect": "static"}, {"credentials": texts}, secrets, allow)


def _of_token_url(arguments: Namespace, answers: Answers, before: Configuration) -> Addition:
    """For a server that publishes no metadata: client credentials, which need no login."""
    answers.refuse_others(OF_A_CLIENT, "a server's client")
    if arguments.grant_type not in (None, "client_credentials"):
        raise Failed("--token-url works with --grant-type client_credentials only; a login needs --issuer")
    name = name_for(arguments.token_url, before, answers.text("A name for it (the host's)", arguments.name))
    texts, secrets = answers.credentials(OF_A_CLIENT)
    if not (texts and secrets):
        raise Failed("expected a client: --credential client_id=ID and --credential-file client_secret=FILE")
    provider = {"dialect": "oauth2", "token_url": arguments.token_url, "ca_file": ca_file(arguments)}
    grant = {"grant_type": "client_credentials", "credentials": texts, "scope": arguments.scope or []}
    about = ["By brokerctl add.", _head(before)]
    return Addition(name, about, provider, grant, secrets, _allowed(arguments, answers, before))


def _of_server(arguments: Namespace, answers: Answers, before: Configuration) -> tuple[Addition, TokenSource | None]:
    """For a server that publishes its endpoints: with a client that exists there, or one that brokerd registers."""
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
        words = "client_credentials needs a client that you registered yourself: --credential client_id=ID and"
        raise Failed(f"{words} --credential-file client_secret=FILE")
    grant_type = arguments.grant_type or logins(place.metadata)[0]
    authentication = "auto" if secrets else "none"
    client = Client(texts.get("client_id", UNREGISTERED), authentication, grant_type, secrets.get("client_secret"))
    about = ["By brokerctl add.", _head(before)]
    allow = _allowed(arguments, answers, before)
    addition = at_server(place, client, name, scope, ca_file(arguments), allow, about)
    return addition, None if texts else place


def _found(arguments: Namespace, answers: Answers) -> TokenSource:
    """The server. If its certificate authority is unknown, asks at a terminal for a file. Raises CannotAdd."""

    async def asked() -> TokenSource:
        person = arguments.grant_type != "client_credentials"
        async with _http(arguments) as client:
            return await look(client, arguments.resource, arguments.issuer, person=person)

    try:
        return trio.run(asked)
    except CannotAdd as error:
        if not (str(error).endswith(UNKNOWN_CA) and arguments.ca_file is None and answers.asks):
            raise
        write(plain(str(error)))
    arguments.ca_file = answers.text("A file with the certificates (PEM) of that authority")
    return trio.run(asked)


def _scope(answers: Answers, given: list[str], place: TokenSource) -> list[str]:
    """The scope of a login, with offline_access if the server offers it and the person agrees."""
    named = plain(" ".join(place.resource.scopes if place.resource else ()))
    which = f"; the resource names {named}" if named else ""
    scope = given or (answers.text(f"Scopes, separated by spaces (empty: none{which})") or "").split()
    if named and not scope:
        write(f"the resource names scopes, but this grant asks for none: {named}")
    if OFFLINE not in scope and place.metadata.offers_offline_access:
        without = "without it, a login may bring no refresh token"
        words = f"{plain(place.metadata.issuer)} offers the scope {OFFLINE}; {without}"
        if given or not answers.asks:
            write(f"{words}; to ask for it: --scope {OFFLINE}")
        elif (answers.text(f"{words}. Ask for it? [Y/n]") or "y").lower() in ("y", "yes"):
            return [*scope, OFFLINE]
    return scope


def _agree_to_register(answers: Answers, issuer: str) -> None:
    """Tell the person that a client will be registered, and ask if possible. Raises Failed."""
    words = f"No client_id was given, so brokerctl registers a new client at {plain(issuer)}"
    if not answers.asks:
        write(words)
    elif (answers.text(f"{words}. Do that? [y/N]") or "").lower() not in ("y", "yes"):
        raise Failed("nothing was registered or written; name a client: --client-id ID")


async def _registered(arguments: Namespace, place: TokenSource, scope: list[str]) -> Client:
    """Raises CannotAdd."""
    name = f"brokerd on {socket.gethostname()}"  # the client's name at the server
    async with _http(arguments) as http:
        client = await register(http, place, name, scope)
    return replace(client, grant_type=arguments.grant_type or client.grant_type)


def _allowed(arguments: Namespace, answers: Answers, before: Configuration) -> list[str]:
    if arguments.allow or is_own(before.path):  # a user may use everything of their own brokerd
        return list(arguments.allow)
    user = answers.text("The user who may have the tokens (empty: root only)")
    return [] if user is None else [user]


def _head(before: Configuration) -> str:
    """The line about checking. It names the configuration unless brokerd reads that one by default."""
    which = "" if before.path == DEFAULT_CONFIG else f"--config {quote(before.path)} "
    return f"brokerd.toml(5) explains every key. After a change: brokerd {which}--check, then brokerctl {which}reload."


# -- requests, files, and the daemon


def _http(arguments: Namespace) -> aclosing[HttpClient]:
    trusted = ca_file(arguments)
    settings = HttpSettings(ca_file=Path(trusted) if trusted else None, total_timeout=ANSWERS_WITHIN)
    return aclosing(HttpClient(settings, SystemClock()))


def check_free(folder: Path, name: str, secrets: Iterable[str]) -> None:
    """None of the files to write may exist. Checked before any request is sent. Raises CannotAdd."""
    for path in (drop_in(folder, name), *secret_files(folder, name, secrets).values()):
        if path.exists():
            raise CannotAdd(f"{path} exists already and was not changed; choose another name: --name NAME")


def written(texts: Mapping[Path, str], main: Path, left: str) -> CreatedFiles:
    """Write the files if the whole configuration is valid with them. `left`: says what a failure leaves behind."""
    made = CreatedFiles()
    try:
        made.create(texts, main, private=frozenset(list(texts)[:-1]))
        load(main)
    except OSError as error:
        raise Failed(f"{error.filename or main.parent}: {error.strerror}{UNDONE}{left}") from None
    except ConfigError as error:
        made.undo()
        raise Failed(f"{plain(str(error))}{UNDONE}{left}") from None
    return made


def reload(path: str | None, name: str, made: CreatedFiles, left: str) -> None:
    """Tell the daemon, if it runs. If it refuses the configuration, delete the files."""
    try:
        with Broker(path) as broker:
            added = broker.call("reload")["added"]
    except NoDaemon:
        write("brokerd does not run; it will read this when it starts")
    except BrokerError as error:
        if error.code == "misconfigured":
            made.undo()
            raise Failed(f"{plain(error.message)}{UNDONE}{left}") from None
        write(f"brokerd has not read it yet ({plain(error.message)}); to make it: brokerctl reload")
    else:
        other = "brokerd uses another configuration; name that one with --config"
        write("brokerd has read it" if name in added else other)


def registered(client: Client) -> str:
    return f" (the client {plain(client.id)} stays registered at the server)"


def ca_file(arguments: Namespace) -> str | None:
    return str(Path(arguments.ca_file).absolute()) if arguments.ca_file else None
