"""Every role scenario below molecule/, from a fresh machine to a clean one; by hand: `molecule test -s ROLE`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml"))
IMAGE_BUILDER = ROOT / "molecule/_shared/image/build.py"
LONGEST_SECONDS = 900

pytestmark = pytest.mark.container


@pytest.fixture(scope="session")
def bed() -> None:
    """Build the bed's image, or skip and say why this machine runs no containers. A build that fails is a failure."""
    missing = [name for name in ("podman", "runc", "mmdebstrap", "ssh") if not shutil.which(name)]
    if missing:
        pytest.skip(f"missing programs: {', '.join(missing)} (tools/install-debian-packages roles)")
    if os.geteuid() != 0:
        pytest.skip("the bed needs root: systemd as PID 1 with mounts and a network of its own")
    built = subprocess.run([sys.executable, IMAGE_BUILDER], check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    probe = [
        "podman", "run", "--rm", "--runtime", "runc", "--network", "none", "--ulimit", "nofile=1024:1024",
        "--ulimit", "nproc=1024:1024", built.stdout.strip(), "/bin/true",
    ]  # fmt: skip
    ran = subprocess.run(probe, check=False, capture_output=True, text=True)
    if ran.returncode:
        pytest.skip(f"podman with runc starts no container here: {ran.stderr.strip().splitlines()[-1]}")


@pytest.mark.timeout(LONGEST_SECONDS + 60)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_role(scenario: str, bed: None) -> None:
    """The role's whole scenario passes, every step of it really ran, and nothing of it stays behind."""
    code, output = molecule("test", scenario)
    assert code == 0, f"molecule test -s {scenario}\n{told(output)}"
    steps = re.findall(rf"\[{scenario} > (\w+)\] Executed: (\w+)", output)
    assert [name for name, _ in steps].count("verify") == 2, output
    assert {result for _, result in steps} == {"Successful"}, steps


@pytest.mark.timeout(LONGEST_SECONDS + 60)
def test_a_killed_run_does_not_stand_in_the_way(bed: None) -> None:
    """A run that was killed leaves "created" in Molecule's state, without a container: the next one begins anew."""
    scenario = "cluster_gvisor"  # the shortest
    molecule("destroy", scenario)
    others = beds(scenario)
    code, output = molecule("create", scenario)
    assert code == 0, told(output)
    (made,) = beds(scenario) - others
    subprocess.run(["podman", "rm", "--force", "--time", "0", made], check=True, capture_output=True)
    code, output = molecule("test", scenario)
    assert code == 0, told(output)


def beds(scenario: str) -> set[str]:
    """Return the names of the running beds of a scenario; other checkouts may have theirs."""
    listing = ["podman", "ps", "--format", "{{.Names}}", "--filter", f"name=^kosmos-bed-{scenario}-"]
    return set(subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split())


def molecule(verb: str, scenario: str) -> tuple[int, str]:
    """Return the exit code of a Molecule command and what it wrote, without colours."""
    ran = subprocess.run(
        [Path(sys.executable).with_name("molecule"), verb, "--scenario-name", scenario],
        cwd=ROOT,
        env={
            **os.environ,
            "NO_COLOR": "1",
            "COLUMNS": "160",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        check=False,
        timeout=LONGEST_SECONDS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return ran.returncode, re.sub(r"\x1b\[[0-9;]*m", "", ran.stdout)


def told(output: str) -> str:
    """Return what Molecule said of the step that failed; all of it when no step was reached."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip(" │")]
    end = next((number for number, line in enumerate(lines) if "Executed: Failed" in line), len(lines))
    start = max((number for number, line in enumerate(lines[:end]) if line.endswith("] Executing")), default=0)
    return "\n".join(lines[start : end + 1][-120:])
