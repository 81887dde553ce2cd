"""The whole appliance in a lab VM: one journey from fresh to proven; every other test restores from its ends."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kosmos_installer.lab import inventory, packages
from kosmos_installer.lab.lab import Lab
from kosmos_installer.lab.progress import Progress
from kosmos_installer.paths import ansible_tree

NAME = "suite"
APPLIED = "applied"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ran:
    """A finished command: exit code, both outputs, and its JSON document when it printed one."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> dict[str, Any]:
        """The JSON document of `--json`."""
        document: dict[str, Any] = json.loads(self.out)
        return document

    @property
    def told(self) -> str:
        """Everything a person would have seen; for the message of an assertion."""
        return self.out[-6000:] + self.err[-3000:]


@dataclass
class Suite:
    """The lab, the folder with its inventory, and the command under test."""

    lab: Lab
    folder: Path
    outcomes: dict[str, Ran] = field(default_factory=dict)

    @property
    def appliance_file(self) -> Path:
        """The appliance file of this lab; a test that edits it puts it back."""
        return self.folder / "inventories" / NAME / "group_vars" / "all" / "kosmos.yml"

    @contextmanager
    def host_variables(self, text: str) -> Iterator[None]:
        """Give the lab's host some variables for a while, as an operator would in host_vars."""
        file = self.folder / "inventories" / NAME / "host_vars" / f"{self.lab.alias}.yml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        try:
            yield
        finally:
            file.unlink()

    def environment(self, *, fast: bool) -> dict[str, str]:
        """Return the environment. fast: a persistent interpreter on the host, when its package is there."""
        accelerator = importlib.util.find_spec("ansible_mitogen")
        if not fast or accelerator is None or accelerator.origin is None:
            return dict(os.environ)
        plugins = Path(accelerator.origin).parent / "plugins" / "strategy"
        return {**os.environ, "ANSIBLE_STRATEGY_PLUGINS": str(plugins), "ANSIBLE_STRATEGY": "mitogen_linear"}

    def command(self, *words: str) -> list[str]:
        """Return the argument list of `kosmos-install`, with the inventory for the verbs that take one."""
        return [sys.executable, "-m", "kosmos_installer", *words, "-i", f"inventories/{NAME}", "--json"]

    def kosmos(self, *words: str, fast: bool = True, timeout_seconds: float = 1500) -> Ran:
        """Run `kosmos-install WORDS` to its end."""
        return self._run(self.command(*words), self.environment(fast=fast), timeout_seconds)

    def start(self, *words: str, fast: bool = True) -> subprocess.Popen[str]:
        """Start `kosmos-install WORDS` for a test that interferes with it."""
        return subprocess.Popen(
            self.command(*words),
            cwd=self.folder,
            env={**self.environment(fast=fast), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def playbook(self, *words: str, fast: bool = True, timeout_seconds: float = 1500) -> Ran:
        """Run plain `ansible-playbook` from the checkout, as an Ansible user would."""
        program = Path(sys.executable).parent / "ansible-playbook"
        command = [str(program), "-i", str(self.folder / "inventories" / NAME), *words]
        return self._run(command, self.environment(fast=fast), timeout_seconds, cwd=ROOT)

    def _run(self, command: list[str], env: Mapping[str, str], timeout_seconds: float, cwd: Path | None = None) -> Ran:
        done = subprocess.run(
            command,
            cwd=cwd or self.folder,
            env={**env, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """A lab of its own, fresh, with its inventory in a folder of its own."""
    missing = packages.missing()
    if missing:
        pytest.skip(f"the lab needs Debian packages that are not installed: {' '.join(missing)}")
    lab = Lab(NAME, progress=Progress())
    lab.down()
    lab.up()
    folder = tmp_path_factory.mktemp("appliance")
    inventory.ensure(folder, NAME, ansible_tree().inventories)
    yield Suite(lab, folder)
    lab.down()


@pytest.fixture(scope="session")
def journey(suite: Suite) -> Suite:
    """From the stock machine to the proven one: plan, apply, reboot, verify, apply again, check. Taken once."""
    fingerprint = (
        "find /etc /usr/local /opt /var/lib/dpkg/status -xdev -type f -printf '%p %s %m %T@\\n' | sort | sha256sum"
    )
    before = suite.lab.run(fingerprint, root=True).stdout
    suite.outcomes["plan"] = suite.kosmos("plan")
    after = suite.lab.run(fingerprint, root=True).stdout
    suite.outcomes["plan touched"] = Ran(int(before != after), before, after)
    suite.outcomes["apply"] = suite.kosmos("apply")
    assert suite.outcomes["apply"].code == 0, suite.outcomes["apply"].told
    suite.lab.reboot()
    suite.outcomes["verify"] = suite.kosmos("verify")
    # The reference: Ansible's own strategy, without the accelerator.
    suite.outcomes["again"] = suite.kosmos("apply", fast=False)
    suite.outcomes["check"] = suite.playbook("site.yml", "--check", "--diff")
    suite.lab.snapshot(APPLIED)
    return suite


@pytest.fixture
def applied(journey: Suite) -> Suite:
    """The finished appliance, for one test."""
    journey.lab.restore(APPLIED)
    return journey


@pytest.fixture(scope="module")
def applied_module(journey: Suite) -> Suite:
    """The finished appliance, for the tests of one file that leave no trace."""
    journey.lab.restore(APPLIED)
    return journey


@pytest.fixture
def fresh(suite: Suite) -> Suite:
    """The stock machine, for one test."""
    suite.lab.reset()
    return suite
