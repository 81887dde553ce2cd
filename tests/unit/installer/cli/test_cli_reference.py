"""What ships beside the code agrees with it: generated pages, and the checks of every role."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kosmos_installer import catalogue

ROOT = Path(__file__).parents[4]
ENGINE = "ansible_collections.kosmos.appliance.plugins.module_utils.checks.definition"


def test_no_generated_page_is_stale() -> None:
    command = [sys.executable, str(ROOT / "tools/generate_docs.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_every_shipped_check_is_in_order_and_has_an_id_of_its_own() -> None:
    checks = catalogue.load(ROOT / "roles")
    assert len(checks) >= 90
    assert all(check.cure for check in checks)


def test_the_catalogue_and_the_engine_agree_on_words(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    monkeypatch.syspath_prepend(str(ROOT / "collections"))
    engine: Any = importlib.import_module(ENGINE)
    try:
        assert engine.PHASES == catalogue.PHASES
        assert engine.SEVERITIES == catalogue.SEVERITIES
        assert engine.ID.pattern == catalogue.ID.pattern
    finally:
        for name in [name for name in sys.modules if name.startswith("ansible_collections.kosmos")]:
            del sys.modules[name]
