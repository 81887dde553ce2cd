"""The lab for real: what the machine is, how it comes back, what its second host sees, and which faults it can have.

One lab of its own name is used from test to test, since each boot costs most of a minute under emulation; each test
that changes the machine begins from the fresh one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kosmos_installer.errors import KosmosError
from kosmos_installer.lab import accel, packages
from kosmos_installer.lab.lab import Lab
from kosmos_installer.lab.progress import Progress

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(bool(packages.missing()), reason=f"Debian packages are missing: {packages.missing()}"),
]
ROOT = Path(__file__).parents[2]
VLANS = """
for vlan in 100 200; do
  ip link add link enp0s7 name trunk.$vlan type vlan id $vlan
  ip address add 10.0.$((vlan / 100)).1/24 dev trunk.$vlan
  ip -6 address add fd6b:6f73:6d6f:$vlan::1/64 dev trunk.$vlan nodad
  ip link set trunk.$vlan up
done
ip link set enp0s7 up
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    one = Lab(f"test-{os.getpid()}", progress=Progress())
    one.up()
    yield one
    one.down()
    assert not one.directory.exists()


@pytest.fixture
def fresh(lab: Lab) -> Lab:
    lab.reset()
    return lab


def said(lab: Lab, line: str) -> str:
    done = lab.run(line, root=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists() and "Z" not in _condition(pid)]


