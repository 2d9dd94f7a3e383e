# The network of the test: three bridges (etcd's nodes among each other, etcd and the hosts, the provider and the hosts)
# in our own network namespace, and a namespace for each machine. A machine's link to a bridge can be cut.
from __future__ import annotations

import subprocess
from collections.abc import Sequence

PEERS, STORE, WEB, ISLAND = "peers", "store", "web", "island"
NETS = {PEERS: "10.91.0", STORE: "10.92.0", WEB: "10.93.0"}
OURS = 254  # our own address in each net
UNPLUGGED, DOWN = "unplugged", "down"  # packets vanish; or the machine sees that its link has no carrier


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Network:
    def __init__(self) -> None:
        ip("link", "set", "lo", "up")
        for net, prefix in NETS.items():
            ip("link", "add", net, "type", "bridge", "forward_delay", "0")
            ip("addr", "add", f"{prefix}.{OURS}/24", "dev", net)
            ip("link", "set", net, "up")
        ip("link", "add", ISLAND, "type", "bridge", "forward_delay", "0")
        ip("link", "set", ISLAND, "up")

    def machine(self, name: str, number: int, nets: Sequence[str]) -> None:
        """A namespace with an address in each of these nets."""
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
        for net in nets:
            link = _link(net, name)
            ip("link", "add", link, "type", "veth", "peer", "name", net, "netns", name)
            ip("-n", name, "addr", "add", f"{NETS[net]}.{number}/24", "dev", net)
            ip("-n", name, "link", "set", net, "up")
            ip("link", "set", link, "master", net, "up")

    def cut(self, name: str, net: str, how: str) -> None:
        words = ("nomaster",) if how == UNPLUGGED else ("down",)
        ip("link", "set", _link(net, name), *words)

    def move(self, name: str, net: str, bridge: str) -> None:
        """To another bridge, with whatever else is there."""
        ip("link", "set", _link(net, name), "master", bridge, "up")

    def mend(self, name: str, net: str) -> None:
        self.move(name, net, net)


def inside(name: str) -> list[str]:
    """What begins a command that runs on that machine."""
    return ["nsenter", f"--net=/run/netns/{name}"]


def _link(net: str, name: str) -> str:
    return f"{net[0]}-{name}"
