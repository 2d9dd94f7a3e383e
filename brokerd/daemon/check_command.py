# `brokerd --check`: prints what is wrong with the configuration and with what it names, and ends with 0 or 2.
from __future__ import annotations

import sys
from pathlib import Path

from brokerd.core.validation import ConfigError
from brokerd.setup.check import check_configuration, in_order, located, warnings
from brokerd.setup.installation import EXIT_CONFIGURATION


def check(path: str) -> int:
    """The exit code. Root checks as the user who owns the configuration: root alone might be able to read a file that
    the configuration names and that belongs to somebody else."""
    from brokerd.ctl.as_owner import as_owner_of
    from brokerd.ctl.terminal import Failed

    try:
        return as_owner_of(Path(path), lambda: _check(path))
    except FileNotFoundError:
        return _check(path)  # which says that the file is missing
    except Failed as failed:
        _complain(str(failed))
        return EXIT_CONFIGURATION


def _check(path: str) -> int:
    summary: str | None = None
    errors: list[ConfigError] = []
    try:
        summary = check_configuration(path)
    except ConfigError as error:
        errors = [error, *error.others]
    for each in in_order(errors):
        _complain(located(each))
    for each in warnings(path):
        _complain(f"warning: {located(each)}")
    if summary is not None:
        print(summary)  # noqa: T201 - it is what the command is for
    return EXIT_CONFIGURATION if errors else 0


def _complain(words: str) -> None:
    print(f"brokerd: {words}", file=sys.stderr)  # noqa: T201 - it is what the command is for
