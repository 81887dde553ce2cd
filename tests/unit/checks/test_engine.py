"""The engine: one result per check, never a traceback, waivers, prerequisites, and text for a person."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.kosmos.appliance.plugins.module_utils.checks import engine
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import Host, ProbeError, run_command

WAIVER = {"reason": "ordered", "expires": "2027-01-31", "expired": False}


def check(name: str = "host.a.b", **changes: Any) -> dict[str, Any]:
    base = {"id": name, "title": "t", "severity": "low", "cure": "do this", "refs": ["X 1"], "role": "r"}
    return base | {"probe": {"kind": "file", "path": "/there"}, "needed": True} | changes


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "there").write_text("x")
    return Host(root=tmp_path, now=time.time)


def test_a_result_has_the_whole_shape(host: Host) -> None:
    (result,) = engine.evaluate([check()], host)
    assert result == {
        "id": "host.a.b", "title": "t", "severity": "low", "role": "r", "phase": "verify", "found": True,
        "needed": True, "pass": True, "waived": False, "skipped": False, "reason": "",
        "evidence": "/there (exists)", "cure": "do this",
        "refs": ["X 1"],
    }  # fmt: skip
    assert json.dumps(result)


def test_a_probe_that_raises_is_a_failed_check(host: Host) -> None:
    (host.root / "dir").mkdir()
    results = engine.evaluate(
        [
            check("host.a.dir", probe={"kind": "file", "path": "/dir", "attribute": "content"}, needed="x"),
            check("host.a.bug", probe={"kind": "no such kind"}),
            check("host.a.num", probe={"kind": "file", "path": "/there", "attribute": "content"}, needed={"min": 1}),
        ],
        host,
    )
    assert [result["pass"] for result in results] == [False, False, False]
    assert "IsADirectoryError" in results[0]["evidence"]
    assert "KeyError" in results[1]["evidence"]
    assert "cannot be compared: 'x' is not a number" in results[2]["evidence"]
    assert not any("\n" in result["evidence"] for result in results)


def test_waivers(host: Host) -> None:
    wrong = check(needed=False)
    waived, expired, needless = (
        engine.evaluate([{**one, "waiver": waiver}], host)[0]
        for one, waiver in ((wrong, WAIVER), (wrong, WAIVER | {"expired": True}), (check(), WAIVER))
    )
    assert waived["waived"]
    assert not waived["pass"]
    assert engine.failures([waived]) == []
    assert not expired["waived"]
    assert engine.failures([expired]) == [expired]
    assert expired["reason"] == "its waiver expired on 2027-01-31: ordered"
    assert needless["pass"]
    assert not needless["waived"]
    assert "the waiver can go" in needless["reason"]
    assert engine.summarise([waived, expired, needless]) == {
        "total": 3, "passed": 1, "failed": 1, "waived": 1, "skipped": 0,
    }  # fmt: skip


def test_a_prerequisite_that_fails_silences_what_depends_on_it(host: Host) -> None:
    first, second = check("host.a.a", needed=False), check("host.a.b", requires="host.a.a")
    results = engine.evaluate([first, second], host)
    assert [engine.summarise([result])["failed"] for result in results] == [1, 0]
    assert results[1]["skipped"]
    assert results[1]["reason"] == "host.a.a does not hold"
    assert engine.evaluate([check("host.a.a"), second], host)[1]["pass"]


def test_skipped_checks_are_listed_and_not_evaluated(host: Host) -> None:
    (result,) = engine.evaluate(
        [{"id": "a.b.c", "title": "t", "severity": "low", "skipped": True, "reason": "no"}], host
    )
    assert (result["skipped"], result["reason"], result["pass"]) == (True, "no", False)
    assert engine.failures([result]) == []


def test_large_findings_are_cut_after_the_comparison(host: Host) -> None:
    (host.root / "there").write_text("x" * 5000 + "end")
    (host.root / "many").mkdir()
    for number in range(30):
        (host.root / "many" / f"f{number:02}").touch()
    text, names = engine.evaluate(
        [
            check(probe={"kind": "file", "path": "/there", "attribute": "content"}, needed={"matches": "end$"}),
            check("host.a.c", probe={"kind": "find", "paths": ["/many"]}, needed=[]),
        ],
        host,
    )
    assert text["pass"]
    assert text["found"].endswith("... (5003 characters)")
    assert names["found"][-1] == "... and 10 more"


def test_the_explanation_lists_every_failure_with_its_cure(host: Host) -> None:
    results = engine.evaluate(
        [
            check(needed=False),
            check("host.a.gone", probe={"kind": "file", "path": "/no", "attribute": "mode"}, needed="0600"),
        ],
        host,
    )
    assert engine.explain(results).splitlines() == [
        "2 of 2 checks failed:",
        "  host.a.b [low] t",
        "    found: true   needed: false",
        "    evidence: /there (exists)",
        "    cure: do this",
        "  host.a.gone [low] t",
        "    found: absent   needed: 0600",
        "    evidence: /no: absent",
        "    cure: do this",
    ]


def test_commands_have_a_timeout_and_no_input() -> None:
    with pytest.raises(ProbeError, match=r"did not finish within 0\.2 s"):
        run_command(["sleep", "5"], 0.2)
    assert run_command(["cat"], 5).stdout == ""
    assert run_command(["no-such-program"], 5).rc is None


def test_equal_commands_of_a_batch_run_once(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    argv = ["sh", "-c", f"echo x >> {counter}; echo done"]
    probe = {"kind": "command", "argv": argv}
    batch = [check(f"host.a.{name}", probe=probe, needed="done") for name in "abc"]
    results = engine.evaluate(batch, Host(root=tmp_path, now=time.time))
    assert all(result["pass"] for result in results)
    assert counter.read_text() == "x\n"
