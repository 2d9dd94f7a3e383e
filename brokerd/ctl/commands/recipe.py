# The commands for recipes: list, show, check, and try, which asks a real server once. None of them needs a daemon.
from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomli

from brokerd.config.recipes import load_recipe, recipe_files
from brokerd.core.validation import ConfigError
from brokerd.ctl.as_owner import as_owner_of
from brokerd.ctl.terminal import Failed, plain, write
from brokerd.dialects.recipe.file import never_run
from brokerd.setup.layout import in_use

LATER, OVER, MISCONFIGURED = 4, 5, 2


def recipe(arguments: Namespace) -> int:
    """Run one action. --credentials can name commands and files, so as root it is read as the user who owns it."""
    if arguments.action == "try" and arguments.credentials:
        return as_owner_of(Path(arguments.credentials), lambda: _run(arguments))
    return _run(arguments)


def _run(arguments: Namespace) -> int:
    try:
        match arguments.action:
            case "list":
                return _list(arguments.config)
            case "show":
                return _show(_file(arguments.recipe, arguments.config))
            case "check":
                return _check(_file(arguments.recipe, arguments.config))
            case _:
                return _try(arguments)
    except ConfigError as error:
        raise Failed(plain(str(error))) from None


def _list(configuration: str | None) -> int:
    files = _files(configuration)
    width = max(map(len, files))
    for name, file in sorted(files.items()):
        write(f"{name:<{width}}  {_about(file)}")
    return 0


def _show(file: Path) -> int:
    try:
        write(file.read_text(encoding="utf-8").rstrip("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"{plain(str(file))} cannot be read: {type(error).__name__}") from None
    return 0


def _check(file: Path) -> int:
    recipe = load_recipe(file)
    for error in never_run(recipe):
        raise error.within(file=str(file))
    for line in _summary(recipe):
        write(line)
    return 0


def _try(arguments: Namespace) -> int:
    import trio

    from brokerd.core.exchange.outcomes import Done, Issued, Misconfigured, Rejected
    from brokerd.edge.files.secret_sources import SecretUnreadable
    from brokerd.setup.recipe_trial import Trial, trial

    provider = {"base_url": arguments.base_url}
    if arguments.ca_file:
        provider["ca_file"] = str(Path(arguments.ca_file).absolute())
    credentials = Path(arguments.credentials) if arguments.credentials else None
    grant = trial(_file(arguments.recipe, arguments.config), provider, settings(arguments.setting), credentials)
    try:
        tried = Trial(grant)
    except SecretUnreadable as error:
        raise Failed(plain(str(error))) from None
    outcome = trio.run(tried.run, arguments.operation)
    for line in tried.lines:
        write(plain(line))
    match outcome:
        case Issued() | Done():
            return 0
        case Misconfigured():
            return MISCONFIGURED
        case Rejected():
            return OVER
        case _:
            return LATER


def _files(configuration: str | None) -> dict[str, Path]:
    return recipe_files(Path(in_use(configuration)[0]).parent / "recipes")


def _file(word: str, configuration: str | None) -> Path:
    """The recipe's file, from its path or its name."""
    if word.endswith(".toml") or "/" in word:
        return Path(word).absolute()
    files = _files(configuration)
    if word not in files:
        known = ", ".join(sorted(files))
        raise Failed(f"no recipe {plain(word)!r}; name a file that ends in .toml, or one of: {known}")
    return files[word]


def _about(file: Path) -> str:
    """The whole sentences in the first line of a recipe, which is a comment."""
    line = file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()
    return plain(line if line.endswith(".") else line.rpartition(". ")[0] + ".")


def _summary(recipe: Any) -> Iterator[str]:
    yield f"{recipe.name}: the recipe has no mistakes"
    yield f"credentials: {', '.join(recipe.credentials) or 'none; it starts with brokerctl import'}"
    yield f"settings: {', '.join((*recipe.settings, 'scope, audience, resource'))}"
    for operation in recipe.issue:
        yield f"issue: {_operation(operation)}"
    yield f"renew: {_operation(recipe.renew) if recipe.renew else 'none; each token comes from the credentials'}"
    for kind, operation in (("access", recipe.revoke_access), ("refresh", recipe.revoke_refresh)):
        both = ", which ends both tokens" if operation and operation.ends_both else ""
        yield f"revoke {kind} token: {_operation(operation) + both if operation else 'none'}"
    yield f"an application sends: {recipe.present}"


def _operation(operation: Any) -> str:
    brings = [name for name in ("access_token", "refresh_token") if getattr(operation.answer, name) is not None]
    optional = sorted(operation.sends - operation.needs)
    words = f"{operation.method} {operation.path} with {', '.join(sorted(operation.needs)) or 'nothing'}"
    words += f" (and {', '.join(optional)})" if optional else ""
    if operation.key.startswith("revoke"):
        return words
    fields = f", with the fields {', '.join(operation.answer.fields)}" if operation.answer.fields else ""
    return f"{words} brings {' and '.join(brings)}{fields}" + (
        ", and may use up what it sends" if operation.sends_stored else ""
    )


def settings(words: list[str]) -> dict[str, Any]:
    """The values of --setting as a grant's table. A value is TOML if it can be read as TOML, else text."""
    table: dict[str, object] = {}
    own: dict[str, object] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise Failed("expected --setting NAME=VALUE; put credentials into the file that --credentials names")
        try:
            value: object = tomli.loads(f"value = {text}")["value"]
        except tomli.TOMLDecodeError:
            value = text
        if name == "scope":
            value = value.split() if isinstance(value, str) else value
        (table if name in ("scope", "audience", "resource") else own)[name] = value
    return {**table, "settings": own}
