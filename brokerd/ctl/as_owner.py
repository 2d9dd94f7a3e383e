# When root runs a command that reads a user's files, the command runs as that user, in a process of its own
# (edge/files/as_owner.py). Its exit code and its error are those of the process.
from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable
from pathlib import Path

import brokerd
from brokerd.ctl import ended
from brokerd.ctl.terminal import Failed, plain
from brokerd.edge.files.as_owner import GROUP_AND_OTHERS, OTHERS, OwnerUnclear, act_as, owner_of
from brokerd.edge.peer.accounts import account_of


def as_owner_of(path: Path, work: Callable[[], int], *, is_state: bool = False, make: bool = False) -> int:
    """Runs `work` and returns its exit code. As root, it runs as the user who controls what is at the path, if there is
    one. `is_state`: it is a state directory, which no group may control either. Raises Failed, OSError."""
    if os.geteuid() != 0:
        return work()
    try:
        owner = owner_of(path, writable=GROUP_AND_OTHERS if is_state else OTHERS, make=make)
    except OwnerUnclear as error:
        raise Failed(plain(str(error))) from None
    if owner is None:
        return work()
    user = account_of(owner.uid)
    if any(user.first_closed(Path(program)) for program in (__file__, os.__file__)):
        _import_everything()
    code: int
    code, words = act_as(owner, lambda: ended(work))
    if words:
        raise Failed(words, code)
    return code


def _import_everything() -> None:
    """Import now what that user could not read later, such as files in root's home."""
    for found in pkgutil.walk_packages(brokerd.__path__, "brokerd."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
