# The doctor command: prints one line for each check, or JSON. brokerd/doctor does the checks.
from __future__ import annotations

import functools
from argparse import Namespace
from pathlib import Path

import trio

from brokerd.ctl import own_socket
from brokerd.ctl.as_owner import as_owner_of
from brokerd.ctl.terminal import called, plain, write, write_json
from brokerd.doctor import examine
from brokerd.doctor.finding import Finding, exit_code
from brokerd.setup.layout import in_use, state_in_use

WIDTHS = (7, 13)  # columns of the longest level and the longest check


def doctor(arguments: Namespace) -> int:
    """Check, and print what was found. Ends with 0 if there is no problem. A configuration names commands and files, so
    as root a user's configuration is checked as that user."""
    return as_owner_of(Path(in_use(arguments.config)[0]), lambda: _look(arguments))


def _look(arguments: Namespace) -> int:
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
        write_json({"findings": [each.as_map() for each in found]})
    return exit_code(found)


def _line(finding: Finding) -> str:
    level, check = str(finding.level).ljust(WIDTHS[0]), finding.check.ljust(WIDTHS[1])
    about = f"{finding.about}: " if finding.about else ""
    remedy = f"; {called(finding.remedy)}" if finding.remedy else ""
    return plain(f"{level}  {check}  {about}{finding.found}{remedy}")
