"""A recorded process is ended exactly when it is still the one that was started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kosmos_installer.lab.state import Process, State, boot_id, start_ticks, stop_all


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as child:
        yield child
        child.kill()


def test_a_running_process_is_alive(sleeper: subprocess.Popen[bytes]) -> None:
    assert Process.of("qemu", sleeper.pid).alive()


def test_a_recycled_pid_is_not_ours_and_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    ours = Process.of("qemu", sleeper.pid)
    recycled = replace(ours, started=ours.started - 1)
    assert not recycled.alive()
    recycled.kill()
    assert ours.alive()


def test_a_process_of_an_earlier_boot_is_not_ours(sleeper: subprocess.Popen[bytes]) -> None:
    assert not replace(Process.of("qemu", sleeper.pid), boot="00000000-0000-0000-0000-000000000000").alive()


def test_a_zombie_counts_as_ended(sleeper: subprocess.Popen[bytes]) -> None:
    process = Process.of("qemu", sleeper.pid)
    os.kill(sleeper.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while process.alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert Path(f"/proc/{sleeper.pid}").exists()  # nobody has waited for it
    assert not process.alive()


def test_start_ticks_survives_brackets_and_spaces_in_a_program_name(tmp_path: Path) -> None:
    program = tmp_path / "a) Z (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([str(program), "60"]) as child:
        try:
            time.sleep(0.05)  # let the name of the new program take effect
            assert start_ticks(child.pid) is not None
        finally:
            child.kill()


def test_no_such_process_has_no_start() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    assert start_ticks(child.pid) is None


def test_state_is_private_and_comes_back_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "labs/x/state.json"
    state = State(
        [Process("qemu", 7, 8, boot_id())],
        2222,
        "/s",
        17,
        True,
        {"cpus": 2},
        {"cpus": 3},
        {"name": "tcg", "reason": "r"},
    )
    state.save(file)
    assert State.load(file) == state
    assert file.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in file.parent.iterdir()] == ["state.json"]


def test_absent_state_is_empty(tmp_path: Path) -> None:
    assert State.load(tmp_path / "state.json") == State()


def test_stop_all_ends_the_processes_and_removes_the_sockets(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    sockets = tmp_path / "sockets"
    sockets.mkdir()
    (sockets / "qmp").touch()
    file = tmp_path / "state.json"
    State([Process.of("swtpm", sleeper.pid)], 2222, str(sockets)).save(file)
    stop_all(file)
    assert sleeper.wait(5) == -signal.SIGKILL
    assert not sockets.exists()
    assert State.load(file) == State([], 2222, "")
