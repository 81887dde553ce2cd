"""A lab leaves its audit rules open, and locked ones open only by a reboot: a stand-in answers for the kernel."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from ansible_collections.kosmos.appliance.plugins.module_utils.checks import model
from ansible_collections.kosmos.appliance.plugins.module_utils.host import system
from check_bed import checks_of, evaluate, kosmos_variables


@pytest.mark.parametrize(("enabled", "holds"), [("2", True), ("1", False), ("0", False)])
def test_the_lock_of_the_audit_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: str, holds: bool
) -> None:
    program = tmp_path / "auditctl"
    program.write_text(f"#!/bin/sh\necho 'enabled {enabled}'\necho 'pid 4711'\n")
    program.chmod(0o755)
    monkeypatch.setattr(system, "PROGRAM_PATH", f"{tmp_path}:{system.PROGRAM_PATH}")
    checks = checks_of("host_base", kosmos_variables(), host_base_audit_immutable=True)
    result = evaluate(checks, model.Host(root=Path("/"), now=time.time), "host.audit.immutable")
    assert result["pass"] is holds, result
    assert "auditctl -s" in result["evidence"]
