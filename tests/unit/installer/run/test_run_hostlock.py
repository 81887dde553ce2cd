"""The lock of a host, held and fought for by real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kosmos_installer.errors import ExitCode, KosmosError
from kosmos_installer.hostlock import Holder, hold

ME = Holder(os.getpid(), "desk", "2026-11-22T07:15:07+00:00", "kosmos-install apply")
OTHER = """
import os, sys
from pathlib import Path
from kosmos_installer.hostlock import Holder, hold
me = Holder(os.getpid(), "desk", "2026-11-22T07:00:00+00:00", "kosmos-install apply -i lab")
with hold(Path(sys.argv[1]), sys.argv[2:], me):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def other_process(folder: Path, *addresses: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(folder), *addresses],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_second_is_refused_and_told_about_the_first(tmp_path: Path) -> None:
    with other_process(tmp_path, "10.0.0.1:22") as process:
        with pytest.raises(KosmosError) as caught, hold(tmp_path, ["10.0.0.1:22"], ME):
            pass
        error = caught.value
        assert (error.exit_code, error.where) == (ExitCode.BUSY, "10.0.0.1:22")
        assert error.why == (
            f"`kosmos-install apply -i lab` runs as process {process.pid} on desk since 2026-11-22T07:00:00+00:00."
        )
        assert error.cure.endswith(f"kill -INT {process.pid}")


def test_another_host_or_port_is_free(tmp_path: Path) -> None:
    with other_process(tmp_path, "10.0.0.1:22"), hold(tmp_path, ["10.0.0.2:22", "10.0.0.1:2222", "local"], ME):
        pass


def test_one_taken_host_frees_the_others(tmp_path: Path) -> None:
    with other_process(tmp_path, "b:22"):
        with pytest.raises(KosmosError), hold(tmp_path, ["a:22", "b:22", "c:22"], ME):
            pass
        with hold(tmp_path, ["a:22", "c:22"], ME):
            pass


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    with other_process(tmp_path, "a:22") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with hold(tmp_path, ["a:22"], ME):
            pass


def test_a_lock_is_released_at_the_end_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    for _ in range(2):
        with hold(folder, ["a:22", "a:22"], ME):
            (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_holder_without_a_name_still_holds(tmp_path: Path) -> None:
    with other_process(tmp_path, "a:22"):
        (path,) = tmp_path.glob("*.lock")
        path.write_text("")
        with pytest.raises(KosmosError) as caught, hold(tmp_path, ["a:22"], ME):
            pass
        assert (caught.value.exit_code, caught.value.why) == (ExitCode.BUSY, "")
