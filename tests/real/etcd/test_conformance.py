# The real client against real servers: what every Etcd does.
from __future__ import annotations

import pytest

from tests.real.etcd.conformance import CHECKS, Check, Subject

pytestmark = pytest.mark.real


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_client_conforms(check: Check, subject: Subject) -> None:
    await check(subject)
