"""Every check that needs a live machine: good on the finished appliance, broken as breaks/*.yml says, good again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .check_driver import Driver
from .conftest import NAME, ROOT, Suite

pytestmark = [pytest.mark.vm, pytest.mark.long]

FILES = sorted(Path(__file__).parent.glob("breaks/*.yml"))
BREAKS: dict[str, tuple[str, dict[str, Any]]] = {
    name: (path.stem, how) for path in FILES for name, how in yaml.safe_load(path.read_text()).items()
}


class Bench:
    """The machine's driver, and the checks of every role as this appliance's variables render them."""

    def __init__(self, driver: Driver, inventory: Path) -> None:
        # Rendering belongs to the unit tests' bed. It brings Ansible's template engine: loaded here, not at collection.
        sys.path[:0] = [str(ROOT / "tests/unit")]
        from ansible.plugins.loader import init_plugin_loader

        init_plugin_loader([str(ROOT / "collections")])
        import check_bed

        self.driver, self.bed = driver, check_bed
        self.variables = check_bed.kosmos_variables(inventory)

    def look(self, role: str, name: str, overrides: dict[str, Any]) -> dict[str, Any]:
        """Evaluate one check in the machine, after those that it requires."""
        checks = self.bed.checks_of(role, self.variables, **overrides)
        return self.driver.evaluate(self.bed.chain(checks, name))[-1]

    def do(self, text: str) -> None:
        """Run shell text that must succeed."""
        code, output = self.driver.shell(text)
        assert code == 0, f"{text}\n{output}"


@pytest.fixture(scope="module")
def bench(applied_module: Suite) -> Iterator[Bench]:
    with Driver(applied_module.lab.ssh) as driver:
        yield Bench(driver, applied_module.folder / "inventories" / NAME)


@pytest.mark.parametrize("name", sorted(BREAKS))
def test_the_check_notices(bench: Bench, name: str) -> None:
    role, how = BREAKS[name]
    overrides = how.get("vars", {})
    bench.do(how.get("prepare", "true"))
    before = bench.look(role, name, overrides)
    # A check for a clean host may fail on a finished one by its nature; that it passes after reset is test_reset's.
    good = before["pass"]
    assert good or before["phase"] == "clean", before
    bench.do(how["break"])
    try:
        broken = bench.look(role, name, overrides)
    finally:
        bench.do(how["undo"])
    assert not broken["pass"], broken
    assert not broken["skipped"], broken
    assert broken["evidence"], broken
    assert "the probe failed" not in broken["evidence"], broken
    after = bench.look(role, name, overrides)
    assert after["pass"] is good, after
