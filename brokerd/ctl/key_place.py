# The first key of an installation: sealed as a credential where systemd can, else a file for the daemon's user alone.
# Where there is one, or the configuration says where it comes from, nothing is made.
from __future__ import annotations

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from pathlib import Path

    from brokerd.config import Configuration
    from brokerd.installing import Layout

OWNER = "brokerd"  # of the system's
COPY = "keep a copy of it away from the store, which nobody can read without it"


def make_key(main: Path, layout: Layout | None, *, dry: bool) -> str:
    """What was done, or found, for the configuration in `main`. `layout`: of the installation, if that is one. Raises
    Failed, OSError."""
    from pathlib import Path

    from brokerd.config import Configuration, load
    from brokerd.core.typed import ConfigError
    from brokerd.ctl.terminal import Failed
    from brokerd.installation import key_sources

    try:
        configuration = load(main) if main.exists() else Configuration(str(main))
    except ConfigError as error:
        raise Failed(f"{error}; mend that, and install again: the key is still to be made") from None
    sources = key_sources(configuration)
    if not sources:
        return "a passphrase, as the configuration says: brokerctl unlock --new"
    if sources[0].file is None and configuration.daemon.key is not None:
        return "from where the configuration says"
    if sources[0].file is None:
        return f"there already: the credential {sources[0].credential}"
    path = Path(sources[0].file)
    if path.exists():
        return f"there already: {path}"
    if layout is not None and (store := Path(configuration.daemon.state_dir or layout.state) / "brokerd.db").exists():
        return f"NONE IS THERE, and none was made: put the one that opens {store} to {path}"
    return _made(path, configuration, layout, dry=dry)


def _made(path: Path, configuration: Configuration, layout: Layout | None, *, dry: bool) -> str:
    from brokerd.edge import keys
    from brokerd.edge.service_manager import CommandFailed, seal
    from brokerd.installation import CREDENTIAL

    if layout is None:
        why = "as --config has it"
    elif not layout.is_system:
        why = "a user's systemd unseals no credentials before version 256"
    elif configuration.daemon.key is not None:
        why = "the configuration names that file"
    elif dry:
        return f"would be sealed with systemd-creds as the credential {CREDENTIAL}; where that fails, made as {path}"
    else:
        try:
            sealed, how = seal(CREDENTIAL, keys.generate().encode())
        except CommandFailed as error:
            why = str(error)
        else:
            return f"made, and sealed as {sealed} with {how}; {COPY}: systemd-creds decrypt {sealed} -"
    if dry:
        return f"would be made as {path} ({why})"
    keys.create(path)
    if layout is not None and layout.is_system:
        import shutil

        shutil.chown(path, OWNER, OWNER)
    return f"made as {path}, open to brokerd alone, and not sealed ({why}); {COPY}"
