"""What goes wrong on real machines: a clear message, a telling exit code, nothing lost, and the next run is fine."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kosmos_installer.errors import ExitCode
from kosmos_installer.paths import state_dir

from .conftest import NAME, Ran, Suite

pytestmark = pytest.mark.vm

CUTS = 3


def failed_checks(ran: Ran) -> dict[str, str]:
    """Id and cure of every failed check."""
    return {c["id"]: c["cure"] for c in ran.data["checks"]["results"] if c["status"] == "failed"}


def refused_by(ran: Ran, *ids: str) -> None:
    """Assert that preflight refused for these reasons at least, every finding with a cure, and changed nothing."""
    assert ran.code == ExitCode.PREFLIGHT_REFUSED, ran.told
    found = failed_checks(ran)
    assert set(ids) <= set(found), found
    assert all(found.values()), found
    assert ran.data["changed"] == 0


def in_background(suite: Suite, name: str, python: str) -> None:
    """Run Python on the machine beside the test, as a unit with a name."""
    started = suite.lab.run("systemd-run", f"--unit={name}", "python3", "-c", python, root=True)
    assert started.returncode == 0, started.stderr


@pytest.mark.long
def test_power_cuts_at_random_points_then_resume(
    journey: Suite, record_property: Callable[[str, object], None]
) -> None:
    seed = int(os.environ.get("KOSMOS_SEED", time.time_ns() % 1_000_000))
    record_property("seed", seed)
    journey.lab.progress.say(f"KOSMOS_SEED={seed}")
    chance = random.Random(seed)
    whole = journey.outcomes["apply"].data["seconds"]
    lab = journey.lab
    lab.reset()
    cut_while_running = 0
    for _ in range(CUTS):
        run = journey.start("apply")
        try:
            run.wait(timeout=chance.uniform(0.05, 0.9) * whole)
            still_runs = False  # what was done before the last cut need not be done again: this run had ended by itself
        except subprocess.TimeoutExpired:
            still_runs = True
        lab.power_cut()
        run.communicate(timeout=180)
        if still_runs:
            cut_while_running += 1
            assert run.returncode == ExitCode.UNREACHABLE
        lab.start()
    assert cut_while_running > 0, "no cut fell into a run"
    resumed = journey.kosmos("apply")
    assert resumed.code == 0, resumed.told
    verify = journey.kosmos("verify")
    assert verify.code == 0, failed_checks(verify)


def test_ssh_dropped_in_the_middle_is_unreachable_and_resumes(applied: Suite) -> None:
    text = applied.appliance_file.read_text()
    try:
        applied.appliance_file.write_text(text.replace("timezone: Etc/UTC", "timezone: Europe/Zurich"))
        started = time.time()
        run = applied.start("apply", "--only", "host_base", fast=False)
        wait_for_task(started, "host_base")
        # Every session ends at once, and nobody is let in again for a while.
        applied.lab.run("systemd-run --unit=drop sh -c 'systemctl stop ssh.socket ssh.service; "
                        "pkill -KILL sshd-session; sleep 45; systemctl start ssh.service'", root=True)  # fmt: skip
        out, err = run.communicate(timeout=400)
        ran = Ran(run.returncode, out, err)
        assert ran.code == ExitCode.UNREACHABLE, ran.told
        assert ran.data["diagnosis"]["cure"]
        applied.lab.vm.wait_ssh()
        again = applied.kosmos("apply", "--only", "host_base")
        assert again.code == 0, again.told
        assert "Europe/Zurich" in applied.lab.run("readlink /etc/localtime").stdout
    finally:
        applied.appliance_file.write_text(text)


def wait_for_task(since: float, word: str) -> None:
    """Wait until the log of the run that began after `since` names a task with `word`."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        for log in (state_dir() / "runs").glob(f"*-apply-{NAME}/log.txt"):
            if log.stat().st_mtime >= since and word in log.read_text(errors="replace"):
                return
        time.sleep(0.3)
    raise AssertionError(f"no run reached {word}")


def test_another_run_is_refused_with_its_holder(applied: Suite) -> None:
    started = time.time()
    first = applied.start("apply", fast=False)
    try:
        wait_for_task(started, "host_base")
        refused = applied.kosmos("apply")
        assert refused.code == ExitCode.BUSY, refused.told
        assert str(first.pid) in refused.out + refused.err
    finally:
        first.terminate()
        first.communicate(timeout=120)
    assert first.returncode == ExitCode.INTERRUPTED


