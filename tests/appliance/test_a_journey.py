"""One person's way: plan on the stock machine, apply, reboot, verify, apply again. Named to run first."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from .conftest import ROOT, Suite

sys.path.insert(0, str(ROOT / "tools"))

import bench

pytestmark = pytest.mark.vm


def test_plan_on_the_stock_machine_names_changes_and_makes_none(journey: Suite) -> None:
    plan = journey.outcomes["plan"]
    assert plan.code == 0, plan.told
    assert plan.data["changed"] > 10
    assert journey.outcomes["plan touched"].code == 0, "check mode changed a file"


def test_apply_succeeds_and_tells_what_it_changed(journey: Suite) -> None:
    data = journey.outcomes["apply"].data
    roles = {role["name"]: role["changed"] for role in data["roles"]}
    for role in ("host_base", "host_hardening", "host_confinement", "net_zones", "cluster_gvisor"):
        assert roles[role] > 0, roles
    assert roles["host_preflight"] == 0


def test_every_check_holds_after_a_reboot(journey: Suite) -> None:
    verify = journey.outcomes["verify"]
    failed = [check for check in verify.data["checks"]["results"] if check["status"] == "failed"]
    assert verify.code == 0, failed or verify.told
    assert verify.data["checks"]["counts"]["passed"] >= 90
    assert verify.data["checks"]["counts"]["failed"] == 0


def test_second_apply_changes_nothing(journey: Suite) -> None:
    again = journey.outcomes["again"]
    assert again.code == 0, again.told
    assert again.data["changed"] == 0, again.data["changes"]


def test_second_apply_is_cheap(journey: Suite) -> None:
    runs = bench.module_runs(Path(journey.outcomes["again"].data["record"]) / "events.jsonl")
    assert 0 < sum(runs.values()) <= bench.MODULE_RUNS_ALLOWED, runs


def test_plain_ansible_agrees_in_check_mode(journey: Suite) -> None:
    check = journey.outcomes["check"]
    assert check.code == 0, check.told
    assert re.search(r"changed=0 .*failed=0 ", check.out), check.told
