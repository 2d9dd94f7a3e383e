# The command init: what install does, and then a provider, a grant and a rule in a drop-in file, for a recipe or an
# issuer, so that a login or an import is all that may be missing. It never writes over anything.
from __future__ import annotations

import os

from brokerd.ctl.terminal import Failed, plain, write

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace
    from pathlib import Path

    from brokerd.adding import Addition, Place
    from brokerd.config import Configuration
    from brokerd.ctl.answers import Answers
    from brokerd.ctl.install import Setup
    from brokerd.dialects.oauth2.registration import Client

OF_A_CLIENT = ("client_id", "client_secret")
UNKNOWN_CA = "name it with ca_file"  # how the reason ends that a certificate is signed by nobody known


def init(arguments: Namespace) -> int:
    """Ask, put in place, write, check, reload, and say what is missing."""
    from brokerd.adding import CannotAdd
    from brokerd.config import Configuration, load
    from brokerd.core.typed import ConfigError
    from brokerd.ctl.add import UNDONE, check_free
    from brokerd.ctl.answers import Answers

    setup, main = _where(arguments)
    answers = Answers(arguments)
    place = client = None
    try:
        before = load(main) if main.exists() else Configuration(str(main))
        if not (arguments.recipe or arguments.issuer or arguments.token_url):
            _choose(arguments, answers)
        if arguments.recipe:
            addition = _of_recipe(arguments, answers, before)
        elif arguments.token_url:
            addition = _of_token_url(arguments, answers, before)
        else:
            place, addition = _of_issuer(arguments, answers, before)
        check_free(main.parent, addition.name, addition.secrets)
    except (CannotAdd, ConfigError) as error:
        raise Failed(f"{plain(str(error))}{UNDONE}") from None
    registers = place is not None and "client_id" not in addition.grant["credentials"]
    if registers and place is not None and not arguments.dry_run:
        _agree_to_register(answers, place.metadata.issuer)
    _prepare(setup, main, dry=arguments.dry_run)
    if registers and place is not None:
        client, addition = _registered(arguments, place, addition)
    _write(arguments, setup, main, addition, client)
    return 0


def _where(arguments: Namespace) -> tuple[Setup | None, Path]:
    """What is to be installed, and the main file of the configuration."""
    from pathlib import Path

    from brokerd.ctl.install import Setup

    if arguments.config is not None:
        return None, Path(arguments.config).absolute()
    arguments.root = arguments.prefix = None
    arguments.system = arguments.system or not (arguments.user or os.geteuid())
    arguments.user = not arguments.system
    setup = Setup(arguments)
    return setup, setup.layout.config


def _choose(arguments: Namespace, answers: Answers) -> None:
    chosen = answers.text("A recipe (brokerctl recipe list), or the https:// address of an OAuth 2.0 issuer")
    if chosen is None:
        raise Failed("expected --recipe NAME, or --issuer URL, or --token-url URL; see brokerctl init --help")
    if "://" in chosen:
        arguments.issuer = chosen
    else:
        arguments.recipe = chosen


def _head(before: Configuration) -> str:
    """With the configuration, where it is not the one that brokerd reads by itself."""
    from shlex import quote

    from brokerd.config import DEFAULT_CONFIG

    which = "" if before.path == DEFAULT_CONFIG else f"--config {quote(before.path)} "
    return f"Every key is in brokerd.toml(5). After a change: brokerd {which}--check, then brokerctl {which}reload."


def _agree_to_register(answers: Answers, issuer: str) -> None:
    """Nobody has a client registered without knowing of it. Raises Failed."""
    words = f"No client_id was given: a client of its own is registered for brokerd at {plain(issuer)}"
    if not answers.asks:
        write(words)
    elif (answers.text(f"{words}. Is that right? [y/N]") or "").lower() not in ("y", "yes"):
        raise Failed("nothing was registered or written; name a client: --credential client_id=ID")


