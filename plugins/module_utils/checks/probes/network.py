"""Probes over the network: ports, links, names, nftables."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import Arg, Found, Host, Kind, ProbeError
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.probes.files import pick

LISTENING = {"tcp": "0A", "udp": "07"}  # TCP_LISTEN; an unconnected UDP socket is in TCP_CLOSE


def _listeners(host: Host, protocol: str) -> Iterator[tuple[str, int, str]]:
    """Yield (address, port, inode) of every listening socket."""
    for table in (protocol, f"{protocol}6"):
        for line in (host.text(f"/proc/net/{table}") or "").splitlines()[1:]:
            words = line.split()
            if len(words) > 9 and words[3] == LISTENING[protocol]:
                address, port = words[1].split(":")
                yield _address(address), int(port, 16), words[9]


def _address(text: str) -> str:
    """Return the address of /proc/net/tcp: 32-bit words in the host's (little endian) order."""
    words = [bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, b"".join(words))


def port(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell who listens on a port, on which addresses, or which ports are open at all."""
    protocol, number, attribute = str(args["proto"]), args["port"], args["attribute"]
    rows = sorted(set(_listeners(host, protocol)))
    evidence = f"/proc/net/{protocol} and {protocol}6"
    if attribute == "open":
        outside = {row[1] for row in rows if not ipaddress.ip_address(row[0]).is_loopback}
        return Found(sorted(outside), f"{evidence}, without loopback")
    if number is None:
        raise ProbeError(f"the attribute {attribute} needs the argument port")
    mine = [row for row in rows if row[1] == number]
    if attribute == "listening":
        return Found(bool(mine), f"{evidence}: port {number}")
    if attribute == "addresses":
        return Found([row[0] for row in mine] or None, f"{evidence}: port {number}")
    owners = sorted({_owner(host, row[2]) for row in mine})
    return Found(
        ", ".join(owners) or None, f"{evidence}: port {number} on {', '.join(r[0] for r in mine) or 'nothing'}"
    )


def _owner(host: Host, inode: str) -> str:
    """Return the name of the process that holds the socket; systemd's sockets are held by several, pid 1 last."""
    owners = host.once("socket owners", lambda: _owners(host))
    return owners.get(inode, "unknown")


def _owners(host: Host) -> dict[str, str]:
    owners: dict[str, str] = {}
    pids = sorted((name for name in host.names("/proc") or [] if name.isdigit()), key=int)
    for pid in pids:
        for handle in host.names(f"/proc/{pid}/fd") or []:
            try:
                target = str(host.path(f"/proc/{pid}/fd/{handle}").readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                owners[target[8:-1]] = (host.text(f"/proc/{pid}/comm") or "unknown").strip()
    return owners


def link(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell an attribute of a network interface."""
    name, attribute = str(args["name"]), str(args["attribute"])
    folder = f"/sys/class/net/{name}"
    if not host.path(folder).exists():
        return Found(False if attribute == "exists" else None, f"{folder}: absent")
    if attribute == "exists":
        return Found(True, folder)
    if attribute in {"operstate", "address", "mtu", "carrier"}:
        try:
            text = (host.text(f"{folder}/{attribute}") or "").strip()
        except OSError:  # the kernel refuses carrier and speed of an interface that is down
            return Found(None, f"{folder}/{attribute}: interface is down")
        return Found(int(text) if text.isdigit() else text, f"{folder}/{attribute}")
    argv = ["ip", "-j", "-d", "addr", "show", "dev", name]
    done = host.command(argv)
    if done.rc != 0:
        raise ProbeError(f"`{' '.join(argv)}`: {done.stderr.strip()}")
    facts = json.loads(done.stdout)[0]
    if attribute == "addresses":
        value: Any = [f"{entry['local']}/{entry['prefixlen']}" for entry in facts.get("addr_info", [])]
    elif attribute == "parent":
        value = facts.get("link")
    else:
        value = pick(facts, "linkinfo.info_data.id")
    return Found(value, " ".join(argv))


def resolve(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell the addresses of a name by the host's own resolver; absent when there is none."""
    done = host.command(["getent", "ahosts", str(args["name"])], float(args["timeout_seconds"]))
    addresses = sorted({line.split()[0] for line in done.stdout.splitlines() if line})
    return Found(addresses or None, f"getent ahosts {args['name']} (exit {done.rc})")


def nft(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell about a table or chain of nftables: exists, policy, rules as text."""
    family, table, chain = str(args["family"]), str(args["table"]), args["chain"]
    argv = ["nft", "list", "table", family, table]
    done = host.command(argv)
    if done.rc is None:
        return Found(None, "nft: not installed")
    evidence = " ".join(argv) + (f": chain {chain}" if chain else "")
    if done.rc != 0 and "No such file" not in done.stderr:
        raise ProbeError(f"`{evidence}`: {done.stderr.strip()}")
    text: str | None = done.stdout if done.rc == 0 else None
    if text is not None and chain:
        match = re.search(rf"^\tchain {re.escape(chain)} {{\n(.*?)^\t}}", text, re.MULTILINE | re.DOTALL)
        text = match.group(1) if match else None
    if args["attribute"] == "exists":
        return Found(text is not None, evidence)
    if text is None:
        return Found(None, f"{evidence} (absent)")
    if args["attribute"] == "policy":
        match = re.search(r"policy (\w+);", text)
        return Found(match.group(1) if match else None, evidence)
    return Found([" ".join(line.split()) for line in text.splitlines() if line.strip()], evidence)


PROTO = Arg("proto", "tcp or udp", default="tcp", choices=("tcp", "udp"))
KINDS = {
    "port": Kind(
        port,
        "A port: `listening`, `addresses`, `owner` (process name, absent when free); `open` lists all but loopback.",
        (
            PROTO,
            Arg("port", "number (not for open)", type="int", default=None),
            Arg("attribute", "what to tell", default="owner", choices=("listening", "addresses", "owner", "open")),
        ),
        rooted=True,
    ),
    "link": Kind(
        link,
        "A network interface. `vlan_id` and `parent` are absent for one that is no VLAN.",
        (
            Arg("name", "interface", required=True),
            Arg(
                "attribute",
                "what to tell",
                default="exists",
                choices=("exists", "operstate", "address", "mtu", "carrier", "addresses", "parent", "vlan_id"),
            ),
        ),
        rooted=False,
    ),
    "resolve": Kind(
        resolve,
        "The addresses of a host name.",
        (Arg("name", "host name", required=True), Arg("timeout_seconds", "longest wait", type="float", default=10)),
        rooted=False,
    ),
    "nft": Kind(
        nft,
        "A table of nftables, or one chain of it: `exists`, `policy`, `rules` (list of folded lines).",
        (
            Arg("table", "table", required=True),
            Arg("family", "address family", default="inet"),
            Arg("chain", "only this chain", default=None),
            Arg("attribute", "what to tell", default="rules", choices=("exists", "policy", "rules")),
        ),
        rooted=False,
    ),
}
