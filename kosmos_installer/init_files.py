"""The text of a new inventory's two files. inventories/example is this text for the example's answers."""

from __future__ import annotations

from collections.abc import Mapping

from kosmos_installer.model import API_VERSION
from kosmos_installer.yaml_file import shown

#: Answer to "which host": the machine that kosmos-install runs on.
LOCAL = "localhost"
#: Answer to "which NTP servers": none is reachable.
OFFLINE = "offline"

#: The addresses are those of RFC 5737, the names those of RFC 2606: nobody's.
EXAMPLE_ANSWERS = {
    "name": "kosmos-1",
    "profile": "appliance",
    "host": "192.0.2.10",
    "user": "operator",
    "hostname": "kosmos-1",
    "domain": "kosmos.internal",
    "timezone": "Etc/UTC",
    "ntp": "ntp1.example.org, ntp2.example.org",
    "management_interface": "eno1",
    "allowed_cidrs": "192.0.2.0/24",
    "trunk": "eno2",
    "data_disk": "/dev/disk/by-id/nvme-eui.0025385b21404321",
}

_COLUMN = 62


def appliance_text(answers: Mapping[str, str]) -> str:
    """group_vars/all/kosmos.yml for these answers. Values are quoted as YAML needs; they may still be wrong."""
    value = {key: shown(text) for key, text in answers.items()}
    offline = answers["ntp"] == OFFLINE
    time = "    offline: true" if offline else f"    servers: {_list(answers['ntp'])}"
    rows = [
        ("  name: " + value["name"], "asked for by: kosmos-install reset --confirm"),
        ("  profile: " + value["profile"], "appliance, or lab to try it out"),
        ("  hostname: " + value["hostname"], ""),
        ("  domain: " + value["domain"], ""),
        ("  timezone: " + value["timezone"], ""),
        ("  operator:", ""),
        ("    user: " + value["user"], "has an SSH key and sudo; is never locked out"),
        ("  management:", ""),
        ("    interface: " + value["management_interface"], "ip -br link"),
        ("    allowed_cidrs: " + _list(answers["allowed_cidrs"]), "who may open SSH; everybody else is dropped"),
        ("  time:", ""),
        (time, "no server is reachable" if offline else "or, where none is reachable: offline: true"),
        ("  storage:", ""),
        ("    data_disk: " + value["data_disk"], "empty; ls /dev/disk/by-id"),
        ("  network:", ""),
        ("    trunk: " + value["trunk"], "carries the VLANs; not the management interface"),
        ("    zones:", "the host's address in each, and its VLAN on the trunk"),
        ("      - {name: agent_internal, vlan: 100, cidr: 10.0.1.0/24, address: 10.0.1.1}", ""),
        ("      - {name: api_gateway, vlan: 200, cidr: 10.0.2.0/24, address: 10.0.2.1}", ""),
    ]
    if answers["profile"] == "lab":
        rows += [("  gvisor:", ""), ("    source: debian", "lab only")]
    head = (
        "---\n"
        "# What this appliance shall be. After a change: kosmos-install validate\n"
        "# Every other key, with its default: kosmos-install schema, or docs/reference/appliance-file.md\n"
        f"kosmos:\n  apiVersion: {API_VERSION}\n"
    )
    return head + "".join(_row(*row) for row in rows)


def hosts_text(answers: Mapping[str, str]) -> str:
    """hosts.yml for these answers."""
    if answers["host"] == LOCAL:
        reach = "      ansible_connection: local\n"
    else:
        reach = f"      ansible_host: {shown(answers['host'])}\n      ansible_user: {shown(answers['user'])}\n"
    return (
        "---\n"
        "# How Ansible reaches the host; any of Ansible's connection variables may stand here.\n"
        f"appliance:\n  hosts:\n    {shown(answers['name'])}:\n{reach}"
    )


def _list(words: str) -> str:
    return shown([word.strip() for word in words.split(",") if word.strip()])


def _row(text: str, comment: str) -> str:
    return f"{text:<{_COLUMN}} # {comment}\n" if comment else f"{text}\n"
