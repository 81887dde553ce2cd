"""After reset nothing of the packet filter or the links is left, and what belongs to others is."""

from __future__ import annotations


def test_nothing_of_ours_is_left(host) -> None:
    with host.sudo():
        assert "kosmos" not in host.check_output("nft list tables")
        assert (
            host.check_output(
                "find /etc/systemd /etc/kosmos -name '*kosmos-[nz]*' -o -name '70-kosmos-*' -o -path '*firewall*'"
            )
            == ""
        )
        assert host.run("systemctl is-active systemd-networkd").stdout.strip() != "active"


def test_the_management_interface_was_not_touched(host) -> None:
    assert "192.168.222.15/24" in host.check_output("ip -br address show dev enp0s6")
