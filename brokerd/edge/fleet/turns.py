# Which hosts of the fleet are there, and how long this one leaves a grant that is due to those before it.
from __future__ import annotations

from brokerd.core.fleet.layout import RecordPlace
from brokerd.core.fleet.renewers import Renewers
from brokerd.edge.fleet.shared import Shared


class RenewalTurns:
    """`hosts`: those whose lease lives."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.hosts: list[str] = []
        self._renewers: Renewers | None = None  # made when it is needed
        self._due: dict[RecordPlace, tuple[int, float]] = {}  # the revision of a record, and since when it is due

    def note_members(self) -> None:
        """A host has come or gone."""
        kinds = map(self._shared.keys.kind, self._shared.mirror.pairs)
        self.hosts = [names[0] for kind, names in kinds if kind == "member"]
        self._renewers = None

    def first(self, grant: str) -> str | None:
        """The host that renews the grant by itself."""
        return self._made().first(grant)

    def patience(self, place: RecordPlace, revision: int, left: float | None) -> float:
        """Seconds that the others are still left; 0 or less: begin. `left`: how long the token lives."""
        now, known = self._shared.clock.now().boot, self._due.get(place)
        if known is None or known[0] != revision:
            self._due[place] = known = revision, now
        return known[1] - now + self._made().patience(place.grant, self._shared.me.host, left)

    def _made(self) -> Renewers:
        if self._renewers is None:
            self._renewers = Renewers(self.hosts)
        return self._renewers
