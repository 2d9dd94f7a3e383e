# git-credential-brokerd: git's credential helper protocol (gitcredentials(7), git-credential(1)). git asks with lines
# of key=value, and reads the answer in the same form.
from __future__ import annotations

from urllib.parse import quote

from brokerd_client.credentials.asking import (
    FAILED,
    USERNAME,
    NoCredential,
    NoToken,
    explain,
    ignored,
    question,
    run,
    token_of,
    use_for,
    write,
)
from brokerd_client.helpers import PORTS, Address, Use, address_of
from brokerd_client.request import refused_params

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from brokerd_client.messages import Token

PROGRAM = "git-credential-brokerd"
SECRETS = ("credential", "password")  # where git reports what the server refused: with authtype, and without
STATE = "brokerd.refused="  # git repeats it after a 401: the SHA-256 of the token that the server refused
PATH_CHARACTERS = "/!$&'()*+,;=:@~"  # those that a URL need not escape (RFC 3986 §3.3)


class Question:
    """git's lines. A key that ends with [] may come several times; any other key that does is refused, because git
    and this helper could read two different values. Raises NoCredential."""

    def __init__(self, data: bytes) -> None:
        self._one: dict[str, str] = {}
        self._many: dict[str, list[str]] = {}
        try:
            lines = data.decode().split("\n")
        except UnicodeDecodeError:
            raise NoCredential("expected git's question in UTF-8") from None
        for line in lines[: lines.index("")] if "" in lines else lines:
            self._take(*line.partition("="))

    def _take(self, key: str, equals: str, value: str) -> None:
        if not (equals and key.isprintable() and value.isprintable()) or key in self._one:
            raise NoCredential("git's question has a control character, or a key twice: nothing is answered")
        if not key.endswith("[]"):
            self._one[key] = value
        elif value:
            self._many.setdefault(key, []).append(value)
        else:  # an empty value clears the list
            self._many[key] = []

    def get(self, key: str) -> str | None:
        return self._one.get(key)

    def list(self, key: str) -> list[str]:
        return self._many.get(f"{key}[]", [])

    @property
    def address(self) -> Address | None:
        """The address that git connects to. `path` is None unless credential.useHttpPath is set."""
        scheme, host, path = self.get("protocol"), self.get("host") or "", self.get("path")
        if scheme not in PORTS or not host or {*"/?#@\\%"} & {*host}:  # git has decoded it: they would move its end
            return None
        found = address_of(f"{scheme}://{host}/{quote(path or '', PATH_CHARACTERS)}")
        return found and (found if path else found._replace(path=None))

    @property
    def use(self) -> Use:
        """The table of helpers.toml for it. Raises NoCredential, HelpersError."""
        return use_for(self.address, self.get("username"))

    @property
    def refused(self) -> dict[str, str]:
        """The token that the server has just refused, if git asks again in the same command."""
        found = [each.removeprefix(STATE) for each in self.list("state") if each.startswith(STATE)]
        return {"refused_sha256": found[0]} if found else {}

    @property
    def asks_again(self) -> bool:
        """Whether git (2.46 and newer) can ask again after a 401, and has not done so yet."""
        return "state" in self.list("capability") and not self.refused

    @property
    def takes_bearer(self) -> bool:
        """Whether git can send a bearer token (2.46 and newer), and the server did not say that it wants another."""
        schemes = {each.split(" ")[0].lower() for each in self.list("wwwauth")}
        return "authtype" in self.list("capability") and (not schemes or "bearer" in schemes)


def answer(token: Token, use: Use, asked: Question) -> str:
    """The lines for `get`. No other helper keeps the token: it is ephemeral, or has an expiry."""
    if asked.takes_bearer and token.header == {"Authorization": f"Bearer {token.value}"}:
        lines = ["capability[]=authtype", "authtype=Bearer", f"credential={token.value}", "ephemeral=1"]
    else:
        lines = [f"username={use.username or asked.get('username') or USERNAME}", f"password={token.value}"]
    if token.expires_at is not None:
        lines.append(f"password_expiry_utc={int(token.expires_at)}")
    if asked.asks_again:
        from hashlib import sha256  # it loads OpenSSL, which takes as long as the fetch

        digest = sha256(token.value.encode()).hexdigest()
        lines += ["capability[]=state", f"state[]={STATE}{digest}", "continue=1"]
    return "".join(f"{line}\n" for line in lines)


def get() -> int:
    asked = Question(question())
    use = asked.use
    try:
        write(answer(token_of(use, refused=asked.refused), use, asked))
    except NoToken as reason:
        write("quit=1\n")  # the password that git would ask a person for does not exist
        explain(PROGRAM, str(reason))
        return FAILED
    return 0


def store() -> int:
    question()
    return ignored()


def erase() -> int:
    """git calls this after the server refused the credential: brokerd is asked for another one, for the next try."""
    asked = Question(question())
    refused = next((found for key in SECRETS if (found := asked.get(key))), None)
    if refused is not None:
        token_of(asked.use, refused=refused_params(refused))
    return 0


def main() -> int:
    """The console script."""
    return run(PROGRAM, {"get": get, "store": store, "erase": erase}, "git")
