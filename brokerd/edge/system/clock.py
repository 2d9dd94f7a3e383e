# The system's two clocks (law 8), and whether the wall clock can be trusted.
from __future__ import annotations

import ctypes
import time
from pathlib import Path

from brokerd.core.timing.duration import in_words
from brokerd.core.timing.moment import Moment

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
TIMESYNC = Path("/run/systemd/timesync")
STA_UNSYNC = 0x0040  # adjtimex(2): the clock is unsynchronised
LOOK_AGAIN = 10.0  # seconds between two checks whether the clock is synchronised


class SystemClock:
    """The Clock port. `floor` is the newest wall time in the store: a clock behind it is wrong (law 8)."""

    def __init__(self) -> None:
        self.floor = 0.0
        self._boot_id = BOOT_ID.read_text().strip()
        self._looked = float("-inf")
        self._synchronised = True

    def now(self) -> Moment:
        wall, boot = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
        if boot - self._looked > LOOK_AGAIN:
            self._looked, self._synchronised = boot, synchronised()
        # Every get comes here, and Moment's own __new__ is Python.
        return tuple.__new__(Moment, (wall, boot, self._boot_id, self._synchronised and wall >= self.floor))


def lasting(since: float, now: float) -> str:
    """How long something has lasted, relative and absolute: "for 4 min, since 19:11:40"."""
    day, today = (time.strftime("%Y-%m-%d ", time.localtime(each)) for each in (since, now))
    at = time.strftime("%H:%M:%S", time.localtime(since))
    return f"for {in_words(now - since)}, since {'' if day == today else day}{at}"


def synchronised() -> bool:
    """Whether the system says that its clock is synchronised. If the kernel cannot be asked (ProtectClock= of systemd),
    the marker file of systemd-timesyncd decides. Without that too, the answer is true, and only the floor decides."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        buffer = (ctypes.c_long * 64)()  # struct timex; modes = 0: only read
        if libc.adjtimex(ctypes.byref(buffer)) < 0:
            return marked(TIMESYNC)
    except (OSError, AttributeError):
        return marked(TIMESYNC)
    status = ctypes.cast(buffer, ctypes.POINTER(ctypes.c_int))[STATUS_INDEX]
    return not status & STA_UNSYNC


def marked(folder: Path) -> bool:
    """What systemd-timesyncd says in its runtime directory; true if it does not run."""
    return not folder.is_dir() or (folder / "synchronized").exists()


# The position of `status` if struct timex is read as an array of int: int modes, padding, long offset, freq, maxerror,
# esterror, int status.
STATUS_INDEX = (5 * ctypes.sizeof(ctypes.c_long)) // ctypes.sizeof(ctypes.c_int)
