# The commands for recipes: list, show, check, and try, which asks a real server once. None needs a daemon.
from __future__ import annotations

from pathlib import Path

from brokerd.ctl.terminal import Failed, plain, write

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator
    from typing import Any

LATER, OVER, MISCONFIGURED = 4, 5, 2


def recipe(arguments: Namespace) -> int:
    """Run one of them. A file of credentials names commands and other files: for root those are its owner's."""
    from brokerd.ctl.acting import as_owner_of

    if arguments.action == "try" and arguments.credentials:
        return as_owner_of(Path(arguments.credentials), lambda: _run(arguments))
    return _run(arguments)


def _run(arguments: Namespace) -> int:
    from brokerd.core.typed import ConfigError

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
    from brokerd.config.tables import load_recipe
    from brokerd.dialects.recipe_file import never_run

    recipe = load_recipe(file)
    for error in never_run(recipe):
        raise error.within(file=str(file))
    for line in _summary(recipe):
        write(line)
    return 0


def _try(arguments: Namespace) -> int:
    import trio

    from brokerd.config.trial import trial
    from brokerd.core.outcome import Done, Issued, Misconfigured, Rejected
    from brokerd.edge.secrets import SecretUnreadable
    from brokerd.trial import Trial

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
    from brokerd.config.tables import recipe_files
    from brokerd.installing import in_use

    return recipe_files(Path(in_use(configuration)[0]).parent / "recipes")


def _file(word: str, configuration: str | None) -> Path:
    """A recipe's file, by its path or its name."""
    if word.endswith(".toml") or "/" in word:
        return Path(word).absolute()
    files = _files(configuration)
    if word not in files:
        raise Failed(
            f"no recipe {plain(word)!r}; name a file that ends in .toml, or one of: {', '.join(sorted(files))}"
        )
    return files[word]


def _about(file: Path) -> str:
    """The first sentences of the comment that a recipe begins with, as far as its first line has them."""
    line = file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()
    return plain(line if line.endswith(".") else line.rpartition(". ")[0] + ".")


def _summary(recipe: Any) -> Iterator[str]:
    yield f"{recipe.name}: the recipe is right"
    yield f"credentials: {', '.join(recipe.credentials) or 'none: it begins with an import'}"
    yield f"settings: {', '.join((*recipe.settings, 'scope, audience, resource'))}"
    for operation in recipe.issue:
        yield f"issue: {_operation(operation)}"
    yield f"renew: {_operation(recipe.renew) if recipe.renew else 'none; credentials bring every token'}"
    for kind, operation in (("access", recipe.revoke_access), ("refresh", recipe.revoke_refresh)):
        both = ", and ends both" if operation and operation.ends_both else ""
        yield f"revoke {kind} token: {_operation(operation) + both if operation else 'none'}"
    yield f"an application sends: {recipe.present}"


def _operation(operation: Any) -> str:
    brings = [name for name in ("access_token", "refresh_token") if getattr(operation.answer, name) is not None]
    optional = sorted(operation.sends - operation.needs)
    words = f"{operation.method} {operation.path} with {', '.join(sorted(operation.needs)) or 'nothing'}"
    words += f" (and {', '.join(optional)})" if optional else ""
    if operation.key.startswith("revoke"):
        return words
    return f"{words} brings {' and '.join(brings)}" + (", and spends what it sends" if operation.spends else "")


def settings(words: list[str]) -> dict[str, Any]:
    """What --setting says, as a grant's table has it. Values are TOML where they can be read so, else text."""
    import tomli

    table: dict[str, object] = {}
    own: dict[str, object] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise Failed("expected --setting NAME=VALUE; a credential goes into the file of --credentials")
        try:
            value: object = tomli.loads(f"value = {text}")["value"]
        except tomli.TOMLDecodeError:
            value = text
        if name == "scope":
            value = value.split() if isinstance(value, str) else value
        (table if name in ("scope", "audience", "resource") else own)[name] = value
    return {**table, "settings": own}
