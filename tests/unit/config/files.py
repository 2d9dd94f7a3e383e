# Configurations that the tests write, and what reading them says.
from __future__ import annotations

from pathlib import Path

import pytest

from brokerd.config.load import load
from brokerd.config.recipes import BUILT_IN_RECIPES
from brokerd.config.settings import Configuration
from brokerd.core.validation import ConfigError

A_NAME = "a name of up to 128 letters, digits, dots, dashes and underscores"
A_DURATION = 'a duration: seconds, or text such as "90s", "5m", "2h"'
CONTRACT = """
[daemon]
socket    = "/run/brokerd/brokerd.sock"
state_dir = "/var/lib/brokerd"
key       = { file = "/etc/brokerd/key" }

[providers.ix]
dialect  = "ix-api"
base_url = "https://api.ix.example/api/v2"

[providers.corp]
dialect        = "oauth2"
token_url      = "https://idp.example/oauth/token"
revocation_url = "https://idp.example/oauth/revoke"
ca_file        = "CA_FILE"

[grants.ix-prod]
provider    = "ix"
credentials = { api_key = "k-1", api_secret = { file = "/etc/brokerd/secrets/ix" } }

[grants.reports]
provider    = "corp"
grant_type  = "client_credentials"
client_auth = "client_secret_basic"
credentials = { client_id = "reports", client_secret = { credential = "reports-secret" } }
scope       = ["read"]

[[allow]]
grants  = ["ix-prod", "reports"]
caller  = { user = "portal" }
actions = ["get"]
"""
DIALECTS = ", ".join(("oauth2", "static", *sorted(file.stem for file in BUILT_IN_RECIPES.glob("*.toml"))))
IX = """
[providers.ix]
dialect  = "ix-api"
base_url = "https://api.ix.example/api/v2"
"""
CORP = """
[providers.corp]
dialect   = "oauth2"
token_url = "https://idp.example/oauth/token"
"""
SECRETS = 'credentials = { api_key = "k-1", api_secret = { file = "/s" } }\n'
GRANT = IX + '[grants.g]\nprovider = "ix"\n' + SECRETS


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def loaded(main: Path, text: str) -> Configuration:
    return load(write(main, text))


def error_of(main: Path, text: str | None = None) -> str:
    """The message, with the main file's name cut to CONFIG."""
    if text is not None:
        write(main, text)
    with pytest.raises(ConfigError) as caught:
        load(main)
    return str(caught.value).replace(str(main), "CONFIG").replace(str(main.parent), "DIR")
