# Reads FILE.toml and finds all mistakes in it and in what it names: folders, groups, and who may change the file
# itself, which names commands.
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from brokerd.config.errors import Errors
from brokerd.config.token_files import TokenFile, read
from brokerd.config.toml_files import refuse_open
from brokerd.core.validation import ConfigError, as_one
from brokerd.edge.files import replaced_file
from brokerd.edge.files.as_owner import OwnerUnclear, owner_of


def checked(path: Path) -> Sequence[TokenFile]:
    """The files. Raises ConfigError, with all mistakes."""
    _refuse_foreign(path)
    files, found = read(path)
    errors = Errors()
    errors += [*found, *(each.within("", str(path)) for each in _mistakes(files))]
    if errors:
        raise as_one(errors)
    return files


def warnings(path: Path, files: Sequence[TokenFile]) -> Iterator[ConfigError]:
    """What may be right later."""
    for file in files:
        if not file.path.parent.exists():
            words = f"the folder {file.path.parent} does not exist now; the file is written as soon as it does"
            yield ConfigError(words, key=f"{file.key}.path", file=str(path))
        command = file.on_change.command if file.on_change is not None else ()
        if command and not os.access(command[0], os.X_OK):
            words = f"there is no program {command[0]} that this user may run; install it, or correct the path"
            yield ConfigError(words, key=f"{file.key}.on_change", file=str(path))


def _refuse_foreign(path: Path) -> None:
    """Raises ConfigError if somebody else decides what is in the file: commands in it run as this user."""
    try:
        owner = owner_of(path)
        if path.exists():
            refuse_open(path)
    except OwnerUnclear as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=str(path)) from None
    if owner is not None and owner.uid != os.geteuid():
        words = f"belongs to the user {owner.uid}, and its commands would run as {os.geteuid()}; run this as its owner"
        raise ConfigError(words, file=str(path))


def _mistakes(files: Sequence[TokenFile]) -> Iterator[ConfigError]:
    faults: dict[Path, str | None] = {}
    for file in files:
        folder = file.path.parent
        if folder not in faults:
            try:
                faults[folder] = replaced_file.fault_of_folder(folder)
            except OSError as error:
                faults[folder] = f"{folder}: {error.strerror}; name another folder, or let this user enter it"
        if (fault := faults[folder]) is not None:
            yield ConfigError(fault, key=f"{file.key}.path")
        if file.path.is_dir() and not file.path.is_symlink():
            yield ConfigError(f"{file.path} is a folder; name a file in it", key=f"{file.key}.path")
        if file.group is not None:
            try:
                gid = replaced_file.gid_of(file.group)
            except OSError as error:
                yield ConfigError(str(error), key=f"{file.key}.group")
            else:
                if os.geteuid() and gid not in (*os.getgroups(), os.getegid()):
                    words = (
                        f"this user is not in the group {file.group}, and cannot give it the file; add the user to it"
                    )
                    yield ConfigError(words, key=f"{file.key}.group")
