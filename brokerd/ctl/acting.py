# A command that root gives and that reads what is a user's: it runs as that user, in a process of its own
# (edge/acting.py), and ends here as if it had run here.
from __future__ import annotations

from brokerd.ctl.terminal import Failed, plain

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OUR_BUG, INTERRUPTED, BROKEN_PIPE = 1, 130, 141  # as ctl/__init__.py has them


def as_owner_of(path: Path, work: Callable[[], int], *, is_state: bool = False, make: bool = False) -> int:
    """The exit code of `work`. For root it runs as the user who decides what is found at the path, if there is one.
    `is_state`: the path is a state directory, where a group decides nothing either. Raises Failed, OSError."""
    import os
    from pathlib import Path

    from brokerd.edge.accounts import numbered
    from brokerd.edge.acting import GROUP_AND_OTHERS, OTHERS, NotOnes, act_as, owner_of

    if os.geteuid() != 0:
        return work()
    try:
        owner = owner_of(path, writable=GROUP_AND_OTHERS if is_state else OTHERS, make=make)
    except NotOnes as error:
        raise Failed(plain(str(error))) from None
    if owner is None:
        return work()
    user = numbered(owner.uid)
    if any(user.finds_closed(Path(program)) for program in (__file__, os.__file__)):
        _import_everything()
    code: int
    code, words = act_as(owner, lambda: _ended(work))
    if words:
        raise Failed(words, code)
    return code


def _import_everything() -> None:
    """What lies where the user cannot read it, as in root's home, cannot be imported later."""
    import importlib
    import pkgutil

    import brokerd

    for found in pkgutil.walk_packages(brokerd.__path__, "brokerd."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)


def _ended(work: Callable[[], int]) -> tuple[int, str]:
    """The exit code, and what is still to be complained of."""
    try:
        return work(), ""
    except Failed as failed:
        return failed.code, str(failed)
    except BrokenPipeError:
        return BROKEN_PIPE, ""
    except KeyboardInterrupt:
        return INTERRUPTED, ""
    except OSError as error:
        return OUR_BUG, f"the system refused: {error.strerror or type(error).__name__}; mend that and try again"
    except Exception as error:
        return OUR_BUG, f"a fault of brokerctl's own: {type(error).__name__}; please report it"
