# AWS's command line and boto3 with credential_process, against an STS that checks Signature Version 4.
from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from subprocess import PIPE

import pytest
import trio

from tests.real.clients.conftest import BIN, ENDS_WITHIN, Machine, needs, python_with
from tests.scenario.daemon.harness import FIVE, Serving, at
from tests.servers import OAuth2
from tests.servers.guarded.aws import AwsServer, Key
from tests.servers.oauth2 import Settings

LIFETIME = 300  # seconds: less than the ten minutes in which botocore asks for another key
FIELDS = ("access_key_id", "secret_access_key")
PYTHON = r"""
import boto3, os, sys
sts = boto3.Session(profile_name="app").client("sts", endpoint_url=sys.argv[1])
for _ in sys.stdin:
    os.write(1, sts.get_caller_identity()["UserId"].encode() + b"\n")
"""


class Aws:
    """A person's AWS configuration with credential_process, and the STS. Its keys are fields of a grant's tokens."""

    def __init__(self, machine: Machine, provider: OAuth2) -> None:
        self.machine, self.provider = machine, provider
        self.api = AwsServer(self._key)
        profile = "[profile {}]\nregion = eu-central-1\ncredential_process = {}/brokerctl credential aws {}\n"
        (machine.home / ".aws").mkdir()
        (machine.home / ".aws" / "config").write_text(
            "".join(profile.format(name, BIN, name) for name in ("app", "no"))
        )
        machine.environment |= {"AWS_CA_BUNDLE": str(machine.ca_file), "AWS_EC2_METADATA_DISABLED": "true"}

    def _key(self, name: str) -> Key | None:
        for token in self.provider.ledger.of_kind("access"):
            if self.id_of(token.value) == name and token.alive(self.provider.settings.now()):
                return Key(self.provider.further(FIELDS[1], token), token.value)
        return None

    def id_of(self, token: str) -> str:
        found = self.provider.ledger.find(token)
        assert found is not None
        return self.provider.further(FIELDS[0], found)

    def ids(self) -> list[str]:
        """Of all keys that were ever issued, in their order."""
        return [self.id_of(each.value) for each in self.provider.ledger.of_kind("access")]

    async def replaced(self) -> None:
        """The key of now dies, and brokerd gets another one."""
        await self.machine.brokerd.get("app", refused=self.provider.ledger.of_kind("access")[-1].value)

    async def run(self, *command: str) -> Sequence[str]:
        done = await self.machine.run(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@pytest.fixture
async def aws(machine: Machine, serving: Serving) -> Aws:
    provider = await serving(OAuth2(Settings(further=FIELDS, access_lifetime=LIFETIME)))
    machine.brokerd.configure({"app": {**FIVE["oauth2"], "fields": FIELDS}}, {"oauth2": at(provider)})
    await machine.brokerd.call("reload")
    made = Aws(machine, provider)
    made.url = (await machine.serve(made.api)).url
    return made


@pytest.fixture
def command_line() -> None:
    needs("aws", required=False)


@pytest.fixture
def boto3() -> str:
    return python_with("boto3")


async def test_the_command_line_signs_with_the_grants_key(command_line: None, aws: Aws) -> None:
    ask = ("aws", "--profile", "app", "--endpoint-url", aws.url, "--output", "json", "sts", "get-caller-identity")
    found = json.loads("".join(await aws.run(*ask)))
    assert [found["UserId"]] == aws.api.used == aws.ids()
    assert aws.machine.token not in "".join(aws.machine.written().values())


async def test_the_command_line_says_why_there_is_no_key(command_line: None, aws: Aws) -> None:
    done = await aws.machine.run("aws", "--profile", "no", "--endpoint-url", aws.url, "sts", "get-caller-identity")
    assert done.returncode != 0
    assert "no grant" in done.stderr
    assert aws.api.used == []


async def test_boto3_asks_again_in_the_same_process_when_its_key_nears_its_end(boto3: str, aws: Aws) -> None:
    command = [boto3, "-c", PYTHON, aws.url]
    async with trio.open_nursery() as nursery:
        start = partial(trio.run_process, command, env=aws.machine.environment, stdin=PIPE, stdout=PIPE)
        program: trio.Process = await nursery.start(start)
        assert program.stdin is not None
        assert program.stdout is not None
        for number in (1, 2):
            await program.stdin.send_all(b"\n")
            with trio.fail_after(ENDS_WITHIN):
                assert await program.stdout.receive_some() == f"{aws.ids()[-1]}\n".encode()
            if number == 1:
                await aws.replaced()
        await program.stdin.aclose()
    assert len({*aws.api.used}) == 2
