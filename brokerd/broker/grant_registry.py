# Which grants brokerd has now: those of the configuration by name, and those that left it while something of theirs was
# under way or not stored.
from __future__ import annotations

from collections.abc import Iterator, Mapping

from brokerd.broker.live_grant import LiveGrant


class GrantRegistry:
    """`grants`: what is configured, by name; only this class changes it."""

    def __init__(self) -> None:
        self.grants: Mapping[str, LiveGrant] = {}
        self._leaving: dict[tuple[str, str], LiveGrant] = {}

    def holds(self, grant: LiveGrant) -> bool:
        """Whether it is configured still. A reload may have replaced it by another one of the same name."""
        return self.grants.get(grant.name) is grant

    def all(self) -> Iterator[LiveGrant]:
        """The configured grants and those that leave."""
        yield from self.grants.values()
        yield from self._leaving.values()

    def replace(self, grants: Mapping[str, LiveGrant]) -> None:
        """From now on these are configured. Of the others, the busy ones are kept until they are done."""
        before, self.grants = self.grants, grants
        for grant in before.values():
            if not self.holds(grant) and grant.is_busy:
                self._leaving[grant.name, grant.fingerprint] = grant

    def replace_one(self, grant: LiveGrant) -> None:
        """The same for the grant of that name alone."""
        self.replace({**self.grants, grant.name: grant})

    def take_back(self, name: str, fingerprint: str) -> LiveGrant | None:
        """A grant that is configured again before its last exchange ended (law 1). It has to be part of the next
        `replace`."""
        return self._leaving.pop((name, fingerprint), None)

    def release(self, grant: LiveGrant) -> None:
        """Forget a grant that left, if it is done."""
        if not grant.is_busy:
            self._leaving.pop((grant.name, grant.fingerprint), None)

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