def test_root_disk_full(fresh: Suite) -> None:
    fresh.lab.run("fallocate -l 100G /big 2>/dev/null; dd if=/dev/zero of=/big2 bs=4k 2>/dev/null", root=True)
    # Without the accelerator, which needs a file of its own on the host before it can ask anything.
    refused_by(fresh.kosmos("apply", fast=False), "host.disk.root_free")
    during = fresh.kosmos("apply", "--only", "host_base")
    assert during.code == ExitCode.NO_SPACE, during.told
    assert during.data["diagnosis"]["cure"]
    fresh.lab.run("rm -f /big /big2", root=True)
    again = fresh.kosmos("apply", "--only", "host_base")
    assert again.code == 0, again.told


def test_data_disk_with_foreign_data_is_refused_and_untouched(fresh: Suite) -> None:
    disk = "/dev/disk/by-id/virtio-kosmos-data"
    made = fresh.lab.run(f"mkfs.ext4 -q -L photos {disk} && mount {disk} /mnt && "
                         "{ fallocate -l 100G /mnt/big || dd if=/dev/zero of=/mnt/full bs=1M || true; } 2>/dev/null; "
                         f"umount /mnt; blkid {disk}", root=True)  # fmt: skip
    assert "photos" in made.stdout, made.stderr
    refused_by(fresh.kosmos("apply"), "host.disk.data_state")
    assert "photos" in fresh.lab.run(f"blkid -p {disk}", root=True).stdout


@pytest.mark.long
def test_apt_locked_by_somebody_else(fresh: Suite) -> None:
    in_background(
        fresh,
        "other-apt",
        "import fcntl,time; f=open('/var/lib/dpkg/lock-frontend','w'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(3600)",
    )
    refused_by(fresh.kosmos("preflight"), "host.apt.lock")
    with fresh.host_variables("host_base_packages_lock_timeout_seconds: 5\n"):
        busy = fresh.kosmos("apply", "--only", "host_base")
    assert busy.code == ExitCode.BUSY, busy.told
    assert busy.data["diagnosis"]["cure"]
    fresh.lab.run("systemctl stop other-apt", root=True)
    again = fresh.kosmos("apply", "--only", "host_base")
    assert again.code == 0, again.told


@pytest.mark.long
def test_unreachable_mirror(fresh: Suite) -> None:
    broken = fresh.lab.run(
        "cp -a /etc/apt /root/apt.kept; rm -rf /var/lib/apt/lists/*; "
        "grep -rlE 'https?://' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | "
        "xargs sed -i -E 's#https?://[^ ]+#http://127.0.0.1:9/debian#'", root=True)  # fmt: skip
    assert broken.returncode == 0, broken.stderr
    ran = fresh.kosmos("apply", "--only", "host_base")
    assert ran.code == ExitCode.MIRROR_UNREACHABLE, ran.told
    assert ran.data["diagnosis"]["cure"]
    fresh.lab.run("rm -rf /etc/apt && mv /root/apt.kept /etc/apt", root=True)
    again = fresh.kosmos("apply", "--only", "host_base")
    assert again.code == 0, again.told


@pytest.mark.parametrize(
    ("hardware", "check"),
    [
        pytest.param({"tpm": False}, "host.tpm.present", id="no-tpm"),
        pytest.param({"banks": ("sha256",)}, "host.tpm.bank_sha384", id="one-bank-off"),
        pytest.param({"rtc": "2019-01-01T00:00:00"}, "host.clock.controller", id="clock-years-back"),
        pytest.param(
            {"rtc": "2031-01-01T00:00:00"}, "host.clock.controller", id="clock-years-forward", marks=pytest.mark.long
        ),
    ],
)
def test_hardware_that_is_not_fit_is_refused_by_name(suite: Suite, hardware: dict[str, object], check: str) -> None:
    suite.lab.start(fresh=True, **hardware)  # type: ignore[arg-type]  # the table holds each keyword's own type
    refused_by(suite.kosmos("apply"), check)
    suite.lab.reset()
    fit = suite.kosmos("preflight")
    assert fit.code == 0, failed_checks(fit)


def test_support_bundle_of_a_broken_host_is_made(fresh: Suite, tmp_path: Path) -> None:
    archive = tmp_path / "bundle.tar.gz"
    ran = fresh.kosmos("support-bundle", "-o", str(archive))
    assert ran.code == 0, ran.told
    assert archive.stat().st_size > 0
