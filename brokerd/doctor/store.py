# The key and the store: whether the one opens the other. Looked at as they lie, beside a daemon that works with them.
from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from brokerd.core.ports import StoreError
from brokerd.core.secret import SecretSource
from brokerd.core.typed import ConfigError
from brokerd.doctor.finding import LOOK_AS_ROOT, Finding, ok, problem, told, unseen, warning
from brokerd.doctor.scene import Scene
from brokerd.edge.at_rest import AtRest, look
from brokerd.installation import key_sources, read_key, sealed

KEY = "key"


def key(scene: Scene) -> Iterable[Finding]:
    if scene.configuration is None:
        return []
    sources = [scene.reachable(each) for each in key_sources(scene.configuration)]
    try:
        store = look(scene.state)
    except PermissionError:
        return [unseen(KEY, str(scene.state))]
    except StoreError as error:
        return [told(KEY, str(error), "restore a copy of the state directory")]
    if not sources:
        return [ok(KEY, "it is a passphrase, which brokerctl unlock asks for")]
    kek: bytes | None = None
    for number, source in enumerate(sources):
        if source.command is not None or source.env is not None:
            return [ok(KEY, "it comes from where it is not fetched by this command")]
        if (hidden := _hidden(scene, source)) is not None:
            return [hidden]
        try:
            kek = read_key(scene.path, source)
        except ConfigError as error:
            return [told(KEY, str(error), "brokerctl keygen FILE makes one, for a new store")]
        if store is None:
            return [ok(KEY, "it can be read, and there is no store yet")]
        if store.opens(kek):
            return [_opened(scene, store, previous=number > 0)]
    words = f"{scene.state}: the key is not the one that the store was sealed with"
    return [problem(KEY, words, f"name the right one: [daemon] key in {scene.path}, or restore it")]


def _opened(scene: Scene, store: AtRest, *, previous: bool) -> Finding:
    if store.passphrase:
        words = f"{scene.state}: the store is sealed with a passphrase, and the configuration names another key"
        return problem(KEY, words, "key = { passphrase = true }, then: brokerctl unlock")
    if previous:
        return warning(KEY, "the store is sealed with previous_key still", "brokerctl key rotate")
    return ok(KEY, f"it opens the store in {scene.state}")


def _hidden(scene: Scene, source: SecretSource) -> Finding | None:
    if source.credential is not None and "CREDENTIALS_DIRECTORY" not in os.environ:
        if (path := sealed(source.credential)) is not None and os.access(path, os.R_OK):
            return None
        if scene.unit is not None and source.credential not in scene.unit.credentials:
            words = f"{scene.unit.name} is given no credential {source.credential}"
            return problem(KEY, words, f"{scene.systemctl} edit brokerd: LoadCredential={source.credential}:PATH")
        return warning(KEY, f"credential {source.credential} can be seen while brokerd runs", LOOK_AS_ROOT)
    if source.file is not None and not os.access(source.file, os.R_OK):
        try:
            there = Path(source.file).exists()
        except PermissionError:
            there = True
        return unseen(KEY, source.file) if there else None
    return None
