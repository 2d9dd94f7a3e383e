# SDKs of clouds as they are, with the metadata endpoints of brokerd-proxy: boto3, the aws command line, google-auth and
# Google's library for storage, azure-identity. Each uses what it got at a server that checks it.
from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.free_port import free_port
from tests.real.clients.conftest import Machine, needs, python_with
from tests.real.clients.test_aws import FIELDS, LIFETIME
from tests.scenario.daemon.harness import FIVE, Serving, Table, at, toml
from tests.scenario.proxy.process import Proxy
from tests.servers import OAuth2
from tests.servers.guarded.aws import AwsServer, Key
from tests.servers.guarded.guard import Guarded, Shown
from tests.servers.http import Answer, Request, Response
from tests.servers.oauth2 import Settings

RESOURCE = "https://graph.example"
WORD = "test-only-word-of-the-endpoint"
BOTO3 = """
import boto3, sys
print(boto3.client("sts", endpoint_url=sys.argv[1], region_name="eu-central-1").get_caller_identity()["UserId"])
"""
GOOGLE = """
import google.auth, google.auth.transport.requests, sys
credentials, project = google.auth.default(scopes=["read"])
session = google.auth.transport.requests.AuthorizedSession(credentials)
print(session.get(sys.argv[1]).status_code, project, credentials.service_account_email)
"""
STORAGE = """
import sys
from google.cloud import storage
print(len(list(storage.Client(client_options={"api_endpoint": sys.argv[1]}).list_buckets())))
"""
AZURE = """
import sys, urllib.request
from azure.identity import ManagedIdentityCredential
token = ManagedIdentityCredential().get_token(sys.argv[2])
request = urllib.request.Request(sys.argv[1], headers={"Authorization": f"Bearer {token.token}"})
print(urllib.request.urlopen(request).status)
"""


class Api(Guarded):
    """Answers whoever shows a living token: one bucket for Google's library, and an object for the others."""

    async def serve(self, request: Request, shown: Shown) -> Answer:
        found: dict[str, Any] = {"items": [{"name": "one", "id": "one"}]} if "/b" in request.path else {"ok": True}
        return Response(200, (("content-type", "application/json"),), json.dumps(found).encode())


class Endpoints(Proxy):
    """One endpoint of each kind for the grant "app", and the environment that leads an SDK to it."""

    def describe(self, **settings: object) -> None:
        self.ports = {kind: free_port() for kind in ("aws-container", "aws-imds", "gce", "azure")}
        self.word = self.folder / "word"
        self.word.write_text(WORD)
        self.word.chmod(0o600)
        own: dict[str, Table] = {
            "aws-container": {"authorization_file": self.word},
            "aws-imds": {"role": "reader"},
            "gce": {"email": "app@project.iam.example", "project": "project-1", "scopes": ["read"]},
            "azure": {"resource": RESOURCE, "header_file": self.word},
        }
        tables = {
            kind: {"kind": kind, "grant": "app", "listen": f"127.0.0.1:{port}", "caller": {"uid": 0}, **own[kind]}
            for kind, port in self.ports.items()
        }
        self.write(
            "\n".join(
                f"[metadata.{name}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in table.items())
                for name, table in tables.items()
            )
        )

    def url(self, kind: str) -> str:
        return f"http://127.0.0.1:{self.ports[kind]}"

    @property
    def environment(self) -> dict[str, dict[str, str]]:
        google = f"127.0.0.1:{self.ports['gce']}"
        return {
            "aws-container": {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.url('aws-container')}/",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(self.word),
            },
            "aws-imds": {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.url("aws-imds")},
            "gce": {"GCE_METADATA_HOST": google, "GCE_METADATA_IP": google},
            "azure": {"IDENTITY_ENDPOINT": f"{self.url('azure')}/", "IDENTITY_HEADER": WORD},
        }


class World:
    def __init__(self, machine: Machine, provider: OAuth2, endpoints: Endpoints) -> None:
        self.machine, self.provider, self.endpoints = machine, provider, endpoints
        self.sts, self.api = AwsServer(self._key), Api(provider, "Bearer")

    def _key(self, name: str) -> Key | None:
        for token in self.provider.ledger.of_kind("access"):
            if self.provider.further(FIELDS[0], token) == name:
                return Key(self.provider.further(FIELDS[1], token), token.value)
        return None

    async def run(self, kind: str, *command: str) -> str:
        """What the program printed. It has the environment of that endpoint."""
        environment = {**self.endpoints.environment[kind], "AWS_CA_BUNDLE": str(self.machine.ca_file)}
        done = await self.machine.run(*command, **environment, REQUESTS_CA_BUNDLE=str(self.machine.ca_file))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
async def world(machine: Machine, serving: Serving, nursery: trio.Nursery, folder: Path) -> AsyncIterator[World]:
    provider = await serving(OAuth2(Settings(further=FIELDS, access_lifetime=LIFETIME)))
    machine.brokerd.configure({"app": {**FIVE["oauth2"], "fields": FIELDS}}, {"oauth2": at(provider)})
    await machine.brokerd.call("reload")
    endpoints = Endpoints(folder, nursery, machine.brokerd, None)  # type: ignore[arg-type]
    await endpoints.start()
    made = World(machine, provider, endpoints)
    made.sts.url = (await machine.serve(made.sts)).url
    made.api.url = (await machine.serve(made.api)).url
    yield made
    with trio.CancelScope(shield=True):
        await endpoints.close()


@pytest.mark.parametrize("kind", ["aws-container", "aws-imds"])
async def test_boto3_signs_with_the_grants_keys(world: World, kind: str) -> None:
    found = await world.run(kind, python_with("boto3"), "-c", BOTO3, world.sts.url)
    assert [found] == world.sts.used


@pytest.mark.parametrize("kind", ["aws-container", "aws-imds"])
async def test_the_command_line_of_aws_does_too(world: World, kind: str) -> None:
    needs("aws", required=False)
    ask = ("--endpoint-url", world.sts.url, "--region", "eu-central-1", "sts", "get-caller-identity")
    found = json.loads(await world.run(kind, "aws", *ask))
    assert [found["UserId"]] == world.sts.used


async def test_google_auth_finds_token_account_and_project(world: World) -> None:
    found = await world.run("gce", python_with("google.auth"), "-c", GOOGLE, world.api.url)
    assert found == "200 project-1 app@project.iam.example"
    assert [each.secret for each in world.api.shown] == [world.provider.ledger.of_kind("access")[-1].value]


async def test_googles_library_for_storage_lists_buckets(world: World) -> None:
    assert await world.run("gce", python_with("google.cloud.storage"), "-c", STORAGE, world.api.url) == "1"


async def test_azure_identity_gets_a_token_for_its_resource(world: World) -> None:
    found = await world.run("azure", python_with("azure.identity"), "-c", AZURE, world.api.url, RESOURCE)
    assert found == "200"
