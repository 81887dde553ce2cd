"""Every check of host_preflight that reads files, the clock or names: a good host passes, a broken one fails."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import Host, run_command
from ansible_collections.kosmos.appliance.plugins.module_utils.host.system import Completed
from check_bed import REPOSITORY, checks_of, evaluate, kosmos_variables
from preflight_root import EFIVAR, RELEASE, STATUS, Break, age, build, gone, hold_lock, listen, put, swap

ROLE = "host_preflight"
NOW = dt.datetime(2027, 3, 1, 12, tzinfo=dt.UTC).timestamp()
YEARS = 3 * 365 * 86400.0
CPU, MOUNTS, DEP = "proc/cpuinfo", "proc/self/mounts", f"lib/modules/{RELEASE}/modules.dep"
CONFIG = f"boot/config-{RELEASE}"
#: check id: (what breaks the host, what the check then finds)
BREAKS: dict[str, tuple[Break, Any]] = {
    "host.uefi.booted": (gone("sys/firmware/efi"), False),
    "host.uefi.esp": (swap(MOUNTS, "/boot/efi", "/mnt"), None),
    "host.uefi.secure_boot": (put(EFIVAR, "\6\0\0\0\0"), False),
    "host.machine.real": (put("run/systemd/container", "podman"), True),
    "host.machine.systemd": (gone("run/systemd/system"), None),
    "host.machine.architecture": (put("proc/sys/kernel/arch", "aarch64\n"), "aarch64"),
    "host.os.debian": (swap("etc/os-release", "debian", "ubuntu"), "ubuntu"),
    "host.os.release": (swap("etc/os-release", "13", "12"), "12"),
    "host.cpu.level": (swap(CPU, "sse4_2 ", ""), ...),
    "host.cpu.aes": (swap(CPU, "aes ", ""), ...),
    "host.cpu.random": (swap(CPU, "rdrand", "rdran"), ...),
    "host.cpu.count": (swap(CPU, "processor", "nothing"), 0),
    "host.memory.total": (put("proc/meminfo", "MemTotal: 1000000 kB\n"), 976),
    "host.kernel.version": (put("proc/sys/kernel/osrelease", "5.10.0-30-amd64\n"), "5.10.0-30-amd64"),
    "host.kernel.apparmor": (put("sys/module/apparmor/parameters/enabled", "N\n"), False),
    "host.kernel.lsm": (put("sys/kernel/security/lsm", "capability,selinux"), ["capability", "selinux"]),
    "host.kernel.btf": (gone("sys/kernel/btf/vmlinux"), False),
    "host.kernel.seccomp": (swap(CONFIG, "CONFIG_SECCOMP_FILTER=y", "# CONFIG_SECCOMP_FILTER is not set"), None),
    "host.kernel.user_namespaces": (swap(CONFIG, "USER_NS=y", "USER_NS=n"), "n"),
    "host.kernel.bpf": (gone(CONFIG), None),
    "host.kernel.nftables": (swap(DEP, "nf_tables.ko", "nf_tables_x.ko"), False),
    "host.kernel.vlan": (swap(DEP, "8021q.ko", "8021p.ko"), False),
    "host.kernel.overlay": (gone(DEP), False),
    "host.cgroup.version": (gone("sys/fs/cgroup/cgroup.controllers"), 1),
    "host.cgroup.controllers": (put("sys/fs/cgroup/cgroup.controllers", "cpu memory"), ["cpu", "memory"]),
    "host.disk.root_writable": (swap(MOUNTS, "rw,relatime", "ro,relatime"), ["ro", "relatime"]),
    "host.nic.management": (put("sys/class/net/enp0s6/operstate", "down\n"), "down"),
    "host.nic.trunk": (gone("sys/class/net/enp0s7"), False),
    "host.port.ssh": (listen("tcp", 22), "intruder"),
    "host.port.https": (listen("tcp", 443), "intruder"),
    "host.port.kube_api": (listen("tcp6", 6443), ...),
    "host.port.kubelet": (listen("tcp", 10250), "intruder"),
    "host.port.ntp": (listen("udp", 123), "intruder"),
    "host.names.sources": (
        put("etc/apt/sources.list", "deb https://mirror.invalid/debian trixie main\n"),
        ["mirror.invalid"],
    ),
    "host.apt.lock": (hold_lock, "intruder (pid 99) holds /var/lib/dpkg/lock"),
    "host.apt.half_done": (put("var/lib/dpkg/status", STATUS.replace("ok installed", "ok half-configured")), ["ssh"]),
    "host.apt.interrupted": (put("var/lib/dpkg/updates/0001", ""), ["/var/lib/dpkg/updates/0001"]),
    "host.engine.foreign": (put("usr/bin/dockerd", ""), ["docker"]),
    "host.firewall.foreign": (put("var/lib/dpkg/status", STATUS.replace("Package: ssh", "Package: ufw")), ["ufw"]),
    "host.clock.disk": (lambda root: age(root, NOW + YEARS), YEARS),
}
CHECKS = checks_of(ROLE, kosmos_variables(), host_preflight_offline=False, host_preflight_secure_boot_required=True)
ANY_IPV6 = "0" * 32
ROW_6443 = f"   1: {ANY_IPV6}:192B {ANY_IPV6}:0000 0A 00000000:00000000 00:00000000 00000000 0 0 99 1\n"


def without_proxy(argv: Sequence[str], timeout_seconds: float) -> Completed:
    """This machine's own proxy setting is not the fixture's; everything else really runs."""
    return Completed(0, "", "") if argv[0] == "apt-config" else run_command(argv, timeout_seconds)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    build(tmp_path)
    age(tmp_path, NOW - 60)
    return Host(root=tmp_path, now=lambda: NOW, run=without_proxy, reference_time=NOW + 2)


@pytest.mark.parametrize("name", sorted([*BREAKS, "host.clock.controller", "host.clock.floor"]))
def test_a_good_host_passes(host: Host, name: str) -> None:
    result = evaluate(CHECKS, host, name)
    assert result["pass"], result


@pytest.mark.parametrize("name", sorted(BREAKS))
def test_a_broken_host_fails(host: Host, name: str) -> None:
    spoil, found = BREAKS[name]
    spoil(host.root)
    if name == "host.port.kube_api":  # IPv6 rows have longer addresses
        (host.root / "proc/net/tcp6").write_text("header\n" + ROW_6443)
        found = "intruder"
    result = evaluate(CHECKS, host, name)
    assert not result["pass"], result
    assert not result["skipped"], result
    assert found is ... or result["found"] == found, result
    assert result["evidence"]


@pytest.mark.parametrize("years", [-5, 5])
@pytest.mark.parametrize(("name", "found_for"), [("host.clock.controller", (-5, 5)), ("host.clock.floor", (-5,))])
def test_a_wrong_clock_is_found(host: Host, name: str, years: int, found_for: tuple[int, ...]) -> None:
    wrong = NOW + years * 365 * 86400
    result = evaluate(CHECKS, Host(root=host.root, now=lambda: wrong, reference_time=NOW), name)
    assert result["pass"] is (years not in found_for), result


def test_one_file_of_the_future_is_no_wrong_clock(host: Host) -> None:
    os.utime(host.root / "var/log", (NOW + YEARS, NOW + YEARS))
    assert evaluate(CHECKS, host, "host.clock.disk")["found"] == 0


def test_the_profiles_differ_where_they_must(host: Host) -> None:
    strict = checks_of(ROLE, kosmos_variables(), host_preflight_profile="appliance")
    assert evaluate(strict, host, "host.memory.total")["pass"]
    (host.root / "proc/meminfo").write_text(f"MemTotal: {29 * 1024 * 1024} kB\n")
    assert not evaluate(strict, Host(root=host.root, now=host.now), "host.memory.total")["pass"]
    assert evaluate(CHECKS, Host(root=host.root, now=host.now), "host.memory.total")["pass"]


def test_an_engine_that_we_installed_is_not_foreign(host: Host) -> None:
    (host.root / "usr/bin/containerd").touch()
    assert not evaluate(CHECKS, host, "host.engine.foreign")["pass"]
    (host.root / "var/lib/kosmos").mkdir()
    (host.root / "var/lib/kosmos/packages.installed").write_text("chrony\ncontainerd\n")
    assert evaluate(CHECKS, host, "host.engine.foreign")["pass"]


@pytest.mark.parametrize("name", ["host.apt.half_done", "host.apt.interrupted"])
def test_what_our_own_run_left_half_done_is_no_obstacle(host: Host, name: str) -> None:
    """Apply finishes it; were it refused, a power cut in the package run would need a person."""
    (host.root / "var/lib/dpkg/status").write_text(STATUS.replace("ok installed", "ok triggers-pending"))
    (host.root / "var/lib/dpkg/updates/0001").touch()
    assert not evaluate(CHECKS, Host(root=host.root, now=host.now), name)["pass"]
    (host.root / "var/lib/kosmos").mkdir()
    (host.root / "var/lib/kosmos/packages.unfinished").touch()
    excused = evaluate(CHECKS, Host(root=host.root, now=host.now), name)
    assert excused["pass"]
    assert "the next apply finishes it" in excused["evidence"]


OWN_MOUNTS = ("unshare", "--map-root-user", "--mount")
SMALL_DISK = """
import json, os, pathlib, sys, time
sys.path[:0] = json.loads(sys.argv[1])
from ansible.plugins.loader import init_plugin_loader
init_plugin_loader([sys.argv[2]])
from ansible_collections.kosmos.appliance.plugins.module_utils.checks import engine, model
root = pathlib.Path(sys.argv[3])
assert os.system(f"mount -t tmpfs -o {sys.argv[4]} kosmos {root}") == 0
(root / "boot").mkdir()
print(json.dumps(engine.evaluate(json.loads(sys.argv[5]), model.Host(root=root, now=time.time))))
"""


@pytest.mark.parametrize(
    ("name", "options", "passes"),
    [
        ("host.disk.root_free", "size=2g", True),
        ("host.disk.root_free", "size=500m", False),
        ("host.disk.boot_free", "size=1g", True),
        ("host.disk.boot_free", "size=100m", False),
        ("host.disk.root_inodes", "size=1g,nr_inodes=1000", True),
        ("host.disk.root_inodes", "size=1g,nr_inodes=2", False),
    ],
)
def test_a_full_disk_is_found(tmp_path: Path, name: str, options: str, passes: bool) -> None:
    """On a tmpfs of that size, mounted in a namespace of the test's own."""
    if subprocess.run([*OWN_MOUNTS, "true"], capture_output=True, check=False).returncode:
        pytest.skip("user and mount namespaces are not allowed here")
    paths, batch = json.dumps([str(REPOSITORY / "tests/unit")]), json.dumps([CHECKS[name]])
    collections = str(REPOSITORY / "collections")
    done = subprocess.run(
        [*OWN_MOUNTS, sys.executable, "-c", SMALL_DISK, paths, collections, str(tmp_path), options, batch],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert result["pass"] is passes, result


def test_the_checks_need_root(host: Host) -> None:
    def as_nobody(argv: Sequence[str], timeout_seconds: float) -> Completed:
        return run_command(["setpriv", "--reuid", "65534", "--clear-groups", "--", *argv], timeout_seconds)

    def as_root(argv: Sequence[str], timeout_seconds: float) -> Completed:
        return run_command(["unshare", "--map-root-user", "--", *argv], timeout_seconds)

    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    good = evaluate(CHECKS, Host(root=host.root, now=host.now, run=as_root), "host.machine.root")
    bad = evaluate(CHECKS, Host(root=host.root, now=host.now, run=as_nobody), "host.machine.root")
    assert (good["pass"], bad["pass"], bad["found"]) == (True, False, "65534")
