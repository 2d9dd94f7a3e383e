# The configuration as the daemon reads it, and the files that it names: that brokerd can read them, and others cannot.
from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from shlex import quote

from brokerd.checking import counted, located, strangers
from brokerd.config import DEFAULT_CONFIG, places
from brokerd.config.tables import drop_ins
from brokerd.core.ports import TransportError
from brokerd.core.remedy import change
from brokerd.core.secret import SecretSource
from brokerd.core.typed import ConfigError
from brokerd.doctor.finding import Finding, ok, problem, told, unseen, warning
from brokerd.doctor.scene import Scene
from brokerd.edge import place
from brokerd.edge.connection import check
from brokerd.edge.secrets import WRITE, SecretUnreadable, doubtful
from brokerd.installation import http_settings, key_sources


def configuration(scene: Scene) -> Iterable[Finding]:
    name, path = "configuration", Path(scene.path)
    if scene.configuration is None:
        assert scene.refused is not None, "there is a configuration, or a reason why not"
        if _is_hidden(Path(scene.refused.file)):
            return [unseen(name, scene.refused.file)]
        if scene.is_strange and scene.path == DEFAULT_CONFIG and not path.exists():
            words = f"that of the brokerd at {scene.socket} is not known"
            return [warning(name, words, "name it, to have it looked at as well: brokerctl doctor --config FILE")]
        check_again = f"change it, then: brokerd --config {quote(scene.path)} --check"
        return [told(name, located(each), check_again) for each in (scene.refused, *scene.refused.others)]
    found = list(_closed(scene, name, (path, *drop_ins(path))))
    for provider in scene.configuration.providers.values():
        try:
            check(http_settings(provider), scene.environ)
        except TransportError as error:
            words = f"{scene.path}: providers.{provider.name}: {error.reason}"
            found.append(told(name, words, f"change it, then: brokerd --config {quote(scene.path)} --check"))
    return found or [ok(name, f"{scene.path}: {counted(scene.configuration)}")]


def rules(scene: Scene) -> Iterator[Finding]:
    """That there are the users and groups whom rules name. A unit's user may be there while it runs only."""
    if scene.configuration is None:
        return
    found = list(strangers(scene.configuration))
    for each in found:
        again = f"change it, or make one; then: brokerd --config {quote(scene.path)} --check"
        yield warning("rules", located(each), again)
    if scene.configuration.rules and not found:
        yield ok("rules", "everybody whom they name is there")


def secrets(scene: Scene) -> Iterator[Finding]:
    """Those of grants, where they stand in files; commands are not run, and another process's environment not read."""
    if scene.configuration is None:
        return
    name, read, files = "secrets", 0, places(scene.path)
    for grant in scene.configuration.grants.values():
        for key, source in grant.sources:
            if source.file is None and source.credential is None:
                continue
            place_of = ConfigError("", key=f"grants.{grant.name}.{key}", file=str(files["grants", grant.name]))
            found = _secret(scene, located(place_of).removesuffix(": "), source)
            read += found is None
            if found is not None:
                yield found
    if read:
        yield ok(name, f"{read} can be read")


def permissions(scene: Scene) -> Iterator[Finding]:
    """Of the state directory and the key."""
    name = "permissions"
    if scene.configuration is None:
        return
    if not scene.state.exists():
        yield warning(name, f"there is no {scene.state} yet", f"{scene.start} makes it")
        return
    try:
        faults = place.faults_of_state(scene.state, scene.account.uid)
    except PermissionError:
        yield unseen(name, str(scene.state))
        return
    for fault in faults:
        yield told(name, fault, "use a directory that is brokerd's alone: [daemon] state_dir")
    for source in key_sources(scene.configuration):
        if source.file is not None and Path(source.file).exists():
            closed = list(_closed(scene, name, [Path(source.file)]))
            faults += [each.found for each in closed]
            yield from closed
    if not faults:
        yield ok(name, f"{scene.state} is {scene.account.name}'s alone")


def _secret(scene: Scene, key: str, source: SecretSource) -> Finding | None:
    """`key`: with its file and line."""
    name, reachable = "secrets", scene.reachable(source)
    if reachable.credential is not None and "CREDENTIALS_DIRECTORY" not in os.environ:
        if scene.unit is None or reachable.credential in scene.unit.credentials:
            return None
        words = f"{key}: {scene.unit.name} is given no credential {reachable.credential}"
        return problem(name, words, f"{scene.systemctl} edit brokerd: LoadCredential={reachable.credential}:PATH")
    if reachable.file is not None and Path(reachable.file).exists():
        if not os.access(reachable.file, os.R_OK):
            return unseen(name, f"{key}: {reachable.file}")
        if reachable is source and (closed := next(_closed(scene, name, [Path(reachable.file)]), None)):
            return closed
    try:
        doubt = doubtful(reachable)
    except SecretUnreadable as error:
        return told(name, f"{key}: {error}", WRITE)
    if doubt is None:
        return None
    found, _, remedy = doubt.rpartition("; ")
    return warning(name, f"{key}: {found}", remedy)


def _closed(scene: Scene, name: str, files: Iterable[Path]) -> Iterator[Finding]:
    """What brokerd itself cannot read, though we can."""
    user = scene.account
    for file in files:
        if (obstacle := user.finds_closed(file)) is not None:
            words = f"{file} cannot be read by {user.name}" + ("" if obstacle == file else f", because of {obstacle}")
            yield problem(name, words, _let_in(scene, file, obstacle))


def _let_in(scene: Scene, file: Path, obstacle: Path) -> str:
    """How brokerd's user gets to read the file. Only what lies with the configuration is brokerd's own: whatever else
    keeps the user out may keep others out for a reason."""
    home, mode = Path(scene.path).absolute().parent, obstacle.stat().st_mode
    copy = f"copy it to {home / 'secrets' / file.name}, where {scene.account.name} can read it, and name that file"
    if not obstacle.is_relative_to(home.resolve()):
        return copy
    chgrp = change(f"chgrp {scene.account.group}", str(obstacle), mode, "")
    return (
        f"{chgrp} && chmod {'g+r' if obstacle == file.resolve() else 'g+x'} {quote(str(obstacle))}" if chgrp else copy
    )


def _is_hidden(path: Path) -> bool:
    """Whether it is we alone who cannot read it."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return not os.access(path, os.R_OK)
