"""host_preflight only reads: after one more run, in check mode and for real, the machine is as it was."""

from __future__ import annotations

import pytest

# All but what a login itself leaves: journal, sudo's and ssh's records, the folder of Ansible's connection.
LEFT_OUT = ("/proc", "/sys", "/run", "/tmp", "/var/log", "/var/tmp", "/home")
PRUNED = " -o ".join(f"-path {path}" for path in LEFT_OUT)
FINGERPRINT = f"find / -xdev ( {PRUNED} ) -prune -o -type f -printf %p|%s|%m|%U|%T@\\n"


def fingerprint(host) -> set[str]:
    with host.sudo():
        words = FINGERPRINT.split()
        lines = host.run_expect([0], " ".join(["%s"] * len(words)), *words).stdout.splitlines()
    # systemd writes these by itself, whether or not somebody looks.
    return {line for line in lines if not line.startswith(("/var/lib/systemd/", "/var/lib/chrony/"))}


@pytest.mark.parametrize("flags", [(), ("--check", "--diff")])
def test_a_run_leaves_nothing(host, preflight, flags: tuple[str, ...]) -> None:
    before = fingerprint(host)
    ran = preflight(*flags)
    assert ran.returncode == 0, ran.stdout
    assert "changed=0" in ran.stdout
    assert fingerprint(host) ^ before == set()
