# A keyring backend: programs that look a password up by URL (pip, twine, uv, poetry) get a token of the grant that
# helpers.toml names for it. Nothing is stored by it.
from __future__ import annotations

from keyring.backend import KeyringBackend
from keyring.credentials import SimpleCredential
from keyring.errors import KeyringError, PasswordDeleteError, PasswordSetError

from brokerd_client.credentials.asking import NoCredential, NoToken, explain, token_of, use_for
from brokerd_client.helpers import HelpersError, address_of

USERNAME = "__token__"  # what package indexes want beside a token


class BrokerKeyring(KeyringBackend):
    """brokerd's tokens as passwords. `keyring` and its users find it by its entry point."""

    priority = 6  # above the desktop's keyrings: it answers for the URLs of helpers.toml alone

    def get_password(self, service: str, username: str | None) -> str | None:
        """A token for the URL `service`. None: helpers.toml has no grant for it, or brokerd none for this user. Raises
        KeyringError."""
        found = self.get_credential(service, username)
        return None if found is None else found.password

    def get_credential(self, service: str, username: str | None) -> SimpleCredential | None:
        try:
            use = use_for(address_of(service), username)
            return SimpleCredential(username or use.username or USERNAME, token_of(use).value)
        except NoCredential as reason:
            explain("brokerd", str(reason))
        except (NoToken, HelpersError) as error:
            raise KeyringError(str(error)) from None
        return None

    def set_password(self, service: str, username: str, password: str) -> None:  # noqa: ARG002
        raise PasswordSetError("brokerd keeps tokens by itself; remove this program's request to store a password")

    def delete_password(self, service: str, username: str) -> None:  # noqa: ARG002
        raise PasswordDeleteError("brokerd keeps tokens by itself; revoke one with: brokerctl revoke GRANT")
