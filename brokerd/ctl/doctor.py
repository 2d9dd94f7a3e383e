# The doctor command: what it found as a line for each check, or as JSON; what it looks at is brokerd/doctor's matter.
from __future__ import annotations

from brokerd.ctl.terminal import called, plain, write

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace

    from brokerd.doctor import Finding

WIDTHS = (7, 13)  # columns of the longest level and the longest check


def doctor(arguments: Namespace) -> int:
    """Look, and say it. Ends with 0 where there is no problem. Root looks at a user's configuration as that user: it
    names commands, and files to read."""
    from pathlib import Path

    from brokerd.ctl.acting import as_owner_of
    from brokerd.installing import in_use

    return as_owner_of(Path(in_use(arguments.config)[0]), lambda: _look(arguments))


def _look(arguments: Namespace) -> int:
    import functools
    import json

    import trio

    from brokerd.ctl import own_socket
    from brokerd.doctor import examine, exit_code
    from brokerd.installing import in_use, state_in_use

    found: list[Finding] = []

    def tell(finding: Finding) -> None:
        found.append(finding)
        if not arguments.json:
            write(_line(finding))

    named = arguments.config is not None
    path, environ = in_use(arguments.config)
    state = state_in_use(arguments.state_dir, None) if arguments.state_dir else None
    socket = arguments.socket or (None if named else own_socket())
    look = functools.partial(examine, path, socket, tell, offline=arguments.offline)
    trio.run(functools.partial(look, state=state, named=named, environ=environ))
    if arguments.json:
        write(json.dumps({"findings": [each.as_map() for each in found]}))
    return exit_code(found)


def _line(finding: Finding) -> str:
    level, check = str(finding.level).ljust(WIDTHS[0]), finding.check.ljust(WIDTHS[1])
    about = f"{finding.about}: " if finding.about else ""
    remedy = f"; {called(finding.remedy)}" if finding.remedy else ""
    return plain(f"{level}  {check}  {about}{finding.found}{remedy}")
