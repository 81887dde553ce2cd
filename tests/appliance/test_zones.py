"""The zones seen from outside: a second host on the trunk tries what is permitted and what is not, on real VLANs.

That the kernel agrees with the matrix for every pair of hosts is shown in tests/integration/zones; here, that the
finished appliance does so on its own links, says so in its journal, and never shuts its operator out.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Suite

pytestmark = pytest.mark.vm

TALK = Path(__file__).parents[1] / "integration/zones/talk.py"
AGENT, GATEWAY = 100, 200
APPLIANCE = {AGENT: "10.0.1.1", GATEWAY: "10.0.2.1"}
PEER = {AGENT: "10.0.1.2", GATEWAY: "10.0.2.2"}
OUTSIDE = "192.168.222.2"
FIREWALL = "/opt/kosmos/bin/kosmos-firewall"
CANDIDATE = "/etc/kosmos/firewall/candidate.nft"


def root(suite: Suite, command: str) -> str:
    """Run a command as root on the appliance; it must succeed."""
    done = suite.lab.run(command, root=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def connects(suite: Suite, vlan: int, *attempts: tuple[str, str, int]) -> list[bool]:
    """Try to open TCP connections (source, destination, port) from the second host in one zone."""
    done = suite.lab.peer(vlan).run([sys.executable, str(TALK), "connect", json.dumps(attempts)])
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def packets(suite: Suite, chain: str, comment: str | None = None) -> int:
    """Return what a rule has counted: the one with this comment, or the last counter of the chain."""
    table = json.loads(root(suite, f"nft -j list chain inet kosmos {chain}"))["nftables"]
    rules = [
        item["rule"] for item in table if "rule" in item and (comment is None or item["rule"].get("comment") == comment)
    ]
    counted = [e["counter"]["packets"] for rule in rules for e in rule["expr"] if "counter" in e]
    return int(counted[-1])


def logged(suite: Suite, *parts: str) -> bool:
    """Tell whether the kernel's journal of this boot has a line with all of these parts."""
    lines = root(suite, "journalctl --no-pager -q -k -b -n 3000 -o cat").splitlines()
    return any(all(part in line for part in parts) for line in lines)


@pytest.fixture(scope="module")
def machine(applied_module: Suite) -> Iterator[Suite]:
    """The finished appliance with something that listens, and listeners on the second host in both zones."""
    text = base64.b64encode(TALK.read_bytes()).decode()
    root(applied_module, f"echo {text} | base64 -d > /run/talk.py")
    root(applied_module, "systemd-run --quiet --collect --unit=proof python3 /run/talk.py serve 443 8443")
    root(applied_module, "until ss -Hltn 'sport = :8443' | grep -q .; do sleep 0.2; done")
    servers = [
        subprocess.Popen(
            applied_module.lab.peer(vlan).argv(sys.executable, str(TALK), "serve", "443", "8443"),
            stdout=subprocess.PIPE,
        )
        for vlan in (AGENT, GATEWAY)
    ]
    for server in servers:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
    yield applied_module
    for server in servers:
        server.kill()
        server.wait()


def test_what_the_seed_permits_passes(machine: Suite) -> None:
    assert connects(
        machine, AGENT,
        (PEER[AGENT], APPLIANCE[GATEWAY], 443),
        (PEER[AGENT], PEER[GATEWAY], 443),
        (PEER[AGENT], PEER[GATEWAY], 8443),
    ) == [True, True, True]  # fmt: skip
    assert connects(machine, GATEWAY, (PEER[GATEWAY], APPLIANCE[GATEWAY], 443)) == [True]


def test_what_the_seed_does_not_permit_is_dropped_and_logged(machine: Suite) -> None:
    assert connects(
        machine, AGENT,
        (PEER[AGENT], APPLIANCE[AGENT], 22),
        (PEER[AGENT], APPLIANCE[AGENT], 8443),
        (PEER[AGENT], APPLIANCE[GATEWAY], 22),
        (PEER[AGENT], OUTSIDE, 443),
    ) == [False, False, False, False]  # fmt: skip
    assert connects(
        machine, GATEWAY,
        (PEER[GATEWAY], APPLIANCE[GATEWAY], 22),
        (PEER[GATEWAY], PEER[AGENT], 443),
        (PEER[GATEWAY], OUTSIDE, 443),
    ) == [False, False, False]  # fmt: skip
    assert logged(machine, "kosmos-in-drop", f"SRC={PEER[AGENT]}", "DPT=22")
    assert logged(machine, "kosmos-fwd-drop", f"SRC={PEER[AGENT]}", f"DST={OUTSIDE}")
    assert logged(machine, "kosmos-fwd-drop", f"SRC={PEER[GATEWAY]}", f"DST={PEER[AGENT]}")


