"""What host_confinement guarantees where the kernel is somebody else's: files that compile, and seccomp for real."""

from __future__ import annotations

import json

import pytest

PROFILE = "/etc/kosmos/seccomp/kosmos-agent.json"
CONFINED = "/opt/kosmos/libexec/confined --apparmor="


def test_the_profile_compiles(host) -> None:
    with host.sudo():
        done = host.run("apparmor_parser -QTK /etc/apparmor.d/kosmos-agent")
    assert done.rc == 0, done.stderr


def test_the_profile_names_what_was_compiled(host) -> None:
    with host.sudo():
        assert host.check_output("apparmor_parser --names /etc/apparmor.d/kosmos-agent") == "kosmos-agent"


def test_both_places_hold_the_same_seccomp_profile(host) -> None:
    with host.sudo():
        kubelet = host.file("/var/lib/kubelet/seccomp/profiles/kosmos-agent.json").content_string
        assert json.loads(kubelet)["defaultAction"] == "SCMP_ACT_ERRNO"
        assert host.file(PROFILE).content_string == kubelet


@pytest.mark.parametrize(
    "command",
    [
        "cat /etc/debian_version",
        "sh -c 'ls / | sort | tail -1'",
        "python3 -c 'import threading; t = threading.Thread(target=int); t.start(); t.join()'",
        "python3 -c 'import socket; socket.getaddrinfo(\"localhost\", 80)'",
    ],
)
def test_ordinary_programs_run(host, command: str) -> None:
    with host.sudo():
        done = host.run(f"{CONFINED} -- {command}")
    assert done.rc == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("unshare --mount true", "Operation not permitted"),
        ("python3 -c 'import os; os.setuid(65534)'", "Operation not permitted"),
        ("python3 -c 'import socket; socket.socket(socket.AF_PACKET)'", "Operation not permitted"),
        ("python3 -c 'import os; os.mknod(\"/tmp/n\")'", "Operation not permitted"),
        ("hostname intruder", "you must be root to change the host name"),
    ],
)
def test_forbidden_calls_are_refused(host, command: str, words: str) -> None:
    with host.sudo():
        done = host.run(f"{CONFINED} -- {command}")
    assert done.rc != 0
    assert words in done.stderr


def test_a_broken_profile_confines_nothing_and_starts_nothing(host) -> None:
    with host.sudo():
        done = host.run(f"sh -c 'echo {{ > /tmp/broken.json; {CONFINED} --seccomp /tmp/broken.json -- echo started'")
    assert done.rc == 125
    assert "started" not in done.stdout
