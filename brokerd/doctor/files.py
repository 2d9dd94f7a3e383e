# Checks the configuration as the daemon reads it, and the files that it names: brokerd can read them, others cannot.
from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from shlex import quote

from brokerd.config.load import places
from brokerd.config.toml_files import DEFAULT_CONFIG, drop_ins
from brokerd.core.file_remedies import change
from brokerd.core.ports import TransportError
from brokerd.core.secret import SecretSource
from brokerd.core.validation import ConfigError
from brokerd.doctor.context import Facts
from brokerd.doctor.finding import Finding, Level, hidden, ok, problem, problem_from, warning
from brokerd.edge.files import ownership
from brokerd.edge.files.secret_sources import WRITE, SecretUnreadable, doubtful
from brokerd.edge.http.connection import check
from brokerd.setup.check import counted, located, unknown_callers
from brokerd.setup.installation import http_settings, key_sources


def configuration(facts: Facts) -> Iterable[Finding]:
    name, path = "configuration", Path(facts.path)
    if facts.configuration is None:
        assert facts.refused is not None, "there is a configuration, or a reason why not"
        if _is_hidden(Path(facts.refused.file)):
            return [hidden(name, facts.refused.file)]
        if facts.is_strange and facts.path == DEFAULT_CONFIG and not path.exists():
            words = f"the configuration of the brokerd at {facts.socket} is not known, so it was not checked"
            return [warning(name, words, "to check it too, name it: brokerctl doctor --config FILE")]
        return [
            problem_from(name, located(each), f"correct it, {facts.check_again}")
            for each in (facts.refused, *facts.refused.others)
        ]
    found = list(_closed(facts, name, (path, *drop_ins(path))))
    for provider in facts.configuration.providers.values():
        try:
            check(http_settings(provider), facts.environ)
        except TransportError as error:
            words = f"{facts.path}: providers.{provider.name}: {error.reason}"
            found.append(problem_from(name, words, f"correct it, {facts.check_again}"))
    return found or [ok(name, f"{facts.path}: {counted(facts.configuration)}")]


def rules(facts: Facts) -> Iterator[Finding]:
    """The users and groups that rules name can match somebody."""
    if facts.configuration is None:
        return
    found = list(unknown_callers(facts.configuration))
    for each in found:
        error = problem_from("rules", located(each), f"correct the name, or create it; {facts.check_again}")
        yield replace(error, level=Level.WARNING)
    if facts.configuration.rules and not found:
        yield ok("rules", "all users and groups that they name exist")


def secrets(facts: Facts) -> Iterator[Finding]:
    """Secrets of grants that are in files. Commands are not run, and another process's environment is not read."""
    if facts.configuration is None:
        return
    name, read, files = "secrets", 0, places(facts.path)
    for grant in facts.configuration.grants.values():
        for key, source in grant.sources:
            if source.file is None and source.credential is None:
                continue
            place_of = ConfigError("", key=f"grants.{grant.name}.{key}", file=str(files["grants", grant.name]))
            found = _secret(facts, located(place_of).removesuffix(": "), source)
            read += found is None
            if found is not None:
                yield found
    if read:
        yield ok(name, f"{read} of them can be read")


def permissions(facts: Facts) -> Iterator[Finding]:
    """The state directory and the key file belong to brokerd alone."""
    name = "permissions"
    if facts.configuration is None:
        return
    if not facts.state.exists():
        yield warning(name, f"{facts.state} does not exist yet", f"start brokerd, which creates it: {facts.start}")
        return
    try:
        faults = ownership.faults_of_state(facts.state, facts.account.uid)
    except PermissionError:
        yield hidden(name, str(facts.state))
        return
    for fault in faults:
        yield problem_from(name, fault, "use a directory of brokerd's own: set [daemon] state_dir")
    for source in key_sources(facts.configuration):
        if source.file is not None and Path(source.file).exists():
            closed = list(_closed(facts, name, [Path(source.file)]))
            faults += [each.found for each in closed]
            yield from closed
    if not faults:
        yield ok(name, f"{facts.state} belongs to {facts.account.name} alone")


def _secret(facts: Facts, key: str, source: SecretSource) -> Finding | None:
    """`key`: with its file and line."""
    name, reachable = "secrets", facts.reachable(source)
    if reachable.credential is not None and "CREDENTIALS_DIRECTORY" not in os.environ:
        if facts.unit is None or reachable.credential in facts.unit.credentials:
            return None
        words = f"{key}: {facts.unit.name} has no credential {reachable.credential}"
        return problem(name, words, f"{facts.systemctl} edit brokerd: LoadCredential={reachable.credential}:PATH")
    if reachable.file is not None and Path(reachable.file).exists():
        if not os.access(reachable.file, os.R_OK):
            return hidden(name, f"{key}: {reachable.file}")
        if reachable is source and (closed := next(_closed(facts, name, [Path(reachable.file)]), None)):
            return closed
    try:
        doubt = doubtful(reachable)
    except SecretUnreadable as error:
        return problem_from(name, f"{key}: {error}", WRITE)
    if doubt is None:
        return None
    found, _, remedy = doubt.rpartition("; ")
    return warning(name, f"{key}: {found}", remedy)


def _closed(facts: Facts, name: str, files: Iterable[Path]) -> Iterator[Finding]:
    """Files that brokerd itself cannot read, though we can."""
    user = facts.account
    for file in files:
        if (obstacle := user.first_closed(file)) is not None:
            words = f"{file} cannot be read by {user.name}" + ("" if obstacle == file else f", because of {obstacle}")
            yield problem(name, words, _let_in(facts, file, obstacle))


def _let_in(facts: Facts, file: Path, obstacle: Path) -> str:
    """How to let brokerd's user read the file. A mode is changed only in the configuration's own directory:
    elsewhere it may keep others out for a good reason."""
    home, mode = Path(facts.path).absolute().parent, obstacle.stat().st_mode
    copy = f"copy it to {home / 'secrets' / file.name}, where {facts.account.name} can read it, and name the copy"
    if not obstacle.is_relative_to(home.resolve()):
        return copy
    chgrp = change(f"chgrp {facts.account.group}", str(obstacle), mode, "")
    return (
        f"{chgrp} && chmod {'g+r' if obstacle == file.resolve() else 'g+x'} {quote(str(obstacle))}" if chgrp else copy
    )


def _is_hidden(path: Path) -> bool:
    """Whether it exists and we may not read it."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return not os.access(path, os.R_OK)
