"""Whatever is done to SSH, PAM or sudo: the operator gets in afterwards, or the machine goes back to where they did."""

from __future__ import annotations

import subprocess
import time

import pytest

from .conftest import Suite

pytestmark = [pytest.mark.vm, pytest.mark.long]

GUARD = "/opt/kosmos/libexec/access-guard"
DROP_IN = "/etc/ssh/sshd_config.d/00-kosmos.conf"


def login(suite: Suite, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Log in anew, with an ordinary client."""
    ssh = suite.lab.ssh
    argv = ["ssh", "-F", str(ssh.config), "-o", "ControlPath=none", "-o", "BatchMode=yes", *options, ssh.alias, command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def in_force(suite: Suite, keyword: str) -> str:
    """Return what the SSH server does."""
    done = login(suite, f"sudo -n sshd -T | sed -n 's/^{keyword} //p'")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_change_that_would_shut_the_client_out_is_taken_back(applied: Suite) -> None:
    before = in_force(applied, "ciphers")
    # The operator's client speaks one cipher; the change would leave another one only.
    variables = (
        "host_hardening_ssh_ciphers: [aes256-ctr]\n"
        f"ansible_ssh_common_args: -F {applied.lab.ssh.config} -o Ciphers=aes128-gcm@openssh.com\n"
    )
    with applied.host_variables(variables):
        ran = applied.playbook("playbooks/host.yml", "--tags", "host_hardening", fast=False)
    assert ran.code == 2, ran.told
    assert "was taken back" in ran.out, ran.told
    assert "no matching cipher" in ran.out, ran.told
    assert in_force(applied, "ciphers") == before
    assert login(applied, "sudo -n true", "-o", "Ciphers=aes128-gcm@openssh.com").returncode == 0
    assert login(applied, "sudo -n test -e /var/lib/kosmos/access-guard/armed").returncode == 1
    # Nothing is left behind that would stand in the way of the next run.
    again = applied.playbook("playbooks/host.yml", "--tags", "host_hardening", fast=False)
    assert again.code == 0, again.told
    verify = applied.kosmos("verify")
    assert verify.code == 0, verify.told


def test_a_change_without_proof_is_taken_back_after_its_time(applied: Suite) -> None:
    change = (
        f"{GUARD} arm 20 {DROP_IN} /etc/sudoers.d/broken; echo AllowUsers nobody-at-all > {DROP_IN};"
        " echo broken > /etc/sudoers.d/broken; systemctl reload ssh.service"
    )
    assert login(applied, f"sudo -n sh -c '{change}'").returncode == 0
    assert login(applied, "true").returncode == 255
    # The client tries until it is let in again: nothing else on this side acts.
    deadline = time.monotonic() + 120
    while login(applied, "sudo -n true").returncode != 0:
        assert time.monotonic() < deadline, "the machine did not take the change back"
        time.sleep(2)
    assert in_force(applied, "allowusers") == "operator"


def test_a_power_cut_before_the_proof_ends_in_the_old_state(applied: Suite) -> None:
    change = (
        f"{GUARD} arm 3600 {DROP_IN} /etc/sudoers.d/broken; echo AllowUsers nobody-at-all > {DROP_IN};"
        " echo broken > /etc/sudoers.d/broken; systemctl reload ssh.service; sync"
    )
    assert login(applied, f"sudo -n sh -c '{change}'").returncode == 0
    assert login(applied, "true").returncode == 255
    applied.lab.power_cut()
    applied.lab.start()
    assert login(applied, "sudo -n true").returncode == 0
    assert in_force(applied, "allowusers") == "operator"


@pytest.mark.parametrize(
    ("variables", "check"),
    [
        ("host_hardening_operator_user: games\n", "host.access.operator_key"),
        ("host_hardening_operator_user: games\n", "host.access.operator_sudo"),
        ("host_hardening_operator_user: root\n", "host.access.session_user"),
    ],
)
def test_a_machine_without_a_way_back_is_refused_untouched(fresh: Suite, variables: str, check: str) -> None:
    with fresh.host_variables(variables):
        ran = fresh.playbook("playbooks/host.yml", "--tags", "host_hardening", fast=False)
    assert ran.code == 2, ran.told
    assert check in ran.out, ran.told
    assert login(fresh, f"test -e {DROP_IN} || test -e {GUARD}").returncode == 1


def test_the_proof_holds_with_the_accelerator_too(applied: Suite) -> None:
    """A persistent interpreter keeps its own connections: the guard must still see a new one."""
    with applied.host_variables("host_hardening_ssh_client_alive_seconds: 61\n"):
        ran = applied.playbook("playbooks/host.yml", "--tags", "host_hardening")
    assert ran.code == 0, ran.told
    assert in_force(applied, "clientaliveinterval") == "61"
