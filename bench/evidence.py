# What evidence costs: the same gets from a daemon whose rule names everything that is read of a caller, and that writes
# an audit log, and from one that goes by the user alone and writes none, in turns.
from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.fetches import Row, side_by_side
from bench.processes import Daemon, Failed, Generator, brokerd, generator

UID = 60_903  # of the load: root and brokerd's own user need no rule,
UNLIMITED = {"max_rate_per_user": 1e6}  # and are not slowed


def evidence(folder: Path, grants: str, grant: str, rounds: int, seconds: float) -> Iterator[Row]:
    """A row for each load: subject with evidence, yardstick without. Needs root. Raises Failed."""
    with ExitStack() as stack:
        load = stack.enter_context(generator(UID))
        unit = stack.enter_context(unit_of(load))
        exe = Path(sys.executable).resolve()
        digest = hashlib.sha256(exe.read_bytes()).hexdigest()
        whole = f'{{ uid = {UID}, exe = "{exe}", sha256 = "{digest}", unit = "{unit}" }}'
        daemons: list[Daemon] = []
        for choice, caller in (("serve", whole), ("off", f"{{ uid = {UID} }}")):
            (folder / choice).mkdir(mode=0o711)
            rule = f'\n[[allow]]\ngrants = ["{grant}"]\ncaller = {caller}\n'
            daemons.append(stack.enter_context(brokerd(folder / choice, grants + rule, audit=choice, **UNLIMITED)))
        rows = side_by_side(load, daemons, grant, rounds, seconds)
    yield from rows


@contextlib.contextmanager
def unit_of(load: Generator) -> Iterator[str]:
    """The name of a unit that the load is put into, as systemd would. Raises Failed."""
    mounts = (line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines())
    where = next((Path(at) for at, kind in mounts if kind == "cgroup2"), None)
    if where is None:
        raise Failed("no cgroup file system of version 2")
    made = where / f"brokerd-bench-{os.getpid()}.service"
    made.mkdir()
    try:
        (made / "cgroup.procs").write_text(str(load.pid))
        yield made.name
        (where / "cgroup.procs").write_text(str(load.pid))
    finally:
        made.rmdir()
