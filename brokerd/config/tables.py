# The TOML files: read, their tables put together, each with the file that it came from, for errors.
from __future__ import annotations

import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import tomli

from brokerd.config.errors import Errors
from brokerd.core.policy import LONGEST_NAME
from brokerd.core.remedy import change
from brokerd.core.typed import ConfigError, convert, expected
from brokerd.dialects.recipe_file import Recipe, read_recipe

DEFAULT_CONFIG = "/etc/brokerd/brokerd.toml"
MISSING = "there is no such file; name one with --config FILE, or make one: brokerctl add"
BUILT_IN_RECIPES = Path(__file__).parent.parent / "dialects" / "recipes"
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}")


class Within:
    """Adds file and key to every ConfigError raised inside."""

    def __init__(self, file: Path, key: str) -> None:
        self._file, self._key = file, key

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, ConfigError):
            raise error.within(self._key, str(self._file)) from None


class Tables:
    """All files' tables, each with the file that it came from. A name stands in one file only."""

    def __init__(self) -> None:
        self.daemon: list[tuple[Path, Any]] = []
        self.named: dict[str, dict[str, tuple[Path, Any]]] = {"providers": {}, "grants": {}}
        self.allow: list[tuple[Path, int, Any]] = []
        self.exposed: dict[Path, ConfigError] = {}  # files that everybody can read, and why that may be a mistake

    def take(self, file: Path, errors: Errors) -> Path:
        """The file's tables; mistakes in one of them are kept in `errors`. Raises ConfigError for the whole file."""
        raw = read_toml(file, MISSING)
        refuse_open(file)
        if exposed := exposure(file):
            self.exposed[file] = exposed
        for key in raw:
            if key not in ("daemon", "providers", "grants", "allow"):
                words = "unknown table; known: [daemon], [providers.…], [grants.…], [[allow]]"
                errors.append(ConfigError(words, key=key, file=str(file)))
        if "daemon" in raw:
            self.daemon.append((file, raw["daemon"]))
        for kind in self.named:
            tables = errors.tried(file, kind, raw.get(kind, {}), lambda raw: convert(raw, dict[str, Any]))
            for name, table in (tables or {}).items():
                self._take_named(file, kind, name, table, errors)
        rules = errors.tried(file, "allow", raw.get("allow", []), lambda raw: convert(raw, list[Any]))
        self.allow += [(file, n, each) for n, each in enumerate(rules or [])]
        return file

    def _take_named(self, file: Path, kind: str, name: str, table: Any, errors: Errors) -> None:
        taken = self.named[kind]
        if not NAME.fullmatch(name):
            words = "a name of up to 128 letters, digits, dots, dashes and underscores"
            errors.append(expected(words, name, key=kind).within("", str(file)))
        elif name in taken:
            words = f"stands in {taken[name][0]} too; keep one of them"
            errors.append(ConfigError(words, key=f"{kind}.{name}", file=str(file)))
        else:
            taken[name] = (file, table)


def drop_ins(main: Path) -> list[Path]:
    """The files of conf.d beside the main file. One that may not be looked into is an error: what stands there would
    vanish, and its grants with it."""
    folder = main.parent / "conf.d"
    try:
        return sorted(each for each in folder.iterdir() if each.name.endswith(".toml"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}{_closed(error)}", file=str(folder)) from None


class Recipes:
    """Recipes by name, each read once."""

    def __init__(self, own: Path) -> None:
        self._files = recipe_files(own)
        self._read: dict[str, Recipe] = {}

    def get(self, name: str) -> Recipe:
        if name not in self._files:
            raise expected(f"one of {', '.join(('oauth2', *sorted(self._files)))}", name, key="dialect")
        return self._read.get(name) or self._read.setdefault(name, load_recipe(self._files[name]))


def recipe_files(own: Path) -> dict[str, Path]:
    """Recipes by name: the operator's own, in `own`, win over those that come with brokerd."""
    found = sorted(BUILT_IN_RECIPES.glob("*.toml"))
    with suppress(OSError):  # a folder that may not be looked into
        found += sorted(own.glob("*.toml"))
    return {file.stem: file for file in found}


def load_recipe(file: Path) -> Recipe:
    """One recipe. Raises ConfigError."""
    with Within(file, ""):
        if not NAME.fullmatch(file.stem):
            words = "the file's name is the recipe's: letters, digits, dots, dashes and underscores, and .toml"
            raise ConfigError(words)
        raw = read_toml(file)
        refuse_open(file)
        return read_recipe(file.stem, raw)


def is_there(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # too long a name, or a folder that may not be looked into
        return False


def exposure(file: Path) -> ConfigError | None:
    """What is wrong where a secret stands in that file itself; None where not everybody can read it."""
    mode = file.stat().st_mode
    if not mode & stat.S_IROTH:
        return None
    remedy = change("chmod o-r", str(file.resolve()), mode, "write the secret to a file of its own: { file = PATH }")
    return ConfigError(f"a secret stands in a file that everybody can read; {remedy}")


def refuse_open(file: Path) -> None:
    """Raises ConfigError where everybody on this machine could write the file, or put others beside it: what stands
    there is believed, and run. A folder like /tmp is no better: whoever comes first makes conf.d in it."""
    for path in (file, file.parent):
        if (mode := path.stat().st_mode) & stat.S_IWOTH:
            instead = "put it into a directory that only its owner can change"
            remedy = change("chmod o-w", str(path.resolve()), mode, instead)
            raise ConfigError(f"{path} can be written by everybody on this machine; {remedy}", file=str(file))


def _closed(error: OSError) -> str:
    return "; be root or the user that brokerd runs as" if isinstance(error, PermissionError) else ""


def read_toml(file: Path, missing: str = "there is no such file; name one that is there") -> dict[str, Any]:
    """The tables of a file; `missing` is what is said where it is not there. Raises ConfigError."""
    try:
        return tomli.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(missing, file=str(file)) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}{_closed(error)}", file=str(file)) from None
    except (tomli.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"this is not TOML: {error}", file=str(file)) from None
    except ValueError:  # Python's own limit, whose text speaks to programmers
        raise ConfigError("this is not TOML: a number has thousands of digits", file=str(file)) from None