def test_a_forged_source_is_dropped_before_anything_else(machine: Suite) -> None:
    before = packets(machine, "drop_spoof")
    assert (
        connects(machine, AGENT, ("10.0.2.77", APPLIANCE[GATEWAY], 443), ("192.168.222.9", APPLIANCE[AGENT], 22))
        == [False] * 2
    )
    assert packets(machine, "drop_spoof") > before
    assert logged(machine, "kosmos-spoof-drop", "SRC=10.0.2.77", "IN=vlan100")


def test_no_ipv6_leaks_into_a_zone_that_has_none(machine: Suite) -> None:
    """Even when the appliance is given an address by hand: the second host's neighbour discovery gets no answer."""
    prefix = "fd6b:6f73:6d6f:100"
    before = packets(machine, "guard", "agent_internal: no IPv6")
    root(
        machine, f"sysctl -qw net.ipv6.conf.vlan100.disable_ipv6=0; ip -6 address add {prefix}::1/64 dev vlan100 nodad"
    )
    try:
        assert connects(machine, AGENT, (f"{prefix}::2", f"{prefix}::1", 443)) == [False]
    finally:
        root(machine, "ip -6 address flush dev vlan100")
    assert packets(machine, "guard", "agent_internal: no IPv6") > before


def test_a_flood_is_cut_and_logged_while_the_other_zone_goes_on(machine: Suite) -> None:
    answers = connects(machine, AGENT, *[(PEER[AGENT], APPLIANCE[GATEWAY], 443)] * 400)
    assert packets(machine, "drop_syn") > 0
    assert sum(answers) < 400
    assert logged(machine, "kosmos-syn-drop", f"SRC={PEER[AGENT]}")
    assert connects(machine, GATEWAY, (PEER[GATEWAY], APPLIANCE[GATEWAY], 443)) == [True]


def test_the_appliance_itself_opens_nothing_into_a_zone(machine: Suite) -> None:
    before = packets(machine, "drop_output")
    done = machine.lab.run(f"timeout 5 bash -c '</dev/tcp/{PEER[AGENT]}/443'", root=True)
    assert done.returncode != 0
    assert packets(machine, "drop_output") > before


def login(suite: Suite) -> bool:
    """Log in anew, by a connection of its own."""
    ssh = suite.lab.ssh
    argv = [
        "ssh",
        "-F",
        str(ssh.config),
        "-o",
        "ControlPath=none",
        "-o",
        "BatchMode=yes",
        "-o",
        "ConnectTimeout=20",
        ssh.alias,
    ]
    return subprocess.run([*argv, "true"], capture_output=True, timeout=120, check=False).returncode == 0


ELSEWHERE = "net_zones_management_cidrs: [203.0.113.0/24]\n"


def test_a_filter_that_would_cut_the_operator_off_is_refused_before_it_is_loaded(applied: Suite) -> None:
    before = root(applied, f"sha256sum {CANDIDATE}")
    with applied.host_variables(ELSEWHERE):
        ran = applied.playbook("playbooks/net.yml", fast=False)
    assert ran.code == 2, ran.told
    assert "Refused before anything was loaded" in ran.out, ran.told
    assert "192.168.222.2" in ran.out, ran.told
    assert root(applied, f"sha256sum {CANDIDATE}") == before


@pytest.mark.parametrize(
    "fast",
    [pytest.param(False, id="linear"), pytest.param(True, id="accelerator", marks=pytest.mark.long)],
)
def test_a_filter_that_cuts_the_operator_off_is_rolled_back(applied: Suite, fast: bool) -> None:
    """The refusal is switched off and the management network is wrong: only the timer on the host can help."""
    with applied.host_variables(ELSEWHERE + "net_zones_cut_off_refused: false\nnet_zones_rollback_seconds: 60\n"):
        ran = applied.playbook("playbooks/net.yml", fast=fast)
    assert ran.code == 2, ran.told
    assert "was rolled back" in ran.out, ran.told
    assert login(applied)
    assert "203.0.113.0" not in root(applied, "nft list chain inet kosmos input")
    assert logged_by_firewall(applied)
    # Nothing is left behind that would stand in the way of the next run.
    again = applied.playbook("playbooks/net.yml", fast=False)
    assert again.code == 0, again.told
    assert json.loads(root(applied, f"{FIREWALL} status")) == {"proved": True, "intact": True, "on_trial": False}


def logged_by_firewall(suite: Suite) -> bool:
    """Tell whether the rollback has said what it did."""
    return "it was rolled back" in root(suite, "journalctl --no-pager -q -b -t kosmos-firewall -o cat")


def test_a_power_cut_during_the_trial_ends_in_the_proved_filter(applied: Suite) -> None:
    root(applied, f"sed -i 's/192.168.222.0/203.0.113.0/' {CANDIDATE}; {FIREWALL} try 3600; sync")
    assert not login(applied)
    applied.lab.power_cut()
    applied.lab.start()
    assert login(applied)
    assert json.loads(root(applied, f"{FIREWALL} status"))["intact"] is True
