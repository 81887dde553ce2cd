"""After reset the machine is as Debian left it, and the operator still gets in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def test_the_operator_gets_in_anew_and_has_sudo() -> None:
    configuration = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "ssh_config")
    argv = ["ssh", "-F", str(configuration), "-o", "ControlPath=none", "kosmos-bed", "sudo -n id --user"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr


def test_nothing_of_ours_is_left(host) -> None:
    with host.sudo():
        found = host.check_output(
            "find /etc /opt /usr/share/pam-configs /var/lib/pam /var/lib/kosmos /run -type f -iname '*kosmos*'"
            " -not -path '/opt/debs*' 2>/dev/null; true"
        )
    assert found == ""


def test_debian_s_files_are_back_to_the_byte(host) -> None:
    with host.sudo():
        # debsums is not there; dpkg keeps the sums of configuration files and of packaged ones.
        packages = "base-files login.defs openssh-server sudo libpam-runtime util-linux"
        verified = host.check_output(f"dpkg --verify {packages}; true")
    assert verified == ""


def test_distribution_behaviour_is_back(host) -> None:
    with host.sudo():
        assert "permitrootlogin without-password" in host.check_output("sshd -T")
        assert host.file("/etc/cron.d").mode == 0o755
        assert "pam_faillock" not in host.file("/etc/pam.d/common-auth").content_string
        assert "pam_wheel.so use_uid group=sudo" not in host.file("/etc/pam.d/su").content_string
    run = host.run("cp /bin/true /var/tmp/kosmos-test && /var/tmp/kosmos-test; echo $?; rm -f /var/tmp/kosmos-test")
    assert run.stdout.strip() == "0"