def _of_token_url(arguments: Namespace, answers: Answers, before: Configuration) -> Addition:
    """Of a server that has no metadata: a client that needs nobody. Raises CannotAdd."""
    from brokerd.adding import Addition, name_for
    from brokerd.ctl.add import ca_file

    _refuse_others(answers, OF_A_CLIENT, "a server's client")
    if arguments.grant_type not in (None, "client_credentials"):
        raise Failed("with --token-url only --grant-type client_credentials; a login needs --issuer")
    name = name_for(arguments.token_url, before, answers.text("A name for it (the host's)", arguments.name))
    texts, secrets = answers.credentials(OF_A_CLIENT)
    if not (texts and secrets):
        words = "expected the client: --credential client_id=ID and --credential-file client_secret=FILE"
        raise Failed(words)
    provider = {"dialect": "oauth2", "token_url": arguments.token_url, "ca_file": ca_file(arguments)}
    grant = {"grant_type": "client_credentials", "credentials": texts, "scope": arguments.scope or []}
    about = ["By brokerctl init.", _head(before)]
    return Addition(name, about, provider, grant, secrets, _allowed(arguments, answers))


def _of_recipe(arguments: Namespace, answers: Answers, before: Configuration) -> Addition:
    """Raises CannotAdd, ConfigError."""
    from pathlib import Path

    from brokerd.adding import Addition, name_for
    from brokerd.config.tables import Recipes
    from brokerd.ctl.add import ca_file
    from brokerd.ctl.recipe import settings

    recipe = Recipes(Path(before.path).parent / "recipes").get(arguments.recipe)
    base_url = answers.text("The address of its API, https://…", arguments.base_url)
    if base_url is None:
        raise Failed("expected --base-url URL: where the recipe's paths are appended to")
    _refuse_others(answers, recipe.credentials, recipe.name)
    name = name_for(base_url, before, answers.text(f"A name for it ({recipe.name})", arguments.name) or recipe.name)
    texts, secrets = answers.credentials(recipe.credentials)
    said = settings(arguments.setting)
    own = said.pop("settings")
    for each in recipe.settings:
        if each not in own and (value := answers.text(f"{each}, a setting (empty: none)")) is not None:
            own |= settings([f"{each}={value}"])["settings"]
    free = [each for each in recipe.settings if each not in own]
    about = [f"By brokerctl init, for the recipe {recipe.name}: brokerctl recipe show {recipe.name}", _head(before)]
    about += [f"Settings that it knows, too: {', '.join(free)}"] if free else []
    scope = {"scope": arguments.scope} if arguments.scope else {}
    provider = {"dialect": recipe.name, "base_url": base_url, "ca_file": ca_file(arguments)}
    grant = {"credentials": texts, **said, **scope, "settings": own}
    return Addition(name, about, provider, grant, secrets, _allowed(arguments, answers))


def _of_issuer(arguments: Namespace, answers: Answers, before: Configuration) -> tuple[Place, Addition]:
    """Without a client_id where one is to be registered. Raises CannotAdd."""
    import trio

    from brokerd.adding import Addition, CannotAdd, look, name_for, oauth2
    from brokerd.ctl.add import ca_file, http
    from brokerd.dialects.oauth2.registration import logins

    _refuse_others(answers, OF_A_CLIENT, "an issuer's client")
    needs_nobody = arguments.grant_type == "client_credentials"

    async def asked() -> Place:
        async with http(arguments) as client:
            return await look(client, None, arguments.issuer, person=not needs_nobody)

    try:
        place = trio.run(asked)
    except CannotAdd as error:
        if not (str(error).endswith(UNKNOWN_CA) and arguments.ca_file is None and answers.asks):
            raise
        write(plain(str(error)))
        arguments.ca_file = answers.text("The file with the certificates (PEM) of that authority")
        place = trio.run(asked)
    if not (needs_nobody or arguments.scope):
        words = "Scopes, with blanks between (empty: none; many servers want offline_access for a login that lasts)"
        arguments.scope = (answers.text(words) or "").split() or None
    name = name_for(arguments.issuer, before, answers.text("A name for it (the host's)", arguments.name))
    texts, secrets = answers.credentials(OF_A_CLIENT)
    if needs_nobody and not (texts and secrets):
        words = "client_credentials needs a client that was registered by hand: --credential client_id=ID and"
        raise Failed(f"{words} --credential-file client_secret=FILE")
    grant_type = arguments.grant_type or logins(place.metadata)[0]
    grant = {"grant_type": grant_type, "credentials": texts, "scope": arguments.scope or []}
    about = ["By brokerctl init.", _head(before)]
    provider = oauth2(place.metadata.issuer, ca_file(arguments))
    return place, Addition(name, about, provider, grant, secrets, _allowed(arguments, answers))


