# That the search finds what gets out: the same daemon, with a leak in each of the places that are searched.
from __future__ import annotations

import pytest

from tests.scenario.daemon.harness import until
from tests.scenario.secrets import life
from tests.scenario.secrets.leaks import LEAKS, a_core
from tests.scenario.secrets.search import search
from tests.scenario.secrets.world import SOURCES, World

WHERE = {  # leak -> where its secret is found, and which
    "a_token_in_the_log": ("the log", "token of oauth2"),
    "a_token_in_the_audit_log": ("state/audit/audit-0001.jsonl", "token of oauth2"),
    "words_of_a_provider_as_they_came": ("answers and output", "description"),
    "records_that_are_not_sealed": ("state/brokerd.db", "token of oauth2"),
    "an_environment_that_is_not_overwritten": ("/proc/PID/environ", "env"),
    "a_command_that_is_told_a_secret": ("seen-by-command", "handed-down"),
    "an_error_that_quotes_what_came": ("answers and output", "passphrase"),
    "a_file_that_is_left_behind": ("tmp/last-request", "description"),
}


async def test_every_leak_is_found(world: World) -> None:
    brokerd = world.brokerd
    brokerd.module = "tests.scenario.secrets.leaks"
    brokerd.its_environment += (f"TEST_ONLY_HANDED_DOWN={world.new('handed-down')}",)
    await brokerd.start()
    for source in SOURCES:
        assert (await world.ask("get", grant=f"by-{source}"))["value"]
    await world.ask("rotate_key", passphrase=world.new("passphrase"))
    world.configure({"echo": world.echoing()["echo-description"]})
    await world.ask("reload")
    await world.ask("get", grant="echo", wait=5)
    log = brokerd.state / "audit" / "audit-0001.jsonl"
    await until(lambda: b'"grant":"echo"' in log.read_bytes())  # it is written in groups
    world.look("running")
    with pytest.raises(AssertionError, match="it left a core"):
        await life.core(world)
    found = search(world.gather(), world.everything())
    missed = {
        leak
        for leak, (place, secret) in WHERE.items()
        if not any(each.place.startswith(place) and each.secret.startswith(secret) for each in found)
    }
    assert missed == set(), "\n".join(map(str, found))


def test_every_leak_has_its_place() -> None:
    assert {each.__name__ for each in LEAKS} == {*WHERE, a_core.__name__}
