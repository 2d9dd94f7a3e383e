# What a host keeps of its fleet in its own store (edge/fleet/local_copy.py).
from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest

from brokerd.edge.fleet.local_copy import KnownFleet, LocalCopy
from brokerd.edge.store.sealed_meta import FLEET_KEYS
from tests.unit.edge.store.stores import FULL, PRINT, running

STRANGE = {"none": "", "garbage": "hunter2", "of another data key": b64encode(b"\1\0\0\0\7" + bytes(60)).decode()}


@pytest.mark.parametrize("value", STRANGE.values(), ids=STRANGE)
async def test_data_keys_that_are_not_there_or_do_not_open_are_none(tmp_path: Path, value: str) -> None:
    """A host knew its fleet and had no data keys of it. Reading them failed the whole store, as a fault of brokerd."""
    async with running(tmp_path) as store:
        copy = LocalCopy(store)
        await copy.remember(known := KnownFleet("store", 1, 2, 3))
        await store.do(lambda database: database.set_meta(FLEET_KEYS, value))
        assert await copy.keys() == {}
        assert store.trouble is None
        await copy.remember_keys({1: b"k" * 32})
        assert (await copy.known(), await copy.keys()) == (known, {1: b"k" * 32})
        await store.write(FULL, PRINT, None, concludes=True)