def _registered(arguments: Namespace, place: Place, addition: Addition) -> tuple[Client, Addition]:
    """With a client of our own at the server. Raises Failed."""
    import trio

    from brokerd.adding import CannotAdd, at_server, by_hand, register
    from brokerd.ctl.add import UNDONE, UNREGISTERED, ca_file, http, our_name

    scope = arguments.scope or ()

    async def asked() -> Client:
        async with http(arguments) as client:
            return await register(client, place, our_name(), scope)

    try:
        client = by_hand(place, UNREGISTERED) if arguments.dry_run else trio.run(asked)
    except CannotAdd as error:
        raise Failed(f"{plain(str(error))}{UNDONE}") from None
    return client, at_server(place, client, addition.name, scope, ca_file(arguments), addition.allow)


def _prepare(setup: Setup | None, main: Path, *, dry: bool) -> None:
    """Raises Failed."""
    from brokerd.ctl.install import first_configuration
    from brokerd.ctl.key_place import make_key

    if setup is not None:
        setup.put_in_place()
        return
    write(first_configuration(main, dry=dry))
    write(f"key: {plain(make_key(main, None, dry=dry))}")


def _write(arguments: Namespace, setup: Setup | None, main: Path, addition: Addition, client: Client | None) -> None:
    from brokerd_client.address import CALLERS

    from brokerd.ctl import socket_of
    from brokerd.ctl.add import registered, reload, show, written

    left = "" if client is None else registered(client)
    texts = addition.files(main.parent)
    drop_in = list(texts)[-1]
    if arguments.dry_run:
        show(drop_in, texts[drop_in])
        return
    made = written(texts, main, left)
    for path in texts:
        write(f"{plain(str(path))}: written")
    reload(socket_of(arguments), addition.name, made, left)
    write("\nnext:")
    if setup is not None:
        write(f"  {setup.start}, if brokerd does not run yet")
        if setup.layout.is_system:
            for user in addition.allow:
                write(f"  usermod -aG {CALLERS} {plain(user)}, for the socket lets in root and that group alone")
    if what := _missing(main, addition.name):
        write(f"  brokerctl {what} {addition.name}")
    write(f"  brokerctl get {addition.name}")


def _missing(main: Path, name: str) -> str | None:
    """The command that brings the first token, where credentials do not."""
    from brokerd.config import load
    from brokerd.dialects.recipe import RecipeDialect

    grant = load(main).grants[name]
    dialect = grant.provider.dialect
    if isinstance(dialect, RecipeDialect):
        have = {*grant.credentials, *grant.settings, *dialect.settings}
        return None if any(each.needs <= have for each in dialect.recipe.issue) else "import"
    return None if grant.settings["grant_type"] == "client_credentials" else "login"


def _allowed(arguments: Namespace, answers: Answers) -> list[str]:
    if arguments.allow or arguments.user:  # a user's own brokerd gives him everything
        return list(arguments.allow)
    user = answers.text("The user who may have its tokens (empty: nobody but root)")
    return [] if user is None else [user]


def _refuse_others(answers: Answers, known: tuple[str, ...], whose: str) -> None:
    for name in sorted(answers.named - set(known)):
        words = ", ".join(known) or "none"
        raise Failed(f"{plain(name)} is no credential of {plain(whose)}; it has: {words}")
