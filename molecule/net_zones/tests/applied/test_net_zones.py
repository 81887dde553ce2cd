"""What the packet filter guarantees on the machine itself; the zones need VLAN devices and are tested in the VM."""

from __future__ import annotations

import json
import time

FIREWALL = "/opt/kosmos/bin/kosmos-firewall"
CANDIDATE = "/etc/kosmos/firewall/candidate.nft"
PROVED = {"proved": True, "intact": True, "on_trial": False}


def status(host) -> dict[str, bool]:
    return json.loads(host.check_output(f"{FIREWALL} status"))


def test_the_filter_is_proved_and_a_second_try_loads_nothing(host) -> None:
    with host.sudo():
        assert status(host) == PROVED
        assert host.check_output(f"{FIREWALL} try 60") == "unchanged"


def test_a_filter_nobody_proves_is_undone_by_the_timer(host) -> None:
    with host.sudo():
        before = host.check_output("nft -s -t list table inet kosmos")
        host.check_output(f"cp -p {CANDIDATE} /run/kept; sed -i 's/dport {{ 22 }}/dport {{ 2222 }}/' {CANDIDATE}")
        try:
            assert host.check_output(f"{FIREWALL} try 5") == "loaded"
            assert "dport 2222" in host.check_output("nft list chain inet kosmos input")
            assert status(host)["on_trial"]
            end = time.monotonic() + 60
            while status(host)["on_trial"] or not status(host)["intact"]:
                assert time.monotonic() < end, "the timer did not undo the filter"
                time.sleep(1)
        finally:
            host.check_output(f"cp -p /run/kept {CANDIDATE}")
        assert host.check_output("nft -s -t list table inet kosmos") == before
        assert host.run(f"{FIREWALL} keep").rc == 1, "a trial that is over cannot be kept"
        assert status(host) == PROVED


def test_a_filter_that_is_kept_stays_and_comes_back_with_the_unit(host) -> None:
    with host.sudo():
        host.check_output(f"cp -p {CANDIDATE} /run/kept; sed -i 's/dport {{ 22 }}/dport {{ 22, 2222 }}/' {CANDIDATE}")
        for _ in range(2):
            assert host.check_output(f"{FIREWALL} try 120") == "loaded"
            assert host.check_output(f"{FIREWALL} keep") == "kept"
            host.check_output("nft flush ruleset")
            assert not status(host)["intact"]
            host.check_output("systemctl restart kosmos-nftables")
            assert status(host) == PROVED
            host.check_output(f"cp -p /run/kept {CANDIDATE}")
        assert "2222" not in host.check_output("nft list chain inet kosmos input")


def test_a_filter_that_does_not_load_changes_nothing(host) -> None:
    with host.sudo():
        before = host.check_output("nft -s -t list table inet kosmos")
        host.check_output(f"cp -p {CANDIDATE} /run/kept; echo 'nonsense' >> {CANDIDATE}")
        try:
            assert host.run(f"{FIREWALL} try 60").rc == 1
            assert not status(host)["on_trial"]
        finally:
            host.check_output(f"cp -p /run/kept {CANDIDATE}")
        assert host.check_output("nft -s -t list table inet kosmos") == before


def test_networkd_keeps_the_trunk_and_nothing_else(host) -> None:
    links = [line.split() for line in host.check_output("networkctl list --no-legend --no-pager").splitlines()]
    assert {words[1] for words in links if words[-1] != "unmanaged"} == {"enp0s7"}
    assert not host.service("systemd-networkd").is_enabled, "enabling it would enable its wait for the network too"
