"""The kernel and the matrix agree: real connections through the very rules that the role renders."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.kosmos.appliance.plugins.module_utils.zones.model import Matrix, parse
from ansible_collections.kosmos.appliance.plugins.module_utils.zones.verdict import Packet, judge

from .bed import HOSTS, PORTS, Bed

ROOT = Path(__file__).parents[3]
ROLE = ROOT / "roles/net_zones"
TEMPLATE = ROLE / "templates/etc/kosmos/firewall/candidate.nft.j2"
MISSING = [name for name in ("ip", "nft", "sysctl") if not shutil.which(name)]
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]

PLAY = """
- hosts: localhost
  gather_facts: false
  connection: local
  tasks:
    - ansible.builtin.include_vars: {role}/vars/main.yml
    - ansible.builtin.copy:
        content: "{{{{ [lookup('ansible.builtin.template', '{template}'), __net_zones_matrix] | to_json }}}}"
        dest: {out}
"""


def render(folder: Path, **changes: Any) -> tuple[str, Matrix]:
    """Render the role's own template with its defaults and these variables; return the rules and the matrix."""
    variables = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    variables |= {
        "net_zones_trunk": "eno2",
        "net_zones_management_interface": "eno1",
        "net_zones_management_cidrs": ["192.0.2.0/24", "2001:db8:1::/64"],
        **changes,
    }
    play, out = folder / "play.yml", folder / "out.json"
    play.write_text(
        "- vars: "
        + json.dumps(variables)
        + PLAY.format(role=ROLE, template=TEMPLATE, out=out).replace("\n- hosts", "\n  hosts")
    )
    done = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", str(play)],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}, cwd=ROOT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rules, declared = json.loads(out.read_text())
    return rules, parse(declared)


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    made = Bed()
    try:
        made.up()
        yield made
    finally:
        made.down()


def zones(*with_ipv6: str) -> list[dict[str, Any]]:
    declared = yaml.safe_load((ROLE / "defaults/main.yml").read_text())["net_zones_zones"]
    return [
        {**z, "cidr6": f"fd00:{z['vlan']}::/64", "address6": f"fd00:{z['vlan']}::1"} if z["name"] in with_ipv6 else z
        for z in declared
    ]


def link_to(address: str) -> str | None:
    """Return the link behind which an address lives; None for the appliance's own."""
    for host in HOSTS:
        if address in [own.split("/")[0] for own in host.appliance]:
            return None
        if address in [own.split("/")[0] for own in host.addresses]:
            return host.link
    return "eno1"


@pytest.mark.parametrize("ipv6", [(), ("agent_internal", "api_gateway")], ids=["ipv4 zones", "dual-stack zones"])
def test_every_pair_of_hosts_is_treated_as_the_matrix_says(bed: Bed, tmp_path: Path, ipv6: tuple[str, ...]) -> None:
    rows = [
        {
            "from": "api_gateway",
            "to": "agent_internal",
            "proto": "tcp",
            "ports": ["8000-9000"],
            "action": "allow",
            "note": "back",
        },
        {
            "from": "agent_internal",
            "to": "host",
            "proto": "tcp",
            "ports": [80],
            "from_cidrs": ["10.0.1.2/32"],
            "action": "allow",
        },
    ]
    rules, matrix = render(
        tmp_path, net_zones_zones=zones(*ipv6), net_zones_extra_flows=rows, net_zones_syn_burst=10000
    )
    bed.load(rules)
    everybody = [a.split("/")[0] for host in HOSTS for a in (*host.addresses, *host.appliance)] + ["198.51.100.9"]
    wrong, permitted = [], 0
    for host in HOSTS:
        here = [a.split("/")[0] for a in host.addresses] + (["198.51.100.9"] if host.name == "manager" else [])
        forged = ["10.0.1.77", "203.0.113.5"]
        attempts = [
            (source, dest, port)
            for source, dest, port in itertools.product(here + forged, everybody, PORTS)
            if ip_address(source).version == ip_address(dest).version and link_to(dest) != host.link
        ]
        for attempt, open_ in zip(attempts, bed.connect(host.name, *attempts), strict=True):
            source, dest, port = attempt
            packet = Packet(host.link, ip_address(source), ip_address(dest), "tcp", port, link_to(dest))
            verdict = judge(matrix, packet)
            # A permitted packet with a forged source is answered to somebody else.
            expected = verdict.allowed and source in here
            permitted += expected
            if open_ != expected:
                wrong.append(f"{host.name} {attempt}: {'open' if open_ else 'dropped'}, but {verdict}")
    assert wrong == []
    assert permitted >= 10
    assert bed.counter("drop_spoof") > 0, "the forged packets never left"


def test_a_flood_from_one_source_is_cut_and_nobody_else_notices(bed: Bed, tmp_path: Path) -> None:
    bed.load(render(tmp_path)[0])
    answers = bed.connect("agent", *[("10.0.1.2", "10.0.2.1", 443)] * 240)
    assert 90 <= sum(answers) <= 220, "burst 100 and 50 a second, for the time the test waits"
    assert bed.counter("drop_syn") > 0
    assert bed.connect("gateway", ("10.0.2.2", "10.0.2.1", 443)) == [True]


def test_one_source_holds_no_more_connections_than_its_share(bed: Bed, tmp_path: Path) -> None:
    bed.load(render(tmp_path, net_zones_connections_per_source=20, net_zones_syn_burst=10000)[0])
    # All are opened before one is closed.
    assert sum(bed.connect("agent", *[("10.0.1.2", "10.0.2.1", 443)] * 40)) == 20
    assert bed.counter("drop_limit") > 0
    assert bed.connect("gateway", ("10.0.2.2", "10.0.2.1", 443)) == [True]


def test_other_tables_are_left_alone_and_loading_twice_changes_nothing(bed: Bed, tmp_path: Path) -> None:
    rules, _ = render(tmp_path)
    bed.run("appliance", "nft", "add", "table", "inet", "cluster")
    bed.load(rules)
    once = bed.run("appliance", "nft", "-s", "-t", "list", "ruleset")
    bed.load(rules)
    assert bed.run("appliance", "nft", "-s", "-t", "list", "ruleset") == once
    assert "table inet cluster" in once
