"""What host_hardening guarantees, asked of the machine by behaviour: each test connects and acts as a person would."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

GUARD = "/opt/kosmos/libexec/access-guard"


def ssh(*options: str, user: str = "operator", command: str = "true") -> subprocess.CompletedProcess[str]:
    """Connect anew, past any shared connection."""
    configuration = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "ssh_config")
    # ssh takes the first value that it reads: what a test says comes first.
    common = ("-o", "ControlPath=none", "-o", "BatchMode=yes", "-o", "LogLevel=INFO")
    argv = ["ssh", "-F", str(configuration), *options, *common]
    return subprocess.run(
        [*argv, "-l", user, "kosmos-bed", command], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_operator_gets_in_anew_and_has_sudo() -> None:
    done = ssh(command="sudo -n id --user")
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr


def test_root_does_not_get_in() -> None:
    done = ssh(user="root")
    assert done.returncode == 255
    assert "Permission denied" in done.stderr or "Too many authentication failures" in done.stderr


def test_a_client_without_modern_algorithms_is_refused() -> None:
    for option in ("Ciphers=aes128-cbc", "KexAlgorithms=diffie-hellman-group14-sha1", "MACs=hmac-sha1"):
        extra = ("-o", "Ciphers=aes256-ctr") if option.startswith("MACs") else ()
        done = ssh("-o", option, *extra)
        assert done.returncode == 255, option
        assert "no matching" in done.stderr, done.stderr


def test_nothing_is_forwarded() -> None:
    done = ssh("-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:47011:127.0.0.1:22")
    assert done.returncode == 255
    assert "remote port forwarding failed" in done.stderr


def test_nothing_runs_from_shared_folders(host) -> None:
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        path = f"{folder}/kosmos-test"
        run = host.run(f"cp /bin/true {path} && {path}; echo $?; rm -f {path}")
        assert run.stdout.strip() == "126", (folder, run)


def test_su_is_for_members_of_sudo_only(host) -> None:
    with host.sudo():
        done = host.run("runuser -u nobody -- su --command true root < /dev/null")
    assert done.rc != 0
    assert "Permission denied" in done.stderr, done.stderr


def test_guessed_passwords_lock_the_account(host) -> None:
    guess = "echo {0} | runuser -u kosmos-guess -- sudo -k -S true"
    with host.sudo():
        host.check_output("useradd --no-create-home --groups sudo kosmos-guess")
        try:
            host.check_output("echo 'kosmos-guess:Correct-Horse-49-Staple' | chpasswd")
            assert host.run(guess.format("Correct-Horse-49-Staple")).rc == 0
            for _ in range(5):
                assert host.run(guess.format("wrong")).rc != 0
            assert host.run(guess.format("Correct-Horse-49-Staple")).rc != 0
            host.check_output("faillock --user kosmos-guess --reset")
            assert host.run(guess.format("Correct-Horse-49-Staple")).rc == 0
        finally:
            host.run("rm -f /run/faillock/kosmos-guess; userdel kosmos-guess")


def test_a_weak_password_is_refused(host) -> None:
    with host.sudo():
        host.check_output("useradd --no-create-home kosmos-weak")
        done = host.run("echo 'kosmos-weak:abc' | chpasswd")
        host.check_output("userdel kosmos-weak")
    assert done.rc != 0
    assert "BAD PASSWORD" in done.stderr


def test_sudo_writes_a_log(host) -> None:
    assert ssh(command="sudo -n true").returncode == 0
    with host.sudo():
        assert "COMMAND=/usr/bin/true" in host.file("/var/log/sudo.log").content_string


def test_a_login_session_has_the_umask() -> None:
    assert ssh(command="umask").stdout.strip() == "0027"


def test_cron_is_not_for_everybody(host) -> None:
    with host.sudo():
        done = host.run("runuser -u operator -- crontab -l")
    assert done.rc == 1
    assert "not allowed" in done.stderr


def test_aide_finds_what_was_changed(host) -> None:
    with host.sudo():
        # The baseline is due and its timer runs; build it now, as the timer will.
        host.check_output("/opt/kosmos/libexec/aide-baseline request")
        assert host.check_output("/opt/kosmos/libexec/aide-baseline state") == "pending"
        host.check_output("systemctl start kosmos-aide-baseline.service")
        assert host.check_output("/opt/kosmos/libexec/aide-baseline state") == "present"
        clean = host.run("/opt/kosmos/libexec/aide-baseline check")
        assert clean.rc == 0, clean.stdout
        host.check_output("echo '# changed' >> /usr/bin/ldd")
        changed = host.run("/opt/kosmos/libexec/aide-baseline check")
        host.check_output("sed -i '$d' /usr/bin/ldd")
    assert changed.rc & 4, changed.stdout
    assert "/usr/bin/ldd" in changed.stdout


@pytest.fixture
def old_session(tmp_path: Path) -> Iterator[Callable[[str], subprocess.CompletedProcess[str]]]:
    """A session that is open before anything is changed, as the installer's own is."""
    shared = ("-o", f"ControlPath={tmp_path}/s", "-o", "ControlMaster=auto", "-o", "ControlPersist=60")

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return ssh(*shared, command=command)

    assert run("true").returncode == 0
    yield run
    ssh(*shared, "-O", "exit")


def test_an_unproved_change_is_taken_back_by_the_host_itself(old_session) -> None:
    drop_in, broken = "/etc/ssh/sshd_config.d/00-kosmos.conf", "/etc/sudoers.d/kosmos-test-break"
    before = old_session(f"sudo -n sha256sum {drop_in}").stdout
    change = f"{GUARD} arm 8 {drop_in} {broken}; echo AllowUsers nobody-at-all > {drop_in}; echo broken > {broken}"
    assert old_session(f"sudo -n sh -c '{change}'").returncode == 0
    assert ssh().returncode == 255
    # No sudo and no new session now: only the host can help itself.
    for _ in range(30):
        if ssh().returncode == 0:
            break
        time.sleep(1)
    done = ssh(command=f"sudo -n sha256sum {drop_in}")
    assert (done.returncode, done.stdout) == (0, before), done.stderr
    assert ssh(command=f"sudo -n {GUARD} keep").returncode == 1


def test_a_session_from_before_the_change_is_no_proof(old_session) -> None:
    assert old_session(f"sudo -n {GUARD} arm 60 /etc/ssh/sshd_config.d/00-kosmos.conf").returncode == 0
    try:
        old = old_session(f"sudo -n {GUARD} prove")
        assert old.returncode == 1
        assert "it proves nothing" in old.stderr
        new = ssh(command=f"sudo -n {GUARD} prove")
        assert new.returncode == 0, new.stderr
        assert "proved" in new.stdout
    finally:
        assert old_session(f"sudo -n {GUARD} keep").returncode == 0
