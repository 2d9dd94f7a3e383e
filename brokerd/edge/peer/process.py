# A process that a pidfd pins: whether it still lives, its cgroup and its executable. They are read again for each
# request if a rule names them. What was read from /proc/PID counts only if the pidfd says afterwards that the process
# lives.
from __future__ import annotations

import errno
import os
import select
from collections.abc import Mapping
from dataclasses import replace

import trio

from brokerd.core.access.cgroup_path import read_place
from brokerd.core.access.policy import PLACE, PROGRAM, Caller, Evidence
from brokerd.edge.peer import cgroups, executables, pidfds
from brokerd.edge.peer.executables import Executed, Program
from brokerd.edge.peer.known_processes import KnownProcess
from brokerd.edge.system.thread_limit import ThreadLimit

READ_WITHIN = 5.0  # seconds: an executable may lie on a file system that never answers
NOTHING = Program()
AT_ONCE = 2  # reads for one user at the same time, so that a user can delay only its own requests (law 13)
_limits: dict[int, ThreadLimit] = {}  # of each user


class PeerProcess:
    """A process and what is known about it. It owns the pidfd."""

    def __init__(self, caller: Caller, pidfd: int, known: KnownProcess | None = None) -> None:
        self.caller = caller
        self.pidfd = pidfd
        self.known = known or KnownProcess(caller.foreign)
        if self.known.executed is None:
            self.known.executed = Executed(caller.pid)
        self._executed = self.known.executed
        self._end = select.poll()
        self._end.register(pidfd, select.POLLIN)

    def lives(self) -> bool:
        return self.pidfd >= 0 and not self._end.poll(0)

    async def until_ended(self) -> None:
        await trio.lowlevel.wait_readable(self.pidfd)

    def close(self) -> None:
        """From now on it does not live for us: the descriptor's number may belong to another process at once."""
        os.close(self.pidfd)
        self.pidfd = -1

    def glance(self, needs: frozenset[str]) -> Caller | None:
        """The caller with the evidence `needs` as it is now; None if reading could block. Raises OSError if the process
        has ended."""
        if (now := self._now(needs)) is None:
            return None
        self._must_live()
        path, program = now
        last, known = self.known.glanced, self.caller
        if last is None or last[2] is not known or last[0] != path or last[1] != program:
            seen = replace(known, evidence=self._evidence(path, program, {}))
            self.known.glanced = last = path, program, known, seen
            self.known.looked = None
        return last[3]

    def still_shows(self, needs: frozenset[str], seen: Caller, batch: object) -> bool:
        """See core/ports.py."""
        known = self.known
        if (last := known.glanced) is None or last[3] is not seen:
            return False
        if known.looked != (batch, needs):
            if self._now(needs) != last[:2]:
                return False
            known.looked = batch, needs
        return True

    def _now(self, needs: frozenset[str]) -> tuple[str, Program] | None:
        """Cgroup and program, as far as they are needed; None: reading them could block."""
        if self.caller.pid <= 0:
            return None
        path, program = "", NOTHING
        if not needs.isdisjoint(PLACE) and not (path := cgroups.known(pidfds.cgroup_of(self.pidfd))):
            return None
        if not needs.isdisjoint(PROGRAM):
            if (found := self._executed.glance(hashed="sha256" in needs)) is None:
                return None
            program = found
        return path, program

    async def look(self, needs: frozenset[str]) -> Caller:
        """The caller with the evidence `needs` as it is now. Raises OSError if the process has ended."""
        unread, most = dict.fromkeys(needs, f"could not be read within {READ_WITHIN:g} s"), executables.LONGEST
        evidence = Evidence(unread=unread, hashed=most if "sha256" in needs else 0)  # the thread goes on reading
        cgroup, limit = pidfds.cgroup_of(self.pidfd), _limit(self.caller.uid)
        with trio.move_on_after(READ_WITHIN):
            evidence = await limit.run(lambda: self._read(cgroup, needs))
        self._must_live()
        return replace(self.caller, evidence=evidence)

    def _must_live(self) -> None:
        if not self.lives():
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))

    def _read(self, cgroup: int | None, needs: frozenset[str]) -> Evidence:
        if self.caller.pid <= 0:
            return Evidence(unread=dict.fromkeys(needs, "could not be read: brokerd cannot see its pid namespace"))
        path, program, unread = "", NOTHING, dict[str, str]()
        if needs & PLACE:
            try:
                path = cgroups.path_of(cgroup, self.caller.pid)
            except cgroups.CgroupUnreadable as error:
                unread = dict.fromkeys(PLACE, str(error))
        if needs & PROGRAM:
            program = executables.read(self.caller.pid, hashed="sha256" in needs)
        return self._evidence(path, program, unread)

    def _evidence(self, path: str, program: Program, unread: Mapping[str, str]) -> Evidence:
        """The evidence from a cgroup's path and a program. A unit of a user manager counts only if it is the caller's
        own."""
        place = read_place(path)
        return Evidence(
            exe=program.exe,
            sha256=program.sha256,
            unit=place.unit,
            slice=place.slice,
            user_unit=place.user_unit if place.manager == self.caller.uid else None,
            container=place.container,
            unread={**unread, **program.unread},
            hashed=program.hashed,
        )


def _limit(uid: int) -> ThreadLimit:
    if len(_limits) > 1_000:
        for each in [each for each, limit in _limits.items() if not limit.is_used]:
            del _limits[each]
    return _limits.setdefault(uid, ThreadLimit(AT_ONCE))
