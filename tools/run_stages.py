#!/usr/bin/env python3
"""Run the gates of the project, one after the other: `tools/run_stages.py all|lint|unit|roles|appliance|extended`.

Each stage prints what it runs, its own output and its duration. The last line counts over all stages; a stage that
fails, runs no test or runs out of time makes the exit code 1. Standard library only.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
# A stop for what hangs. The aim is 60 minutes for .ci/run, setup included; a busy machine may need longer.
TIME_LIMIT_SECONDS = 78 * 60
EXTENDED_LIMIT_SECONDS = 4 * 3600
OTHER_PYTHONS = ("3.11", "3.12", "3.13")


@dataclass(frozen=True)
class Check:
    """One command that passes or fails as a whole, or a pytest run that is counted by test."""

    name: str
    command: tuple[str, ...]
    is_pytest: bool = False


@dataclass
class Count:
    """Tests passed, failed (errors included) and skipped."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other: Count) -> None:
        """Add `other` in place."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def lint() -> Iterator[Check]:
    """Everything that reads the code without running it."""
    yield Check("ruff", ("ruff", "check", "."))
    yield Check("ruff format", ("ruff", "format", "--check", "."))
    yield Check("mypy", ("mypy",))
    yield Check("yamllint", ("yamllint", "--strict", "."))
    yield Check("ansible-lint", ("ansible-lint", "--offline"))
    yield Check("syntax", ("ansible-playbook", "-i", "inventories/lab", "--syntax-check", "site.yml"))
    yield Check("generated docs", ("python", "tools/generate_docs.py", "--check"))
    yield Check("role READMEs", ("python", "tools/role_readme.py", "--check"))


def pytest(name: str, *words: str, python: str = "python") -> Check:
    """Return a pytest run; `-ra` in pyproject.toml prints the reason of each skipped test."""
    return Check(name, (python, "-m", "pytest", *words), is_pytest=True)


def unit() -> Iterator[Check]:
    """The unit suite on the Python of .venv."""
    yield pytest("unit", "tests/unit")


def other_pythons() -> Iterator[Check]:
    """The unit suite on each other supported Python that this machine has; one that it has not is named."""
    own = subprocess.run([BIN / "python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                         check=True, capture_output=True, text=True).stdout.strip()  # fmt: skip
    for version in OTHER_PYTHONS:
        if version != own:
            yield pytest(f"unit on Python {version}", "tests/unit", python=version)


def roles() -> Iterator[Check]:
    """Each role in a systemd container, and the packet filter in network namespaces."""
    yield pytest("roles", "tests/integration", "-m", "not vm")


def appliance() -> Iterator[Check]:
    """The appliance in the lab VM: stock machine to proven one, a run that changes nothing, zones, faults, reset."""
    yield pytest("appliance", "tests/appliance", "-m", "not long")


def extended() -> Iterator[Check]:
    """Every test in the VM: also each check broken, every lockout, and the lab itself. Too long for each change."""
    yield pytest("appliance, extended", "tests/appliance", "tests/integration", "-m", "vm")


STAGES = {
    "lint": (lint,),
    "unit": (unit,),
    "roles": (roles,),
    "appliance": (appliance,),
    "extended": (extended,),
    "all": (lint, unit, other_pythons, roles, appliance),
}


def venv_python(version: str) -> str | None:
    """Return the interpreter of an environment for `version`, made when needed; None when this machine has none."""
    found = subprocess.run([ROOT / "tools/find-python", version], check=False, capture_output=True, text=True)
    if found.returncode:
        return None
    folder = ROOT / ".cache" / f"venv-{version}"
    stamp, lock = folder / ".ready", ROOT / "requirements-dev.lock"
    if not stamp.exists() or stamp.stat().st_mtime < lock.stat().st_mtime:
        subprocess.run([ROOT / "tools/make-venv", folder, version], check=True)
        stamp.touch()
    return str(folder / "bin" / "python")


def counted(report: Path) -> Count:
    """Return the counts of a JUnit report; a missing or empty one is a failure, never a silent pass."""
    if not report.exists():
        return Count(failed=1)
    count = Count()
    for suite in ET.parse(report).getroot().iter("testsuite"):
        number = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
        bad = number["failures"] + number["errors"]
        count.add(Count(number["tests"] - bad - number["skipped"], bad, number["skipped"]))
    return count if count != Count() else Count(failed=1)


def execute(command: list[str], seconds: float) -> int:
    """Run in a process group of its own; after `seconds` it is ended (first asked, then killed)."""
    folder = Path(command[0]).parent if Path(command[0]).is_absolute() else BIN
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PATH": path}, start_new_session=True)
    try:
        return process.wait(timeout=max(seconds, 1))
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as reason:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if isinstance(reason, KeyboardInterrupt):
            raise
        print(f"out of time: ended after {seconds:.0f} s", flush=True)
        return 1


def run(check: Check, deadline: float) -> Count:
    """Run one check and count it."""
    command = list(check.command)
    if check.is_pytest and command[0] != "python":
        python = venv_python(command[0])
        if python is None:
            print(f"SKIPPED: this machine has no Python {command[0]}")
            return Count(skipped=1)
        command[0] = python
    print("$", *check.command, flush=True)
    left = deadline - time.monotonic()
    if not check.is_pytest:
        return Count(failed=1) if execute(command, left) else Count(passed=1)
    with tempfile.TemporaryDirectory(prefix="kosmos-stage-") as folder:
        report = Path(folder) / "report.xml"
        code = execute([*command, f"--junitxml={report}"], left)
        count = counted(report)
    if code and not count.failed:
        count.failed = 1
    return count


def main() -> int:
    """Run the wanted stages; return 0 only when nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    wanted = parser.parse_args().stage
    deadline = time.monotonic() + (EXTENDED_LIMIT_SECONDS if wanted == "extended" else TIME_LIMIT_SECONDS)
    rows: list[tuple[str, float, Count]] = []
    for stage in STAGES[wanted]:
        for check in stage():
            print(f"\n=== {check.name}", flush=True)
            start = time.monotonic()
            count = run(check, deadline)
            rows.append((check.name, time.monotonic() - start, count))
            print(f"--- {check.name}: {rows[-1][1]:.1f} s, {count}", flush=True)
    total = Count()
    print("\nstage                      seconds  result")
    for name, seconds, count in rows:
        print(f"{name:<24} {seconds:>9.1f}  {count}")
        total.add(count)
    print(total)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
