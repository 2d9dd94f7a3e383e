# kubectl and the Python client with an exec plugin. kubectl calls one for https servers only.
from __future__ import annotations

import json

import pytest

from tests.real.clients.conftest import BIN, GRANT, Machine, needs, python_with
from tests.servers.guarded.cluster import ClusterServer

PYTHON = """
import kubernetes
kubernetes.config.load_kube_config()
for pod in kubernetes.client.CoreV1Api().list_namespaced_pod("default").items:
    print(pod.metadata.name)
"""


class Cluster:
    def __init__(self, machine: Machine, api: ClusterServer, url: str) -> None:
        self.machine, self.api = machine, api
        plugin = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(BIN / "brokerctl"),
            "args": ["credential", "kubernetes", GRANT],
            "interactiveMode": "Never",
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": url, "certificate-authority": str(machine.ca_file)}}],
            "users": [{"name": "u", "user": {"exec": plugin}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        folder = machine.home / ".kube"
        folder.mkdir()
        (folder / "config").write_text(json.dumps(config))


@pytest.fixture
async def cluster(machine: Machine) -> Cluster:
    api = ClusterServer(machine.provider)
    return Cluster(machine, api, (await machine.serve(api)).url)


@pytest.fixture
def kubectl() -> None:
    needs("kubectl", required=False)


@pytest.fixture
def python() -> str:
    return python_with("kubernetes")


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
async def test_kubectl_lists_pods(kubectl: None, cluster: Cluster, version: str) -> None:
    words = [f"--exec-api-version=client.authentication.k8s.io/{version}", "--exec-interactive-mode=Never"]
    words += ["--exec-command=brokerctl", *(f"--exec-arg={each}" for each in ("credential", "kubernetes", GRANT))]
    for command in (["set-credentials", "new", *words], ["set-context", "--current", "--user=new"]):
        set_up = await cluster.machine.run("kubectl", "config", *command)
        assert set_up.returncode == 0, set_up.stderr
    done = await cluster.machine.run("kubectl", "get", "pods", "-o", "name")
    assert (done.returncode, done.stdout) == (0, "pod/app-1\n"), done.stderr
    assert {each[1:] for each in cluster.api.shown} == {("Bearer", "", cluster.machine.token)}


async def test_kubectl_says_why_there_is_no_token(kubectl: None, cluster: Cluster) -> None:
    await cluster.machine.brokerd.call("revoke", grant=GRANT, local=True)
    done = await cluster.machine.run("kubectl", "get", "pods")
    assert (done.returncode, cluster.api.shown) == (1, [])
    assert "was revoked" in done.stderr


async def test_the_python_client_lists_pods(python: str, cluster: Cluster) -> None:
    done = await cluster.machine.run(python, "-c", PYTHON)
    assert (done.returncode, done.stdout) == (0, "app-1\n"), done.stderr
    assert {each[1:] for each in cluster.api.shown} == {("Bearer", "", cluster.machine.token)}
