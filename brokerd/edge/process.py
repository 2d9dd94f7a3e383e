# What a process is, pinned by a pidfd: its cgroup and executable, read anew whenever a rule names them, and whether it
# still lives. /proc/PID is that process's own as long as the pidfd says so afterwards.
from __future__ import annotations

import errno
import os
import select
from dataclasses import replace
from pathlib import Path

import trio

from brokerd.core.cgroup import Place, read_place
from brokerd.core.policy import PLACE, Caller, Evidence
from brokerd.edge import cgroups, executables

READ_WITHIN = 5.0  # seconds for looking at a process: its executable may lie on a file system that never answers
AT_ONCE = 2  # looks at the processes of one user: he can hold up nobody else (law 13)
_limiters: dict[int, trio.CapacityLimiter] = {}


class Process:
    """A process and what is known of it. Closes the pidfd with itself."""

    def __init__(self, caller: Caller, pidfd: int) -> None:
        self.caller = caller
        self.pidfd = pidfd
        self._glanced: tuple[int, Caller | None] = (0, None)  # the last cgroup, and the caller in it
        self._end = select.poll()
        self._end.register(pidfd, select.POLLIN)

    def lives(self) -> bool:
        return not self._end.poll(0)

    def close(self) -> None:
        os.close(self.pidfd)

    def glance(self, needs: frozenset[str]) -> Caller | None:
        """The caller with that evidence as it is now; None where reading it could block. Raises OSError: it is gone."""
        if not needs <= PLACE or (cgroup := cgroups.id_of(self.pidfd)) is None:
            return None
        if cgroup != self._glanced[0]:  # an id is one folder's for ever
            if (path := cgroups.known(cgroup)) is None:
                return None
            self._glanced = cgroup, self._seen(self._placed(read_place(path)))
        return self._glanced[1]

    async def look(self, needs: frozenset[str]) -> Caller:
        """The caller with that evidence as it is now. Raises OSError: it is gone."""
        evidence = Evidence(unread=dict.fromkeys(needs, f"could not be read within {READ_WITHIN:g} s"))
        cgroup, limiter = cgroups.id_of(self.pidfd), _limiter(self.caller.uid)
        with trio.move_on_after(READ_WITHIN):
            evidence = await trio.to_thread.run_sync(self._read, cgroup, needs, limiter=limiter, abandon_on_cancel=True)
        return self._seen(evidence)

    def _seen(self, evidence: Evidence) -> Caller:
        if not self.lives():
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        return replace(self.caller, evidence=evidence)

    def _read(self, cgroup: int | None, needs: frozenset[str]) -> Evidence:
        if self.caller.pid <= 0:
            return Evidence(unread=dict.fromkeys(needs, "could not be read: brokerd cannot see its pid namespace"))
        found = Evidence()
        if needs & PLACE:
            try:
                found = self._placed(read_place(cgroups.path_of(cgroup, self.caller.pid)))
            except cgroups.Unread as error:
                found = Evidence(unread=dict.fromkeys(PLACE, str(error)))
        if wanted := needs - PLACE:
            exe, sha256, unread = executables.read(self.caller.pid, hashed="sha256" in wanted)
            found = replace(found, exe=exe, sha256=sha256, unread={**found.unread, **unread})
        return found

    def _placed(self, place: Place) -> Evidence:
        own = place.manager == self.caller.uid  # in another user's manager only root can have put it
        return Evidence(
            unit=place.unit, slice=place.slice, container=place.container, user_unit=place.user_unit if own else None
        )


def is_foreign(pidfd: int) -> bool:
    """Whether it lives in another pid namespace: the kernel names a number for each that it has (proc(5), fdinfo of a
    pidfd). Raises OSError where it is gone."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines())
    if int(fields["Pid"]) < 0:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return int(fields["Pid"]) == 0 or len(fields["NSpid"].split()) != 1


def _limiter(uid: int) -> trio.CapacityLimiter:
    if len(_limiters) > 1_000:
        for each in [each for each, limiter in _limiters.items() if not limiter.borrowed_tokens]:
            del _limiters[each]
    return _limiters.setdefault(uid, trio.CapacityLimiter(AT_ONCE))
