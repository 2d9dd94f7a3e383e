# Checks that the key opens the store. It reads the files as they are; the daemon may run meanwhile.
from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from brokerd.core.ports import StoreError
from brokerd.core.secret import SecretSource
from brokerd.core.validation import ConfigError
from brokerd.doctor.context import Facts
from brokerd.doctor.finding import LOOK_AS_ROOT, Finding, hidden, ok, problem, problem_from, warning
from brokerd.edge.store.at_rest import AtRest, look
from brokerd.setup.installation import key_sources, read_key, sealed

KEY = "key"


def key(facts: Facts) -> Iterable[Finding]:
    if facts.configuration is None:
        return []
    sources = [facts.reachable(each) for each in key_sources(facts.configuration)]
    try:
        store = look(facts.state)
    except PermissionError:
        return [hidden(KEY, str(facts.state))]
    except StoreError as error:
        return [problem_from(KEY, str(error), "restore a backup: brokerctl restore FILE")]
    if not sources:
        return [ok(KEY, "it is made from a passphrase, which brokerctl unlock asks for")]
    kek: bytes | None = None
    for number, source in enumerate(sources):
        if source.command is not None or source.env is not None:
            return [ok(KEY, "it comes from a command or an environment variable, which doctor does not use")]
        if (unread := _hidden(facts, source)) is not None:
            return [unread]
        try:
            kek = read_key(facts.path, source)
        except ConfigError as error:
            remedy = "put the store's key there; only for a new store, make one: brokerctl keygen FILE"
            return [problem_from(KEY, str(error), remedy)]
        if store is None:
            return [ok(KEY, "it can be read; there is no store yet")]
        if store.opens(kek):
            return [_opened(facts, store, previous=number > 0)]
    words = f"{facts.state}: the store was sealed with another key"
    return [problem(KEY, words, f"name the right key in [daemon] key ({facts.path}), or restore the key file")]


def _opened(facts: Facts, store: AtRest, *, previous: bool) -> Finding:
    if store.passphrase:
        words = f"{facts.state}: the store is sealed with a passphrase, but the configuration names a key file"
        return problem(KEY, words, "set key = { passphrase = true } in [daemon], then: brokerctl unlock")
    if previous:
        return warning(KEY, "the store is still sealed with previous_key", "brokerctl key rotate")
    return ok(KEY, f"it opens the store in {facts.state}")


def _hidden(facts: Facts, source: SecretSource) -> Finding | None:
    if source.credential is not None and "CREDENTIALS_DIRECTORY" not in os.environ:
        if (path := sealed(source.credential)) is not None and os.access(path, os.R_OK):
            return None
        if facts.unit is not None and source.credential not in facts.unit.credentials:
            words = f"{facts.unit.name} has no credential {source.credential}"
            return problem(KEY, words, f"{facts.systemctl} edit brokerd: LoadCredential={source.credential}:PATH")
        return warning(KEY, f"credential {source.credential} can be read only while brokerd runs", LOOK_AS_ROOT)
    if source.file is not None and not os.access(source.file, os.R_OK):
        try:
            there = Path(source.file).exists()
        except PermissionError:
            there = True
        return hidden(KEY, source.file) if there else None
    return None