def _condition(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_the_machine_is_what_the_appliance_needs_and_nothing_more(fresh: Lab) -> None:
    assert said(fresh, "ls -d /sys/firmware/efi") == "/sys/firmware/efi"
    assert "grub" in said(fresh, "dpkg-query -W -f '${Package} ' 'grub-efi-amd64'")
    assert said(fresh, "ls /sys/class/tpm/tpm0 | grep ^pcr-").split() == ["pcr-sha256", "pcr-sha384"]
    assert said(fresh, "cat /sys/class/tpm/tpm0/tpm_version_major") == "2"
    assert said(fresh, "ls /sys/class/net").split() == ["enp0s6", "enp0s7", "enp0s8", "lo"]
    assert said(fresh, "readlink -f /dev/disk/by-id/virtio-kosmos-data; lsblk -bdno SIZE /dev/vdb").split() == [
        "/dev/vdb",
        str(4 << 30),
    ]
    assert said(fresh, "findmnt -no FSTYPE,SOURCE /").split() == ["ext4", "/dev/vda2"]
    assert said(fresh, ". /etc/os-release; echo $ID $VERSION_ID") == "debian 13"
    assert said(fresh, "cat /etc/machine-id") == "6b6f736d6f734c618b00000000000013"
    assert said(fresh, "systemctl is-system-running") == "running"
    assert said(fresh, "wc -c < /sys/kernel/security/tpm0/binary_bios_measurements") != "0"
    assert fresh.run("id -un; sudo -n id -u").stdout.split() == ["operator", "0"]


def test_apt_works_inside(fresh: Lab) -> None:
    said(fresh, "apt-get -q update && apt-get -qy install tpm2-tools")
    certificate = said(fresh, "tpm2_nvread 0x1c00002 | od -An -tx1 -N2")
    assert certificate.split() == ["30", "82"]  # a DER sequence: the endorsement key's certificate is there


def test_exit_code_and_output_come_through_the_command(lab: Lab) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kosmos_installer.lab", "run", "--name", lab.name, "cat; echo to-error >&2; exit 7"],
        capture_output=True, text=True, check=False, cwd=ROOT, input="through",
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (7, "through", "to-error\n")


def test_the_clock_is_right_after_a_reset(fresh: Lab) -> None:
    assert abs(int(said(fresh, "date +%s")) - time.time()) < 10


def test_named_snapshots_hold_disks_memory_and_tpm(fresh: Lab) -> None:
    said(fresh, "echo kept > /root/file; sync; echo here > /run/memory")
    pid = said(fresh, "nohup sleep 100000 >/dev/null 2>&1 & echo $!")
    fresh.snapshot("applied")
    said(fresh, "rm /root/file; sync; kill " + pid)
    fresh.restore("applied")
    assert said(fresh, f"cat /root/file /run/memory; ps -o comm= -p {pid}").split() == ["kept", "here", "sleep"]
    fresh.reset()
    assert fresh.run("test -e /root/file", root=True).returncode == 1
    assert fresh.has_snapshot("applied")


def test_taking_a_snapshot_again_leaves_no_old_layer(fresh: Lab) -> None:
    fresh.snapshot("again")
    fresh.snapshot("again")
    fresh.snapshot("again")
    layers = {one.name for one in (fresh.directory / "layers").iterdir()}
    fresh.restore("again")
    tools = fresh.vm.tools
    chain = json.loads(
        tools.run("qemu-img", "info", "--force-share", "--backing-chain", "--output=json", fresh.vm.places.disk)
    )
    assert {Path(one["filename"]).name for one in chain} & layers  # it stands on kept layers
    fresh.reset()
    shutil.rmtree(fresh.directory / "snapshots")
    fresh.reset()
    assert list((fresh.directory / "layers").iterdir()) == []


GREETING = """
import socket, sys, time
address, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
deadline = time.monotonic() + seconds
while time.monotonic() < deadline:
    try:
        with socket.create_connection((address, port), 10) as link:
            print(link.recv(4).decode())
            break
    except OSError as error:
        print(error, file=sys.stderr)
        time.sleep(0.5)
"""


def greeted(lab: Lab, vlan: int, address: str, seconds: float = 60) -> bool:
    """Whether the machine's SSH server greets the second host, which is in the zone of `vlan`, at `address`."""
    words = [sys.executable, "-c", GREETING, address, "22", str(seconds)]
    return lab.peer(vlan).run(words, timeout_seconds=seconds + 30).stdout == "SSH-\n"


def test_the_second_host_reaches_each_zone_and_only_its_own(fresh: Lab) -> None:
    said(fresh, VLANS)
    for vlan in (100, 200):
        assert greeted(fresh, vlan, f"10.0.{vlan // 100}.1")
        assert greeted(fresh, vlan, f"fd6b:6f73:6d6f:{vlan}::1")
    said(fresh, "ip link set trunk.200 down")
    assert greeted(fresh, 100, "10.0.1.1")
    assert not greeted(fresh, 200, "10.0.2.1", seconds=3)
    link_local = said(
        fresh, "ip -6 -o address show dev trunk.100 scope link | awk '{sub(/[/].*/, \"\", $4); print $4}'"
    )
    assert greeted(fresh, 100, f"{link_local}%zone100")


def test_a_zone_that_does_not_exist_is_named(lab: Lab) -> None:
    with pytest.raises(KosmosError, match="VLAN 300"):
        lab.peer(300)


def test_two_labs_run_side_by_side(lab: Lab) -> None:
    other = Lab(f"{lab.name}-b")
    try:
        other.up()
        assert other.status()["ssh_port"] != lab.status()["ssh_port"]
        said(other, "echo other > /root/which")
        assert lab.run("test -e /root/which", root=True).returncode == 1
        assert other.peer(100).run(["ip", "-br", "address"]).stdout != ""
    finally:
        pids = [one["pid"] for one in other.status()["processes"]]
        other.down()
    assert len(pids) == 5
    assert alive(pids) == []
    assert lab.run("true").returncode == 0


def test_a_crashed_lab_is_noticed_and_cleaned(fresh: Lab) -> None:
    before = {one["role"]: one["pid"] for one in fresh.status()["processes"]}
    os.kill(before["qemu"], signal.SIGKILL)
    deadline = time.monotonic() + 10
    while fresh.condition() == "running" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert fresh.condition() == "crashed"
    fresh.up()
    assert fresh.condition() == "running"
    assert alive(list(before.values())) == []


def test_a_panic_fails_at_once_and_says_so(fresh: Lab) -> None:
    fresh.run("(sleep 1; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &", root=True)
    deadline = time.monotonic() + 60
    while "Kernel panic" not in fresh.console() and time.monotonic() < deadline:
        time.sleep(0.2)
    began = time.monotonic()
    with pytest.raises(KosmosError, match="panicked"):
        fresh.vm.wait_ssh()
    assert time.monotonic() - began < 5


def test_a_power_cut_keeps_what_was_synced_and_loses_what_was_not(fresh: Lab) -> None:
    said(fresh, "echo kept > /root/synced; sync; echo lost > /run/never")
    pids = [one["pid"] for one in fresh.status()["processes"]]
    fresh.power_cut()
    assert alive(pids) == []
    assert fresh.condition() == "stopped"
    fresh.start()
    assert said(fresh, "cat /root/synced; test -e /run/never || echo gone").split() == ["kept", "gone"]


def test_it_starts_without_a_tpm(fresh: Lab) -> None:
    fresh.power_cut()
    fresh.start(tpm=False)
    assert fresh.run("ls /dev/tpm0").returncode != 0
    assert said(fresh, "ls /sys/class/net").split() == ["enp0s6", "enp0s7", "enp0s8", "lo"]


def test_one_bank_off_a_wrong_clock_and_a_small_disk(fresh: Lab) -> None:
    fresh.power_cut()
    fresh.start(banks=("sha256",), rtc="2031-05-06T07:08:09", data_mib=64, memory_mib=1536)
    assert said(fresh, "ls /sys/class/tpm/tpm0 | grep ^pcr-") == "pcr-sha256"
    assert said(fresh, "hwclock --get --utc 2>/dev/null || cat /sys/class/rtc/rtc0/date").startswith("2031-05-06")
    assert said(fresh, "lsblk -bdno SIZE /dev/vdb") == str(64 << 20)
    assert int(said(fresh, "awk '/MemTotal/ {print $2}' /proc/meminfo")) < 1536 * 1024
    fresh.reset()
    assert said(fresh, "ls /sys/class/tpm/tpm0 | grep ^pcr-").split() == ["pcr-sha256", "pcr-sha384"]


def test_the_trial_guest_of_the_kvm_probe_is_sound(lab: Lab, tmp_path: Path) -> None:
    disk = lab.dirs.state / f"trial-{os.getpid()}.img"
    disk.write_bytes(accel.TRIAL_DISK)
    try:
        argv = [{"kvm": "tcg", "host": "max"}.get(word, word) for word in accel.trial_argv(disk)]
        done = subprocess.run(lab.vm.tools.argv(*argv), check=False, timeout=60)
        assert done.returncode == accel.EXPECTED_EXIT
    finally:
        disk.unlink()
