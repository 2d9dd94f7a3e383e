# Every command of brokerctl, one row each: its help, the function that runs it, its arguments. Help, completions and
# brokerctl(1) are made from these rows. A METAVAR such as GRANT or FILE decides how a shell completes the argument.
from __future__ import annotations

from argparse import SUPPRESS

from brokerd.ctl.command_rows import Argument, Command, OneOf, flag, number, option, port, seconds, several

DEFAULT_CONFIG = "/etc/brokerd/brokerd.toml"
DEFAULT_ENV = "ACCESS_TOKEN"
GRANT_TYPES = ("device_code", "authorization_code", "client_credentials")
LOG_FORMATS = ("logfmt", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")
SHELLS = ("bash", "zsh", "fish")
# These options say which brokerd is meant. Each may stand before or after every command.
WHICH = {
    "--config": (
        "FILE",
        f"use the brokerd with this configuration (default: yours if you have one, else {DEFAULT_CONFIG})",
    ),
    "--socket": ("PATH", "use the brokerd at this socket (default: BROKERD_SOCKET, else as the configuration says)"),
    "--state-dir": ("DIR", "the state directory, for commands that read or write it (default: as configured)"),
}


def which(name: str) -> Argument:
    """One of WHICH in a command's own help, for commands that are often used with it."""
    metavar, words = WHICH[name]
    return Argument(name, metavar=metavar, default=SUPPRESS, help=words)


# -- arguments of several commands

GRANT = Argument("grant", metavar="GRANT", help="the grant's name in the configuration")
JSON = flag("--json", "print one JSON object on one line")
DRY_RUN = flag("--dry-run", "change nothing, but say what would be done")
FOR_SYSTEM = flag("--system", "for the whole machine; needs root")
FOR_USER = flag("--user", "for yourself only")
CA_FILE = option("--ca-file", "FILE", "certificates (PEM) to trust instead of the system's")
SETTING = several("--setting", "NAME=VALUE", "a setting of the recipe")
RECIPE = Argument(
    "recipe", metavar="RECIPE", help="a file that ends in .toml, or a name that brokerctl recipe list prints"
)
FETCHING = (
    option("--min-ttl", "N", "get a token that is valid for at least N more seconds (default: 0)", type=seconds),
    option("--wait", "N", "wait at most N seconds if brokerd has to ask the provider (default: 10)", type=seconds),
    option("--scope", "S", "get a token for this scope; may be repeated", action="append"),
    option("--audience", "A", "get a token for this audience"),
    option("--resource", "R", "get a token for this resource, a URI"),
)
INSTALLATION = (
    OneOf(FOR_SYSTEM, FOR_USER, required=True),
    DRY_RUN,
    option("--prefix", "DIR", "where the files are (default: /usr/local, for a user ~/.local)"),
    option("--root", "DIR", "only handle files, below DIR: for an image or a package"),
)
USAGE_OF_EXEC = "brokerctl exec GRANT [--env NAME[=field:FIELD]]… [OPTION]… -- CMD …"

COMMANDS = {
    "get": Command(
        "print a token, and nothing else",
        "tokens.get",
        GRANT,
        *FETCHING,
        flag("--refused", "read from stdin a token that the API refused before its expiry, and get another one"),
        OneOf(
            flag("--json", "print value, token_type, expires_at, grant and fields as JSON"),
            option("--field", "NAME", "print a further value of the token instead, such as access_key_id"),
            flag("--header", "print the HTTP header line that the API expects"),
        ),
    ),
    "exec": Command(
        "run a command with a token in its environment",
        "tokens.execute",
        GRANT,
        *FETCHING,
        several("--env", "NAME", f"a variable for the token (default: {DEFAULT_ENV}); NAME=field:FIELD is for a field"),
        usage=USAGE_OF_EXEC,
    ),
    "credential": Command(
        "print a token as a certain client reads it",
        "credential.credential",
        actions={
            "aws": ("for credential_process in AWS's configuration", (GRANT,)),
            "bazel": (
                "for bazel: read an address from stdin, and find its grant in helpers.toml",
                (Argument("operation", metavar="get", choices=("get",), help="what bazel asks for"),),
            ),
            "headers": ("HTTP headers as a JSON object, for headersHelper of MCP clients", (GRANT,)),
            "kubernetes": ("for exec in a kubeconfig: an ExecCredential", (GRANT,)),
        },
    ),
    "proof": Command(
        "print the headers of one HTTP request, for a token that is bound to a key (DPoP)",
        "tokens.proof",
        GRANT,
        Argument("http_method", metavar="METHOD", help="the request's method, such as GET"),
        Argument("url", metavar="URL", help="the request's URL; anything after ? or # is ignored"),
        option("--nonce", "N", "the nonce that the API sent last, in DPoP-Nonce"),
        flag("--json", "print the token and the proof as JSON"),
    ),
    "watch": Command(
        "print a line whenever a grant gets a new token, or has no token any more",
        "tokens.watch",
        Argument("grants", metavar="GRANT", nargs="+", help="the grants' names in the configuration"),
        OneOf(
            flag("--values", "print the tokens themselves, one on each line"),
            flag("--json", "print each event, tokens included, as one JSON object on a line"),
        ),
    ),
    "files": Command(
        "write tokens to files and keep these fresh, until interrupted",
        "files.files",
        Argument("file", metavar="FILE", help="the file that names grants and paths: brokerd-files.toml(5)"),
        OneOf(
            flag("--check", "name all mistakes in FILE, and write nothing"),
            flag("--once", "write every file once and end"),
        ),
        flag("--user", "reload and restart units of your own systemd instead of the system's"),
        Argument(
            "--log-format",
            choices=LOG_FORMATS,
            default="logfmt",
            help="how a line of the log is written (default: logfmt)",
        ),
        which("--state-dir"),
        needs_daemon=False,
    ),
    "status": Command(
        "show each grant's state, expiry, next renewal and last error",
        "status.status",
        Argument("grants", metavar="GRANT", nargs="*", help="show only these (default: all that you may see)"),
        flag("--problems", "show only grants that have a problem"),
        flag(
            "--exit-code",
            "end with 4 if something fails, with 5 if a person must act or a grant serves nothing (unless revoked)",
        ),
        OneOf(JSON, flag("--names", "print only the grants' names, one on each line")),
        OneOf(
            flag("--watch", "show it again every second; arrows and Page Up/Down scroll, q ends"),
            flag("--verify", "ask the providers whether the tokens are valid (RFC 7662)"),
        ),
    ),
    "fleet": Command(
        "show the hosts that share their grants through etcd, what each is doing, and how etcd is",
        "fleet.fleet",
        flag("--exit-code", "end with 4 if etcd cannot be reached, with 5 if a person must act"),
        JSON,
    ),
    "page": Command(
        "show all grants on a page in your browser, until interrupted",
        "page.page",
        flag("--no-browser", "open no browser, only print the address"),
        option("--port", "N", "the port on this machine, for ssh -L (default: any)", type=port),
    ),
    "explain": Command(
        "say whether a process may have a token, and by which rule, or why not",
        "explain.explain",
        GRANT,
        option("--pid", "N", "for this process instead of yourself", type=number),
        option("--as", "USER", "for a process of this user; the options below say more about the process", dest="user"),
        option("--unit", "UNIT", "its systemd unit, such as portal.service"),
        flag("--credential", "for the unit at its start, with LoadCredential="),
        option("--user-unit", "UNIT", "its unit in the systemd of its user"),
        option("--slice", "SLICE", "the slice of its unit"),
        option("--container", "ID", "the full id of its container"),
        option("--exe", "FILE", "the file that it executes"),
        option("--sha256", "HEX", "the SHA-256 of that file"),
        JSON,
    ),
    "refresh": Command(
        "renew a token now, at most once in a third of its life; this also retries a grant that is misconfigured",
        "change.refresh",
        GRANT,
    ),
    "trace": Command(
        "renew a token now, and print each step while it happens",
        "trace.trace",
        GRANT,
        flag("--wait", "do not renew; follow the next renewal that begins by itself or for a caller", dest="only_wait"),
        flag("--json", "print each step as one JSON object on a line"),
    ),
    "revoke": Command(
        "end a grant: brokerd serves no token of it any more, and tells the provider",
        "change.revoke",
        GRANT,
        flag("--yes", "do not ask for confirmation"),
        flag(
            "--local",
            "do not tell the provider, for a provider that cannot be told: its tokens stay valid until they expire",
            dest="forget_only",
        ),
    ),
    "login": Command(
        "log in for a grant, with a browser on this machine or another one",
        "login.login",
        GRANT,
        flag("--yes", "do not ask for confirmation if the account is not the one of the last login"),
        flag("--browser", "open a browser, even if this machine seems to have none"),
        option(
            "--port", "N", "the port on this machine that the browser returns to, for ssh -L (default: any)", type=port
        ),
        flag("--no-qr", "draw no QR code"),
        flag("--json", "print each question, and how the login ended, as one JSON object on a line"),
    ),
    "import": Command("give a grant a refresh token, which is read from stdin", "change.import_token", GRANT),
    "reload": Command(
        "make brokerd read its configuration again; if it has an error, nothing changes", "change.reload"
    ),
    "forget": Command(
        "delete what is stored for a grant that is no longer in the configuration", "change.forget", GRANT
    ),
    "adopt": Command("allow a store that was restored or copied to be used on this machine", "change.adopt"),
    "trust": Command(
        "accept the endpoints that a provider's metadata names now",
        "change.trust",
        Argument("provider", metavar="PROVIDER", help="the provider's name in the configuration"),
    ),
    "add": Command(
        "add a provider, a grant and a rule; install brokerd first if nothing is configured",
        "add.add",
        OneOf(
            option("--recipe", "RECIPE", "the provider's recipe; brokerctl recipe list prints them"),
            option("--issuer", "URL", "the provider, if it is an OAuth 2.0 server that publishes its metadata"),
            option("--token-url", "URL", "the provider's token endpoint, if it publishes no metadata"),
            flag("--static", "a token that never expires, such as an API key; no provider is asked"),
        ),
        option("--resource", "URL", "what the tokens are for: an API or MCP server that names its issuer (RFC 9728)"),
        option("--base-url", "URL", "the provider's address, for a recipe; the recipe's paths are appended to it"),
        Argument("--grant-type", choices=GRANT_TYPES, help="for an issuer (default: the best login that it offers)"),
        option("--name", "NAME", "the name of provider and grant (default: the recipe's, or the host in the URL)"),
        option("--client-id", "ID", "the id of a public client that you registered yourself"),
        several("--credential", "NAME=ID", "a credential that is not secret"),
        several(
            "--credential-file",
            "NAME=FILE",
            "a secret credential, read from a file; at a terminal, brokerctl asks for those that are missing",
        ),
        SETTING,
        option("--scope", "S", "ask for this scope; may be repeated", action="append"),
        several("--allow", "USER", "a user who may have the tokens"),
        CA_FILE,
        OneOf(
            FOR_SYSTEM,
            FOR_USER,
            option("--config", "FILE", "change this configuration, and install no units", default=SUPPRESS),
        ),
        OneOf(
            flag("--dry-run", "show what would be written, but register and write nothing"),
            flag("--login", "then log in, as brokerctl login does"),
        ),
        needs_daemon=False,
        other_name="init",
    ),
    "audit": Command(
        "read the audit log, or check whether anybody has changed it",
        "audit.audit",
        needs_daemon=False,
        actions={
            "verify": ("check whether anybody has changed, removed or reordered a line", (which("--config"),)),
            "tail": (
                "print the newest entries",
                (
                    which("--config"),
                    option("-n", "N", "how many entries (default: 20)", dest="number", type=number, default=20),
                    flag("--follow", "print new entries as they are written"),
                    option("--grant", "GRANT", "only entries about this grant"),
                    option("--event", "NAME", "only entries with this event or outcome, such as renewed or denied"),
                    option("--caller", "USER|UID|PID", "only entries about this caller"),
                    option("--request-id", "ID", "only entries with this request_id or provider_request_id"),
                    flag("--json", "print the lines as they are in the log"),
                ),
            ),
        },
    ),
    "install": Command(
        "install units, manual pages, completions, a user, a key and an example configuration",
        "install.install",
        *INSTALLATION,
        needs_daemon=False,
    ),
    "uninstall": Command(
        "remove what install has put in place",
        "install.uninstall",
        *INSTALLATION,
        flag("--purge", "also delete the configuration, the key, all tokens and the user brokerd"),
        flag("--yes", "do not ask for confirmation before --purge"),
        needs_daemon=False,
    ),
    "doctor": Command(
        "check what brokerd needs to work, and say how to fix what is wrong",
        "doctor.doctor",
        which("--config"),
        flag("--offline", "send no request to any provider, nor to etcd"),
        JSON,
        needs_daemon=False,
    ),
    "log-level": Command(
        "show or set how much the running brokerd logs; a restart sets it back",
        "log_level.log_level",
        Argument("level", nargs="?", choices=LOG_LEVELS, help="the new level (default: show the present one)"),
        option("--for", "TIME", "set it back after this time, such as 10m", dest="lasting"),
    ),
    "test-event": Command(
        "run the commands that [[on_event]] has for an event, to see whether they work",
        "try_event.try_event",
        Argument("event", metavar="EVENT", help="the event, such as grant_needs_login"),
    ),
    "lock": Command("remove keys and tokens from memory; brokerd then serves nothing until unlock", "keys.lock"),
    "unlock": Command(
        "read the key again, or ask for the passphrase, and serve tokens again",
        "keys.unlock",
        flag("--new", "choose the passphrase of a new store"),
    ),
    "key": Command(
        "replace the key that encrypts the store",
        "keys.rotate",
        Argument("what", metavar="rotate", choices=("rotate",), help="change to the key that [daemon] key names now"),
        flag("--full", "also make a new data key, and encrypt every record again with it"),
        flag("--passphrase", "change to a passphrase, which you choose now"),
    ),
    "backup": Command(
        "write an encrypted copy of the store while brokerd runs",
        "backup.backup",
        Argument("file", metavar="FILE", help="the file to write; it must not exist yet"),
    ),
    "restore": Command(
        "put a backup into the state directory of a brokerd that does not run",
        "backup.restore",
        Argument("file", metavar="FILE", help="a file that brokerctl backup has written"),
        which("--state-dir"),
        flag("--force", "if there is a store already, keep it under another name"),
        needs_daemon=False,
    ),
    "keygen": Command(
        "make a key file; an existing file is never overwritten",
        "local.keygen",
        Argument("file", metavar="FILE", help="the file to write; it must not exist yet"),
        needs_daemon=False,
    ),
    "recipe": Command(
        "list, show, check and try recipes",
        "recipe.recipe",
        needs_daemon=False,
        actions={
            "list": ("list all recipes", ()),
            "show": ("print a recipe, for you to copy", (RECIPE,)),
            "check": ("find the mistakes in a recipe, and say what it does", (RECIPE,)),
            "try": (
                "ask the real server once, and show what was sent, what came back and how it was read",
                (
                    RECIPE,
                    option("--base-url", "URL", "the address of the provider's API", required=True),
                    option(
                        "--credentials", "FILE", 'a TOML file with one credential a line: password = { file = "…" }'
                    ),
                    SETTING,
                    CA_FILE,
                    Argument(
                        "--operation",
                        choices=("issue", "renew", "revoke"),
                        default="issue",
                        help="what to ask the server for (default: issue)",
                    ),
                ),
            ),
        },
    ),
    "completion": Command(
        "print the completion script for a shell",
        "completion.completion",
        Argument("shell", choices=SHELLS, nargs="?", default="bash", help="the shell (default: bash)"),
        needs_daemon=False,
    ),
    "version": Command("print the versions of brokerctl and brokerd", "local.version"),
}
