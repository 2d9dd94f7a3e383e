# The metadata server that Google's libraries ask (GCE_METADATA_HOST): token, account, scopes, project. Pure. What the
# libraries demand: docs/metadata.md.
from __future__ import annotations

from dataclasses import dataclass

from brokerd.core.metadata.answers import Asked, Given, MetadataAnswer, NotGiven, as_json, as_text, only

FLAVOR = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}
ROOT = "/computeMetadata/v1"
UNIVERSE = "googleapis.com"
NO_END = 3_600  # seconds that a token without a known end is said to live


@dataclass(frozen=True, slots=True)
class Google:
    """`email`, `project`, `scopes`: what is said of the service account."""

    grant: str
    email: str
    project: str | None = None
    scopes: tuple[str, ...] = ()

    def check(self, asked: Asked) -> MetadataAnswer | None:
        """The answer if it needs no token. Raises NotGiven."""
        only("GET", asked, FLAVOR)
        if asked.path in ("", "/"):  # is a metadata server there? It is asked without the header too
            return as_text("computeMetadata/\n", FLAVOR)
        if asked.headers.get("metadata-flavor") != "Google":
            raise NotGiven(403, "expected the header Metadata-Flavor: Google", FLAVOR)
        account, name = self._account(asked.path)
        if account:
            return self._about_account(name, asked)
        facts = {
            "": "instance/\nproject/\n",
            "/universe/universe-domain": UNIVERSE,
            "/instance/service-accounts": f"default/\n{self.email}/\n",
            "/project/project-id": self.project,
        }
        found = facts.get(asked.path.removeprefix(ROOT).rstrip("/")) if asked.path.startswith(ROOT) else None
        if found is None:
            words = "this endpoint knows the service account, and if its key project is set, the project"
            raise NotGiven(404, words, FLAVOR)
        return as_text(found, FLAVOR)

    def answer(self, asked: Asked, given: Given, now: float) -> MetadataAnswer:
        _, name = self._account(asked.path)
        if name == "identity":
            if not (found := given.fields.get("id_token")):
                words = f'the grant {self.grant} keeps no id_token: fields = ["id_token"]'
                raise NotGiven(404, words, FLAVOR)
            return as_text(found, FLAVOR)
        left = NO_END if given.expires_at is None else max(0, int(given.expires_at - now))
        found_token = {"access_token": given.value, "expires_in": left, "token_type": "Bearer"}
        return as_json(found_token, FLAVOR)

    def _account(self, path: str) -> tuple[bool, str]:
        """Whether the path is about the service account, and what of it."""
        for name in ("default", self.email):
            base = f"{ROOT}/instance/service-accounts/{name}"
            if path == base or path.startswith(f"{base}/"):
                return True, path[len(base) :].strip("/")
        return False, ""

    def _about_account(self, name: str, asked: Asked) -> MetadataAnswer | None:
        if name in ("token", "identity"):
            return None
        if name == "" and asked.query.get("recursive", "").lower() == "true":
            about = {"aliases": ["default"], "email": self.email, "scopes": list(self.scopes)}
            return as_json(about, FLAVOR)
        facts = {
            "": "aliases\nemail\nidentity\nscopes\ntoken\n",
            "aliases": "default\n",
            "email": self.email,
            "scopes": "".join(f"{scope}\n" for scope in self.scopes),
        }
        if name not in facts:
            raise NotGiven(404, "a service account has email, identity, scopes and token", FLAVOR)
        return as_text(facts[name], FLAVOR)
