# The Fleet port without etcd: two hosts as a test wants them, for what people and programs are shown of a fleet.
from __future__ import annotations

from dataclasses import dataclass, field, replace

from brokerd.core.fleet.view import Claim, EtcdState, FleetNumbers, FleetView, Member, OpenExchange

SINCE = 1_700_000_000.0
WELL = EtcdState("https://10.0.0.1:2379", True, SINCE, None, False, 41, 0xCDF818194E3A8C32, True)
AWAY = replace(WELL, reachable=False, trouble="https://10.0.0.1:2379: connection refused")
MEMBERS = (
    Member("web-1", "0.9.0", 4, SINCE, True),
    Member("web-2", "0.8.0", 3, SINCE + 60, False, clock=-12.0),
)


@dataclass
class FleetOfTwo:
    """`renewers`: which host renews which grant."""

    etcd: EtcdState = WELL
    renewers: dict[str, str] = field(default_factory=lambda: {"app": "web-2"})
    fleet_name: str = "prod"
    host: str = "web-1"

    async def fleet(self) -> FleetView:
        claims = (Claim("app", "web-2", SINCE + 90),)
        lost = (OpenExchange("app", "web-2", SINCE + 90, True), OpenExchange("old", "web-3", SINCE, False))
        return FleetView(self.fleet_name, self.host, self.etcd, MEMBERS, claims, lost)

    def etcd_state(self) -> EtcdState:
        return self.etcd

    def numbers(self) -> FleetNumbers:
        return FleetNumbers(2, 1, 0.25, {"done": 7, "conflict": 1, "away": 0, "unanswered": 2})

    def own_trouble(self) -> tuple[str | None, float | None]:
        return None, None

    def renewer(self, grant: str) -> str | None:
        return self.renewers.get(grant)
