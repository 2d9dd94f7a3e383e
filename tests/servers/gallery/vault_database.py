# The database secrets engine of Vault and OpenBao, and leases that are renewed and revoked by their id, from the API
# documents "Databases" and "/sys/leases" and the page "Lease, renew, and revoke" (developer.hashicorp.com/vault). It is
# the Vault of vault.py: the token that it wants comes from there.
from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from tests.servers import body
from tests.servers.gallery.vault import DENIED, Vault
from tests.servers.http import Request, Response, json_response
from tests.servers.provider import Handler, Refusal
from tests.servers.tokens import Token

ROLE = "readonly"
ENVELOPE = {"request_id": "1", "wrap_info": None, "warnings": None, "auth": None}


class VaultDatabase(Vault):
    """Operations: those of Vault, and creds, extend, end. `lease_ttl` and `lease_max_ttl` are the role's; the engine is
    mounted twice. A lease ends with the token that it was made with."""

    name = "vault-database"
    prefix = "/vault-database"
    paths: ClassVar[Mapping[str, Mapping[str, str]]] = {
        **Vault.paths,
        f"/v1/database/creds/{ROLE}": {"GET": "creds"},
        f"/v1/postgres/creds/{ROLE}": {"GET": "creds"},
        "/v1/database/creds/unknown": {"GET": "unknown_role"},
        "/v1/sys/leases/renew": {"PUT": "extend", "POST": "extend"},
        "/v1/sys/leases/revoke": {"PUT": "end", "POST": "end"},
    }

    def __init__(self) -> None:
        super().__init__()
        self.lease_ttl = 3_600.0
        self.lease_max_ttl = 86_400.0
        self.leases: dict[str, tuple[Token, Token]] = {}  # by id: the password, and the token that it was made with

    def handlers(self) -> Mapping[str, Handler]:
        mine: dict[str, Handler] = {"creds": self._creds, "unknown_role": self._unknown_role}
        return {**super().handlers(), **mine, "extend": self._extend, "end": self._end}

    def user_of(self, password: str) -> str | None:
        """The user whose password that is, as long as the database lets them in."""
        lease = next((each for each in self.leases.values() if each[0].value == password), None)
        return None if lease is None or not self._lives(lease) else f"v-approle-readonly-{lease[0].id}"

    def _creds(self, request: Request) -> Response:
        made_with = self._token(request)
        lease = self.issue_access(self.ledger.family(), "database", expires_at=self.settings.now() + self.lease_ttl)
        self.leases[f"database/creds/{ROLE}/{lease.id}"] = lease, made_with
        self.counts.issued += 1
        data = {"username": self.user_of(lease.value), "password": lease.value}
        return self._answered(f"database/creds/{ROLE}/{lease.id}", int(self.lease_ttl), data)

    def _unknown_role(self, request: Request) -> Response:
        self._token(request)
        raise Refusal(400, "unknown role: unknown")

    def _extend(self, request: Request) -> Response:
        given = body.json_object(request)
        lease = self._lease(request, given, ("increment",))
        if not self.settings.renewable:
            raise Refusal(400, "lease is not renewable")
        now, wanted = self.settings.now(), float(str(given.get("increment", self.lease_ttl)))
        left = min(wanted, lease.issued_at + self.lease_max_ttl - now)
        lease.expires_at = now + left
        self.counts.renewed += 1
        return self._answered(str(given["lease_id"]), int(left), None)

    def _end(self, request: Request) -> Response:
        given = body.json_object(request)
        if str(given.get("lease_id")) in self.leases:
            lease = self._lease(request, given, ())
            lease.revoked = True
            self.counts.revoked += 1
        else:
            self._token(request)
        return Response(204)

    def _lease(self, request: Request, given: Mapping[str, object], optional: tuple[str, ...]) -> Token:
        self._token(request)
        if not {"lease_id"} <= set(given) <= {"lease_id", *optional}:
            raise Refusal(400, "missing lease_id")
        found = self.leases.get(str(given["lease_id"]))
        if found is None or not self._lives(found):
            raise Refusal(400, "lease not found")
        return found[0]

    def _lives(self, lease: tuple[Token, Token]) -> bool:
        return all(each.alive(self.settings.now()) for each in lease)

    def _answered(self, lease_id: str, seconds: int, data: object) -> Response:
        said = {"lease_id": lease_id, "renewable": self.settings.renewable, "lease_duration": seconds, "data": data}
        return json_response(200, {**ENVELOPE, **said})


__all__ = ["DENIED", "ROLE", "VaultDatabase"]
