"""An agent's process, for real: what it may do works, what it may not is refused and heard of.

Two ways in: the AppArmor profile alone (aa-exec), and a container of runc that carries both installed profiles, as
Kubernetes will start an agent.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from .conftest import Suite

pytestmark = pytest.mark.vm
CONTAINER = "kosmos-agent-proof"
BUNDLE = f"/run/{CONTAINER}"
AGENT_USER = 10001


def under_apparmor(suite: Suite, script: str) -> subprocess.CompletedProcess[str]:
    return suite.lab.run(f"aa-exec -p kosmos-agent -- sh -c {shlex.quote(script)}", root=True)


def in_container(suite: Suite, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a container over the host's own files (read only), with the installed seccomp file."""
    seccomp = json.loads(suite.lab.run("cat /etc/kosmos/seccomp/kosmos-agent.json", root=True).stdout)
    spec = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": AGENT_USER, "gid": AGENT_USER},
            "args": list(command),
            "env": ["PATH=/usr/bin:/usr/sbin"],
            "cwd": "/",
            "noNewPrivileges": True,
            "apparmorProfile": "kosmos-agent",
        },
        "root": {"path": "rootfs", "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]},
        ],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}], "seccomp": seccomp},
    }
    text = shlex.quote(json.dumps(spec))
    prepare = f"printf %s {text} > {BUNDLE}/config.json"
    return suite.lab.run(
        f"{prepare} && runc --root /run/{CONTAINER}-runc run --bundle {BUNDLE} {CONTAINER} </dev/null", root=True
    )


@pytest.fixture(scope="module")
def machine(applied_module: Suite) -> Iterator[Suite]:
    lab = applied_module.lab
    # A root file system for the container: the host's own, seen from a second place because runc cannot pivot to /.
    lab.run(
        f"install -d -o root /var/lib/kosmos/agents/proof {BUNDLE}/rootfs && mount --bind / {BUNDLE}/rootfs", root=True
    )
    yield applied_module
    lab.run(f"umount {BUNDLE}/rootfs && rm -r {BUNDLE} /var/lib/kosmos/agents/proof", root=True)


def test_a_permitted_write_works(machine: Suite) -> None:
    done = under_apparmor(machine, "echo data > /var/lib/kosmos/agents/proof/f && cat /var/lib/kosmos/agents/proof/f")
    assert (done.returncode, done.stdout.strip()) == (0, "data"), done.stderr


@pytest.mark.parametrize(
    "path", ["/etc/kosmos/x", "/etc/hostname", "/usr/bin/x", "/opt/kosmos/x", "/root/x", "/boot/x"]
)
def test_a_forbidden_write_is_refused(machine: Suite, path: str) -> None:
    unconfined = machine.lab.run(f"sh -c 'test -w {path.rpartition('/')[0]}'", root=True)
    assert unconfined.returncode == 0, "without the profile root could write there, or the test proves nothing"
    done = under_apparmor(machine, f"echo x >> {path}")
    assert done.returncode != 0
    assert "Permission denied" in done.stderr


@pytest.mark.parametrize("path", ["/etc/shadow", "/etc/ssh/sshd_config", "/var/lib/kosmos/packages.installed"])
def test_a_secret_is_refused_even_to_root(machine: Suite, path: str) -> None:
    assert machine.lab.run(f"cat {path} >/dev/null", root=True).returncode == 0
    done = under_apparmor(machine, f"cat {path}")
    assert done.returncode != 0
    assert "Permission denied" in done.stderr


def test_a_refused_write_is_heard_of(machine: Suite) -> None:
    under_apparmor(machine, "echo x > /etc/kosmos/heard-of")
    found = machine.lab.run("grep -h 'apparmor=\"DENIED\"' /var/log/audit/audit.log | grep heard-of", root=True)
    assert 'profile="kosmos-agent"' in found.stdout


def test_an_ordinary_program_runs_in_the_container(machine: Suite) -> None:
    script = "import threading, socket; t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()"
    done = in_container(
        machine, "python3", "-c", f"{script}; socket.socket(); open('/tmp/f', 'w').write('x'); print('ok')"
    )
    assert (done.returncode, done.stdout.split()) == (0, ["thread", "ok"]), done.stderr


def test_the_container_carries_both_profiles(machine: Suite) -> None:
    done = in_container(machine, "sh", "-c", "grep Seccomp: /proc/self/status; grep NoNewPrivs /proc/self/status")
    assert done.stdout.split() == ["Seccomp:", "2", "NoNewPrivs:", "1"], done.stderr


@pytest.mark.parametrize(
    "call",
    [
        "unshare(0x10000000)",
        "keyctl(0, 0, 0)",
        "ptrace(0, 0, 0, 0)",
        "bpf(0, 0, 0)",
        "io_uring_setup(1, 0)",
        "userfaultfd(0)",
        "perf_event_open(0, 0, 0, 0, 0)",
        "setuid(0)",
        "mount(0, 0, 0, 0, 0)",
    ],
)
def test_a_forbidden_system_call_is_refused(machine: Suite, call: str) -> None:
    name, arguments = call.rstrip(")").split("(")
    numbers = machine.lab.run(f'python3 -c "{NUMBER_OF.format(name=name)}"', root=True).stdout.strip()
    script = f"import ctypes, os; c = ctypes.CDLL(None, use_errno=True); r = c.syscall({numbers}, {arguments})"
    done = in_container(machine, "python3", "-c", f"{script}; print(r, ctypes.get_errno())")
    assert done.stdout.split() == ["-1", "1"], (done.stdout, done.stderr)


NUMBER_OF = "import ctypes; print(ctypes.CDLL('libseccomp.so.2').seccomp_syscall_resolve_name(b'{name}'))"
