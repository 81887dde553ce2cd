"""A small network made of namespaces: the appliance with its links, and one host behind each of them.

veth pairs carry the names that the rules know (vlan100, vlan200, the management interface), so the kernel judges the
very rules the role renders; only the 802.1Q tag is missing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PORTS = (22, 80, 443, 8443)


@dataclass(frozen=True)
class Host:
    """One host behind one link of the appliance, with the addresses it may use as its source."""

    name: str
    link: str
    appliance: tuple[str, ...]
    addresses: tuple[str, ...]


HOSTS = (
    Host("manager", "eno1", ("192.0.2.1/24", "2001:db8:1::1/64"), ("192.0.2.9/24", "2001:db8:1::9/64")),
    Host("agent", "vlan100", ("10.0.1.1/24", "fd00:100::1/64"), ("10.0.1.2/24", "fd00:100::2/64")),
    Host("gateway", "vlan200", ("10.0.2.1/24", "fd00:200::1/64"), ("10.0.2.2/24", "fd00:200::2/64")),
)


class Bed:
    """Makes the namespaces and removes them; all of them carry this process's number in their name."""

    def __init__(self) -> None:
        self.prefix = f"kosmos-{os.getpid()}"
        self.servers: list[subprocess.Popen[bytes]] = []

    def namespace(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def run(self, name: str, *command: str, text: str | None = None) -> str:
        """Run a command in one of the namespaces and return what it printed."""
        argv = ["ip", "netns", "exec", self.namespace(name), *command]
        return subprocess.run(argv, check=True, capture_output=True, text=True, input=text, timeout=60).stdout

    def up(self) -> None:
        for name in ("appliance", *(host.name for host in HOSTS)):
            subprocess.run(["ip", "netns", "add", self.namespace(name)], check=True)
            self.run(name, "sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
            self.run(name, "ip", "link", "set", "lo", "up")
        self.run("appliance", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
                 "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")  # fmt: skip
        for host in HOSTS:
            self.run("appliance", "ip", "link", "add", host.link, "type", "veth",
                     "peer", "name", "up0", "netns", self.namespace(host.name))  # fmt: skip
            self._addresses("appliance", host.link, host.appliance)
            self._addresses(host.name, "up0", host.addresses)
            for address in host.appliance:
                self.run(host.name, "ip", "route", "add", "default", "via", address.split("/")[0])
        # A stranger: reached by the management link, but no part of the management network.
        self._addresses("manager", "up0", ("198.51.100.9/24",))
        self.run("appliance", "ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.9")
        for name in ("appliance", *(host.name for host in HOSTS)):
            argv = [
                "ip",
                "netns",
                "exec",
                self.namespace(name),
                sys.executable,
                str(HERE / "talk.py"),
                "serve",
                *map(str, PORTS),
            ]
            server = subprocess.Popen(argv, stdout=subprocess.PIPE)
            self.servers.append(server)
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"

    def _addresses(self, name: str, link: str, addresses: Sequence[str]) -> None:
        self.run(name, "ip", "link", "set", link, "up")
        for address in addresses:
            self.run(name, "ip", "address", "add", address, "dev", link)

    def load(self, rules: str) -> None:
        """Load a rule set into the appliance."""
        self.run("appliance", "nft", "-f", "-", text=rules)

    def counter(self, chain: str) -> int:
        """Return how many packets the last rule of a chain has counted."""
        table = json.loads(self.run("appliance", "nft", "-j", "list", "chain", "inet", "kosmos", chain))
        counters = [
            e["counter"]["packets"]
            for i in table["nftables"]
            for e in i.get("rule", {}).get("expr", [])
            if "counter" in e
        ]
        return int(counters[-1])

    def connect(self, name: str, *attempts: tuple[str, str, int]) -> list[bool]:
        """Try to open TCP connections (source, destination, port) from a host, all at once; tell which opened."""
        return list(json.loads(self.run(name, sys.executable, str(HERE / "talk.py"), "connect", json.dumps(attempts))))

    def down(self) -> None:
        for server in self.servers:
            server.kill()
            server.wait()
        for name in ("appliance", *(host.name for host in HOSTS)):
            subprocess.run(["ip", "netns", "delete", self.namespace(name)], check=False)
