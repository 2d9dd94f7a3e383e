# Checks helpers.toml(5), the machine's and the user's own: who can change and read it, what it says, and whether its
# grants are in the configuration.
from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from brokerd_client import helpers
from brokerd_client.helpers import HelpersError

from brokerd.core.file_remedies import change
from brokerd.doctor.context import Facts
from brokerd.doctor.finding import Finding, ok, problem, problem_from, warning

NAME = "helpers"
ADMIT = "every user's git, docker and pip look into it"


def credential_helpers(facts: Facts) -> Iterator[Finding]:
    for path in map(Path, helpers.files()):
        try:
            uses = helpers.read_uses((path,))
        except HelpersError as error:
            yield problem_from(NAME, " ".join(str(error).split()), "correct it: helpers.toml(5)")
            continue
        if not path.exists():
            continue
        known = None if facts.configuration is None else facts.configuration.grants
        strange = sorted({use.grant for use in uses} - set(known)) if known is not None else []
        for grant in strange:
            words = f"{path}: the grant {grant} is not in {facts.path}"
            yield problem(NAME, words, f"correct its name in {path}, or add the grant: brokerctl add --name {grant}")
        yield from _closed(path)
        if not strange:
            yield ok(NAME, f"{path}: addresses: {len(uses)}")


def _closed(path: Path) -> Iterator[Finding]:
    """The machine's file must be readable for those who are to use it."""
    if str(path) != helpers.SYSTEM:
        return
    for each, bit, command in ((path, stat.S_IROTH, "chmod o+r"), (path.parent, stat.S_IXOTH, "chmod o+x")):
        if not (mode := each.stat().st_mode) & bit:
            words = f"{path}: other users cannot read it, because of the mode of {each}; {ADMIT}"
            yield warning(NAME, words, change(command, str(each), mode, "allow it to those who need it"))
