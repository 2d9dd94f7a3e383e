# The first key of an installation: sealed as a credential if systemd can do that, else a file that only the daemon's
# user can read. If there is a key, or the configuration says where it comes from, nothing is made.
from __future__ import annotations

import shutil
from pathlib import Path

from brokerd.config.load import load
from brokerd.config.settings import Configuration
from brokerd.core.validation import ConfigError
from brokerd.ctl.terminal import Failed
from brokerd.edge.store import key_file
from brokerd.edge.systemd.service_manager import CommandFailed, seal
from brokerd.setup.installation import CREDENTIAL, key_sources
from brokerd.setup.layout import Layout

OWNER = "brokerd"  # the user of a system installation
COPY = "keep a copy somewhere else: without it nobody can read the store"


def make_key(main: Path, layout: Layout | None, *, dry: bool) -> str:
    """Makes the key for the configuration in `main`; returns in words what was done or found. `layout`: where the
    installation's files are, None without an installation. Raises Failed, OSError."""
    try:
        configuration = load(main) if main.exists() else Configuration(str(main))
    except ConfigError as error:
        raise Failed(f"{error}; fix that and install again, because the key is not made yet") from None
    sources = key_sources(configuration)
    if not sources:
        return "a passphrase, as the configuration says; to choose it: brokerctl unlock --new"
    if sources[0].file is None and configuration.daemon.key is not None:
        return "from the source that the configuration names"
    if sources[0].file is None:
        return f"there already: the credential {sources[0].credential}"
    path = Path(sources[0].file)
    if path.exists():
        return f"there already: {path}"
    if layout is not None and (store := Path(configuration.daemon.state_dir or layout.state) / "brokerd.db").exists():
        return f"MISSING, and not made, because there is a store: copy the key that opens {store} to {path}"
    return _made(path, configuration, layout, dry=dry)


def _made(path: Path, configuration: Configuration, layout: Layout | None, *, dry: bool) -> str:
    if layout is None:
        why = "because of --config"
    elif not layout.is_system:
        why = "a user's systemd cannot unseal credentials before version 256"
    elif configuration.daemon.key is not None:
        why = "the configuration names that file"
    elif dry:
        return f"would be sealed with systemd-creds as the credential {CREDENTIAL}; if that fails, made as {path}"
    else:
        try:
            sealed, how = seal(CREDENTIAL, key_file.generate().encode())
        except CommandFailed as error:
            why = str(error)
        else:
            return f"made, and sealed as {sealed} with {how}; {COPY}. To print it: systemd-creds decrypt {sealed} -"
    if dry:
        return f"would be made as {path} ({why})"
    key_file.create(path)
    if layout is not None and layout.is_system:
        shutil.chown(path, OWNER, OWNER)
    return f"made as {path}, readable for brokerd only, and not sealed ({why}); {COPY}"
