# Callers that the rules of world.py allow do get a token. Without these tests, a table of refusals proves nothing.
from __future__ import annotations

import time

import pytest
from brokerd_client.shared_token import CLOSED, TOKEN

from tests.scenario.access.world import APP, DYNAMIC, ID, OTHER, PATIENCE, SPECIAL, World


def test_a_user(here: World) -> None:
    assert here.process(APP).connect().asks("uid") == "token"


def test_a_member_of_a_group(here: World) -> None:
    assert here.process(OTHER, SPECIAL).connect().asks("group") == "token"


@pytest.mark.parametrize("grant", ["exe", "sha256"])
def test_a_program(here: World, grant: str) -> None:
    assert here.process(APP).connect().execute(here.portal, "portal").shell_asks(grant) == "token"


@pytest.mark.parametrize("within", ["portal.service", "portal.service/worker", "more.slice/portal.service"])
@pytest.mark.parametrize("uid", [APP, DYNAMIC])
def test_a_unit_and_what_is_below_it(here: World, within: str, uid: int) -> None:
    assert here.process(uid, within=within).connect().asks("unit") == "token"


def test_a_unit_of_a_slice(here: World) -> None:
    assert here.process(APP, within="any.service").connect().asks("slice") == "token"


def test_a_unit_of_a_users_own_systemd(here: World) -> None:
    process = here.process(APP, within=f"user@{APP}.service/app.slice/portal.service")
    assert process.connect().asks("user-unit") == "token"


@pytest.mark.parametrize("within", [f"docker-{ID}.scope", f"docker/{ID}", f"kubepods/burstable/pod7/{ID}"])
def test_a_container_also_with_pids_and_a_root_of_its_own(here: World, within: str) -> None:
    process = here.process(within=within).unshare("pid").fork()
    assert process.connect().asks("container") == "token"


def test_a_push_reaches_who_watches(here: World) -> None:
    process = here.process(APP).connect()
    process.watches("watched-3")
    here.refresh("watched-3")
    assert process.reply() == "token"


def test_who_has_a_shared_token_reads_renewals_in_it(here: World) -> None:
    """So does a process to which the caller gives it, as this one: it could give away the token itself."""
    process = here.process(APP).connect()
    assert process.asks("shared") == "token"  # its first one may still be on its way
    reader = process.shares("shared")
    assert reader.read() is not None
    assert reader._look().state == TOKEN


@pytest.mark.parametrize("grant", ["exe", "sha256"])
def test_a_program_keeps_its_shared_token(here: World, grant: str) -> None:
    """Also when its path is not believed any more and is read again, which takes 5 s."""
    process = here.process(APP).connect().execute(here.portal, "portal")
    assert process.shell_asks(grant) == "token"
    reader = process.shell_shares(grant)
    first = reader._look().sequence
    deadline = time.monotonic() + 4 * PATIENCE
    while reader._look().sequence <= first + 2 or reader.read() is None:
        assert time.monotonic() < deadline, "it was not looked at again"
        assert reader._look().state != CLOSED
        time.sleep(0.01)
