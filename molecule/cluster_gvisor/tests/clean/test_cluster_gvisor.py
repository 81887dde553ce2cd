"""After reset containerd is the distribution's again, and runs."""

from __future__ import annotations


def test_containerd_runs_with_its_own_configuration(host) -> None:
    assert host.service("containerd").is_running
    assert "kosmos" not in host.check_output("systemctl show -p ExecStart containerd")


def test_nothing_of_ours_is_left(host) -> None:
    with host.sudo():
        assert (
            host.run("ls -d /opt/kosmos/bin/kosmos-runsc /etc/kosmos/containerd.toml /var/lib/kosmos/gvisor").stdout
            == ""
        )
