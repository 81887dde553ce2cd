"""Whole operations, with real Ansible on this machine: views, records, locks, and every way to stop."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from kosmos_installer.runner import _descendants

HERE = Path(__file__).parent
ROOT = HERE.parents[3]


@dataclass
class Driver:
    """Starts run_driver.py with its own state and work folders."""

    folder: Path

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def record(self) -> Path:
        (folder,) = (self.state / "runs").iterdir()
        return folder

    def argv(self, case: str, mode: str = "auto") -> list[str]:
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        return [sys.executable, str(HERE / "run_driver.py"), case, str(self.state), str(work), mode]

    def start(self, case: str, mode: str = "auto", **streams: int) -> subprocess.Popen[str]:
        chosen = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}", "TERM": "xterm-256color", "XDG_RUNTIME_DIR": ""}
        return subprocess.Popen(self.argv(case, mode), text=True, env=environment, **chosen)  # type: ignore[call-overload, no-any-return]

    def run(self, case: str, mode: str = "auto") -> tuple[int, str, str]:
        process = self.start(case, mode)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def summary(self) -> dict[str, object]:
        return dict(json.loads((self.record / "summary.json").read_text()))


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return Driver(tmp_path)


def wait_for(condition: Callable[[], bool], seconds: float = 180.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def sleeping_below(pid: int) -> list[int]:
    """The `sleep 30` of the slow case, among the descendants of a process."""
    found = []
    for child in _descendants(pid):
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"sleep\x0030"):
            found.append(child)
    return found


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_good_run_without_a_terminal(driver: Driver) -> None:
    code, out, err = driver.run("ok")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert not [line for line in out.splitlines() if line != line.rstrip()]
    assert re.search(r"^ +[\d.]+ s  changed     host_alpha > Write the three settings \([\d.]+ s\)$", out, re.MULTILINE)
    assert re.search(r"^✔ demo is applied: 3 tasks changed something in", out, re.MULTILINE)
    assert f"  log     {driver.record}/log.txt\n  next    kosmos-install verify\n" in out
    assert driver.summary()["exit_code"] == 0
    log = (driver.record / "log.txt").read_text()
    assert "TASK [host_alpha : Write the three settings]" in log
    assert "PLAY RECAP" in log
    spec = json.loads((driver.record / "spec.json").read_text())
    assert spec["argv"][0] == "ansible-playbook"


def test_json_is_one_document_and_the_record_says_the_same(driver: Driver) -> None:
    code, out, err = driver.run("failure", "json")
    assert (code, err) == (1, "")
    said = json.loads(out)
    kept = driver.summary()
    assert (said["exit_code"], said["exit_name"], said["diagnosis"]["kind"]) == (1, "failed", "task_failed")
    assert said["failures"][0]["title"] == "net_gamma > Load the rules"
    assert said["roles"][2]["total"] == 1
    assert {key: said[key] for key in said if key != "report"} == {
        key: value for key, value in kept.items() if key not in {"rc", "ended"}
    }


def test_quiet_says_nothing_of_a_good_run(driver: Driver) -> None:
    assert driver.run("rescued", "quiet") == (0, "", "")


def test_quiet_tells_a_failure(driver: Driver) -> None:
    code, out, err = driver.run("syntax", "quiet")
    assert (code, out) == (4, "")
    assert "'gather_fact' is not a valid attribute for a Play" in err
    assert "resume  kosmos-install apply" in err


def test_a_failed_verify_leaves_a_report(driver: Driver) -> None:
    code, out, _ = driver.run("verify", "json")
    assert code == 5
    report = Path(json.loads(out)["report"])
    assert report.parent == driver.record
    assert "PermitRootLogin yes" in report.read_text()
    assert json.loads((driver.record / "report.json").read_text())["counts"]["failed"] == 1


def test_on_a_terminal_the_picture_lives_and_leaves(driver: Driver) -> None:
    ours, theirs = pty.openpty()
    process = driver.start("ok", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    assert process.wait(timeout=180) == 0
    text = seen.decode(errors="replace")
    assert "KOSMOS" in text
    assert "host_beta" in text
    assert "is applied" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor was hidden and is back
    assert re.search(r"\d+%", text)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_cleanly_and_says_how_to_resume(driver: Driver, number: signal.Signals) -> None:
    process = driver.start("slow")
    wait_for(lambda: bool(sleeping_below(process.pid)))
    children = _descendants(process.pid)
    process.send_signal(number)
    out, err = process.communicate(timeout=180)
    assert (process.returncode, err) == (130, "")
    assert "Stopped by request during net_gamma > Wait for the far end." in out
    assert "  resume  kosmos-install apply --tags net\n" in out
    wait_for(lambda: not any(alive(child) for child in children), 30)
    assert driver.summary()["exit_name"] == "interrupted"


def test_a_second_signal_does_not_wait(driver: Driver) -> None:
    process = driver.start("slow")
    wait_for(lambda: bool(sleeping_below(process.pid)))
    children = _descendants(process.pid)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=180)
    assert process.returncode == 130
    wait_for(lambda: not any(alive(child) for child in children), 30)


def test_the_second_apply_to_a_host_is_refused(driver: Driver) -> None:
    first = driver.start("slow")
    try:
        wait_for(lambda: bool(sleeping_below(first.pid)))
        code, out, err = driver.run("syntax")
        assert (code, out) == (6, "")
        assert f"runs as process {first.pid} on " in err
        assert " since 20" in err
    finally:
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=180)


def test_after_a_kill_nothing_blocks_the_next_run(driver: Driver) -> None:
    first = driver.start("slow")
    wait_for(lambda: bool(sleeping_below(first.pid)))
    children = _descendants(first.pid)
    first.kill()
    first.communicate()
    for child in children:
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            continue
    assert list(Path("/dev/shm").glob(f"kosmos-run-{first.pid}-*"))
    assert driver.run("syntax", "quiet")[0] == 4  # and not 6
    assert not list(Path("/dev/shm").glob(f"kosmos-run-{first.pid}-*"))
