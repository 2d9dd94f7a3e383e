# The tokens of grants as credentials of other grants: waits for them, says which grant has none, and lets a grant that
# went without one try again as soon as it is there. config/grants.py makes sure that no grant waits for itself.
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from brokerd.broker.exchanges import SecretsUnreadable
from brokerd.broker.grant_registry import GrantRegistry
from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.waiting import TokenWait
from brokerd.core.errors import Failure
from brokerd.core.grant import attempts
from brokerd.core.grant.tokens import AccessToken
from brokerd.core.ports import Clock
from brokerd.core.secret import Secret, SecretSource

WAIT = 30.0  # seconds for which an exchange waits for another grant's token; it sends nothing meanwhile
Watch = Callable[[str, Callable[[str], None]], None]


@dataclass(eq=False, repr=False)
class GrantTokens:
    """The rights of callers play no part: the configuration says which grant uses which. `_why_not`: why a grant has no
    token; `_look_again`: plans a grant's next exchange."""

    _registry: GrantRegistry
    _waiting: TokenWait
    _clock: Clock
    _why_not: Callable[[LiveGrant], Failure]
    _watch: Watch
    _unwatch: Watch
    _look_again: Callable[[LiveGrant], None]
    # By the grant that had no token: the grants that went without, and what each was told.
    _without: dict[str, dict[str, str]] = field(default_factory=dict)

    async def read(self, grant: LiveGrant, refused: Mapping[str, Secret]) -> dict[str, Secret]:
        """The credentials that are tokens of other grants. A token that was `refused` is replaced first, as often as a
        caller may have it replaced. Raises SecretsUnreadable."""
        found = {}
        for name, source in grant.settings.credentials.items():
            if source.grant is None:
                continue
            value = self._value(source)
            if value is None or value == refused.get(name):
                if (other := self._registry.grants.get(source.grant)) is not None:
                    await self._waiting.wait_for(other, WAIT)
                value = self._value(source)
            if value is None:
                raise SecretsUnreadable(self._missing(grant, source.grant, source.field), will_pass=True)
            found[name] = value
        return found

    def live(self, grant: LiveGrant) -> bool:
        """Whether each grant whose token this one is got with still has one: it may have been revoked since."""
        sources = grant.settings.credentials.values()
        return all(source.grant is None or self._served(source.grant) is not None for source in sources)

    def _value(self, source: SecretSource) -> Secret | None:
        if (token := self._served(source.grant or "")) is None:
            return None
        return token.value if source.field is None else token.fields.get(source.field)

    def _served(self, name: str) -> AccessToken | None:
        grant = self._registry.grants.get(name)
        return None if grant is None else grant.serves(self._clock.now())

    def _missing(self, grant: LiveGrant, name: str, field: str | None) -> str:
        """Why there is none. The grant is remembered, to be told when there is one."""
        other = self._registry.grants.get(name)
        if self._served(name) is not None:  # its token is older than the configuration that names the field
            words = f"it is got with {field} of the token of the grant {name}, which has no such field yet"
            words += f"; to get it at once: brokerctl refresh {name}"
        else:
            why = str(self._why_not(other)) if other else "it is not there any more"
            words = f"it is got with the token of the grant {name}, which has none now: {why}"
        if name not in self._without:
            self._watch(name, self._look)
        self._without.setdefault(name, {})[grant.name] = words
        return words

    def _look(self, name: str) -> None:
        """The grant of that name has changed. If it has a token now, those that went without wait no longer."""
        if self._served(name) is None:
            return
        self._unwatch(name, self._look)
        for waiting, told in self._without.pop(name, {}).items():
            grant = self._registry.grants.get(waiting)
            if grant is not None and grant.running is None and grant.record.last_error == told:
                grant.record = attempts.postponed(grant.record, self._clock.now(), 0.0)
                self._look_again(grant)
