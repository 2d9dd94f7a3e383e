# What the audit log finds wrong with itself while brokerd runs: lines that it writes about it, and which kind each is.
from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from brokerd.core.events import Event


class AuditFinding(StrEnum):
    CHANGED = "changed"  # somebody may have cut or changed it
    INCOMPLETE = "incomplete"  # brokerd ended in the middle of it
    LOST = "lost"  # entries could not be written, and there was no room to keep them


CUT, END_UNKNOWN = (
    "the audit log was cut or changed",
    "the store does not know where the audit log ended: it may have been cut",
)
TORN, UNSEALED = (
    "removed an incomplete last line",
    "found lines without a seal: brokerd was killed or locked, or another program wrote them",
)
ENTRIES_LOST = "entries were lost: the disk could not be written"
KINDS = {
    CUT: AuditFinding.CHANGED,
    END_UNKNOWN: AuditFinding.CHANGED,
    TORN: AuditFinding.INCOMPLETE,
    UNSEALED: AuditFinding.INCOMPLETE,
    ENTRIES_LOST: AuditFinding.LOST,
}
EVENTS = {
    AuditFinding.CHANGED: Event.AUDIT_CHANGED,
    AuditFinding.INCOMPLETE: Event.AUDIT_INCOMPLETE,
    AuditFinding.LOST: Event.AUDIT_LINES_LOST,
}
NUMBERS = ("lines", "bytes", "count", "found", "remembered", "up_to")  # of a finding, for the log


def numbers(entry: Mapping[str, object]) -> dict[str, object]:
    return {name: entry[name] for name in NUMBERS if entry.get(name) is not None}
