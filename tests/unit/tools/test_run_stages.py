"""The stage runner never takes silence for success."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))

import run_stages

LATER = 3600.0


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


@pytest.mark.parametrize(("code", "passed"), [("pass", 1), ("raise SystemExit(3)", 0)])
def test_a_command_counts_as_one(code: str, passed: int) -> None:
    count = run_stages.run(run_stages.Check("one", python(code)), time.monotonic() + LATER)
    assert (count.passed, count.failed, count.skipped) == (passed, 1 - passed, 0)


def test_a_command_that_hangs_is_ended_and_failed() -> None:
    start = time.monotonic()
    count = run_stages.run(run_stages.Check("hangs", python("import time; time.sleep(60)")), start + 1)
    assert count.failed == 1
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        (None, (0, 1, 0)),
        ('<testsuites><testsuite tests="0" failures="0" errors="0" skipped="0"/></testsuites>', (0, 1, 0)),
        ('<testsuites><testsuite tests="7" failures="1" errors="1" skipped="2"/></testsuites>', (3, 2, 2)),
        ('<testsuites><testsuite tests="2" failures="0" errors="0" skipped="2"/></testsuites>', (0, 0, 2)),
    ],
    ids=["no report", "no test", "mixed", "all skipped"],
)
def test_a_report_is_counted(tmp_path: Path, xml: str | None, expected: tuple[int, int, int]) -> None:
    report = tmp_path / "report.xml"
    if xml is not None:
        report.write_text(xml)
    count = run_stages.counted(report)
    assert (count.passed, count.failed, count.skipped) == expected


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("def test_a(): pass\ndef test_b(): assert False\n", (1, 1, 0)),
        ("import pytest\ndef test_a(): pytest.skip('no such machine')\n", (0, 0, 1)),
        ("import does_not_exist\n", (0, 1, 0)),
        ("X = 1\n", (0, 1, 0)),
    ],
    ids=["one of two fails", "skip", "cannot be collected", "no tests"],
)
def test_a_pytest_run_is_counted_by_test(tmp_path: Path, test: str, expected: tuple[int, int, int]) -> None:
    (tmp_path / "test_it.py").write_text(test)
    check = run_stages.pytest("it", str(tmp_path), "-q", "--rootdir", str(tmp_path), "-p", "no:cacheprovider")
    count = run_stages.run(check, time.monotonic() + LATER)
    assert (count.passed, count.failed, count.skipped) == expected


def test_a_python_that_is_not_here_is_skipped_by_name(capfd: pytest.CaptureFixture[str]) -> None:
    check = run_stages.pytest("unit on Python 3.2", "tests/unit", python="3.2")
    assert run_stages.run(check, time.monotonic() + LATER).skipped == 1
    assert "SKIPPED: this machine has no Python 3.2" in capfd.readouterr().out


def test_every_stage_of_the_makefile_exists() -> None:
    makefile = (run_stages.ROOT / "Makefile").read_text()
    used = {line.split("run_stages.py ")[1].strip() for line in makefile.splitlines() if "run_stages.py " in line}
    assert used == set(run_stages.STAGES)
