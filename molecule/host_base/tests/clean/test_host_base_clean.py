"""After reset nothing of host_base is left, and what was there before is back."""

from __future__ import annotations


def test_exactly_our_packages_are_gone(host) -> None:
    for name in ("chrony", "aide"):
        assert not host.package(name).is_installed
    for name in ("openssh-server", "sudo", "systemd"):
        assert host.package(name).is_installed


def test_nothing_of_ours_is_left(host) -> None:
    with host.sudo():
        found = host.run(
            "find /etc /var/lib /opt /run -iname '*kosmos*' -not -path '/opt/debs*' -not -path '/etc/ssh*'"
        ).stdout
    assert found == ""


def test_the_former_name_is_back(host) -> None:
    assert host.file("/etc/hostname").content_string.strip() != "kosmos-lab"
    assert "kosmos.internal" not in host.file("/etc/hosts").content_string


def test_no_sealing_key_is_left(host) -> None:
    with host.sudo():
        assert host.run("find /var/log/journal -name fss").stdout == ""
