# Which grants brokerd has now: those of the configuration by name, and those that left it while something of theirs was
# under way or not stored. Of one record there is never a second LiveGrant: the two would not know of each other.
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from brokerd.broker.live_grant import LiveGrant


class GrantRegistry:
    """`grants`: what is configured, by name; only this class changes it."""

    def __init__(self) -> None:
        self.grants: Mapping[str, LiveGrant] = {}
        self._leaving: dict[tuple[str, str], LiveGrant] = {}
        self._kept: Counter[LiveGrant] = Counter()
        self._readers = 0

    def holds(self, grant: LiveGrant) -> bool:
        """Whether it is configured still. A reload may have replaced it by another one of the same name."""
        return self.grants.get(grant.name) is grant

    def find(self, name: str, fingerprint: str) -> LiveGrant | None:
        """The grant whose record this is, configured or leaving."""
        grant = self.grants.get(name)
        return grant if grant and grant.fingerprint == fingerprint else self._leaving.get((name, fingerprint))

    def all(self) -> Iterator[LiveGrant]:
        """The configured grants and those that leave."""
        yield from self.grants.values()
        yield from self._leaving.values()

    def replace(self, grants: Mapping[str, LiveGrant]) -> None:
        """From now on these are configured. Of the others, the busy ones are kept until they are done."""
        before, self.grants = self.grants, grants
        for grant in before.values():
            if not self.holds(grant) and self._is_needed(grant):
                self._leaving[grant.name, grant.fingerprint] = grant

    def replace_one(self, grant: LiveGrant) -> None:
        """The same for the grant of that name alone."""
        self.replace({**self.grants, grant.name: grant})

    def take_back(self, name: str, fingerprint: str) -> LiveGrant | None:
        """A grant that is configured again before it was done (law 1). It has to be part of the next
        `replace`."""
        return self._leaving.pop((name, fingerprint), None)

    def release(self, grant: LiveGrant) -> None:
        """Forget a grant that left, if it is done."""
        place = grant.name, grant.fingerprint
        if self._leaving.get(place) is grant and not self._is_needed(grant):
            del self._leaving[place]

    def _is_needed(self, grant: LiveGrant) -> bool:
        return grant.is_busy or grant in self._kept or self._readers > 0

    def keep(self, grant: LiveGrant) -> None:
        """Until `let_go`, the grant is not forgotten if it leaves: somebody will change it later."""
        self._kept[grant] += 1

    def let_go(self, grant: LiveGrant) -> None:
        self._kept[grant] -= 1
        if not self._kept[grant]:
            del self._kept[grant]
        self.release(grant)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While records are read from the store and grants are made from them. No grant that leaves is forgotten then:
        it may change its record after that was read."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            for grant in tuple(self._leaving.values()):
                self.release(grant)

    def may_use(self, name: str, fingerprint: str) -> bool:
        """Whether a grant uses that record, or may do so soon because records are being read."""
        return self._readers > 0 or any((each.name, each.fingerprint) == (name, fingerprint) for each in self.all())

    def empty(self) -> Mapping[str, LiveGrant]:
        """Nothing is configured any more, and everything that was leaves. Returns what was configured."""
        before, self.grants = self.grants, {}
        self._leaving.update({(grant.name, grant.fingerprint): grant for grant in before.values()})
        return before

    def restore(self, grants: Mapping[str, LiveGrant]) -> None:
        """Undo `empty`."""
        self.grants = grants
        for grant in grants.values():
            self._leaving.pop((grant.name, grant.fingerprint), None)

    def forget_leaving(self) -> None:
        self._leaving.clear()
