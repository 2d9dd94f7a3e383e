# The arguments of the commands with which things begin: add, install, and uninstall, which ends them.
from __future__ import annotations

from argparse import SUPPRESS

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from typing import Any

DEFAULT_CONFIG = "/etc/brokerd/brokerd.toml"
GRANT_TYPES = ("device_code", "authorization_code", "client_credentials")


def add(parser: ArgumentParser) -> None:
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--recipe", metavar="RECIPE", help="the recipe of the provider; see brokerctl recipe list")
    way.add_argument("--issuer", metavar="URL", help="the provider, where it is an OAuth 2.0 authorization server")
    way.add_argument("--token-url", metavar="URL", help="its token endpoint, where it says nothing about itself")
    parser.add_argument(
        "--resource",
        metavar="URL",
        help="what the tokens are for: an API, or an MCP server (RFC 9728), names its issuer",
    )
    parser.add_argument(
        "--base-url", metavar="URL", help="of a recipe's provider: what the recipe's paths are appended to"
    )
    parser.add_argument("--grant-type", choices=GRANT_TYPES, help="at an issuer (the best login that it has)")
    parser.add_argument(
        "--name", metavar="NAME", help="what provider and grant are to be called (as the recipe, or the URL's host)"
    )
    parser.add_argument("--client-id", metavar="ID", help="the id of a public client that was registered by hand")
    parser.add_argument(
        "--credential", metavar="NAME=ID", action="append", default=[], help="a credential that is no secret"
    )
    words = "a credential that is one, read from a file; a terminal asks for those that are not named"
    parser.add_argument("--credential-file", metavar="NAME=FILE", action="append", default=[], help=words)
    parser.add_argument(
        "--setting", metavar="NAME=VALUE", action="append", default=[], help="a setting of the recipe; may be repeated"
    )
    parser.add_argument("--scope", metavar="S", action="append", help="ask for this scope; may be repeated")
    parser.add_argument(
        "--allow", metavar="USER", action="append", default=[], help="a user who may have its tokens; may be repeated"
    )
    parser.add_argument("--ca-file", metavar="FILE", help="certificates (PEM) to trust in the place of the system's")
    whose = parser.add_mutually_exclusive_group()
    _whose(whose)
    whose.add_argument("--config", metavar="FILE", default=SUPPRESS, help="in this configuration; install no units")
    then = parser.add_mutually_exclusive_group()
    then.add_argument(
        "--dry-run", action="store_true", help="register and write nothing, but show what would be written"
    )
    then.add_argument("--login", action="store_true", help="log in at once, as brokerctl login does")


def install(parser: ArgumentParser) -> None:
    _whose(parser.add_mutually_exclusive_group(required=True))
    parser.add_argument("--dry-run", action="store_true", help="change nothing, but say what would be done")
    parser.add_argument("--prefix", metavar="DIR", help="where files are (/usr/local, or of a user ~/.local)")
    parser.add_argument("--root", metavar="DIR", help="files alone, below DIR: for an image or a package")


def uninstall(parser: ArgumentParser) -> None:
    install(parser)
    parser.add_argument(
        "--purge", action="store_true", help="delete configuration, key, tokens and the user brokerd as well"
    )
    parser.add_argument("--yes", action="store_true", help="purge without asking")


def _whose(group: Any) -> None:
    group.add_argument("--system", action="store_true", help="for the whole machine, as root")
    group.add_argument("--user", action="store_true", help="for yourself alone")
