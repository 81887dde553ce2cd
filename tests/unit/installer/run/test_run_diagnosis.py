"""Evidence becomes cause, cure and exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from run_support import outcome_of, recorded, spec_of, state_of

from kosmos_installer.diagnosis import diagnose, rules
from kosmos_installer.errors import ExitCode
from kosmos_installer.events import RunState
from kosmos_installer.plan import Verb
from kosmos_installer.results import Failure

EVIDENCE = yaml.safe_load((Path(__file__).parent / "evidence.yml").read_text(encoding="utf-8"))


def failed(text: str, status: str = "failed") -> RunState:
    message, _, rest = text.partition("\n")
    failure = Failure(
        "box", "host_base", "Do it", "u", "f:1", "m", message, status=status, evidence=tuple(rest.split("\n"))
    )
    return RunState(failures=(failure,), finished=True)


@pytest.mark.parametrize("row", EVIDENCE, ids=[f"{number}-{row['kind']}" for number, row in enumerate(EVIDENCE)])
def test_words_of_programs(row: dict[str, Any]) -> None:
    before_any_task = RunState(output=tuple(row["text"].split("\n")))
    state = failed(row["text"], row["status"]) if row["status"] else before_any_task
    found = diagnose(spec_of(), state, 2)
    assert found is not None
    assert (found.kind, int(found.exit_code)) == (row["kind"], row["exit"])
    assert row.get("cause", "") in found.cause
    assert row.get("cure", "") in found.cure
    for text in (found.cause, found.cure):
        assert text == text.strip()
        assert not any(hole in text for hole in ("{", "()", "  ", " .")), text


def test_every_rule_has_words_that_prove_it() -> None:
    assert {rule.kind for rule in rules()} <= {row["kind"] for row in EVIDENCE}


def test_kinds_are_unique() -> None:
    kinds = [rule.kind for rule in rules()]
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize(
    ("name", "verb", "kind", "code"),
    [
        ("failure", Verb.APPLY, "task_failed", ExitCode.FAILED),
        ("loop_failure", Verb.APPLY, "task_failed", ExitCode.FAILED),
        ("undefined", Verb.APPLY, "undefined_variable", ExitCode.FAILED),
        ("rescued_then_failure", Verb.APPLY, "task_failed", ExitCode.FAILED),
        ("unreachable", Verb.APPLY, "connection_refused", ExitCode.UNREACHABLE),
        ("two_hosts", Verb.APPLY, "connection_refused", ExitCode.UNREACHABLE),
        ("syntax", Verb.APPLY, "syntax", ExitCode.UNREACHABLE),
        ("nobody", Verb.APPLY, "limit_matches_nothing", ExitCode.USAGE),
        ("interrupted", Verb.APPLY, "interrupted", ExitCode.INTERRUPTED),
        ("verify", Verb.VERIFY, "verify_failed", ExitCode.VERIFY_FAILED),
        ("preflight", Verb.PREFLIGHT, "preflight_refused", ExitCode.PREFLIGHT_REFUSED),
        ("preflight", Verb.APPLY, "preflight_refused", ExitCode.PREFLIGHT_REFUSED),
    ],
)
def test_recorded_runs(name: str, verb: Verb, kind: str, code: ExitCode) -> None:
    outcome = outcome_of(name, verb)
    assert outcome.diagnosis is not None
    assert (outcome.diagnosis.kind, outcome.exit_code) == (kind, code)


@pytest.mark.parametrize("name", ["ok", "plan", "rescued"])
def test_good_runs_have_no_diagnosis(name: str) -> None:
    assert outcome_of(name).diagnosis is None
    assert outcome_of(name).exit_code is ExitCode.OK


def test_one_failed_check_brings_its_own_cure() -> None:
    found = outcome_of("verify", Verb.VERIFY).diagnosis
    assert found is not None
    assert found.cure == "Run kosmos-install apply --only host_alpha, then reload sshd."
    assert found.cause == "The host is not as it should be: 1 check failed."


def test_failed_checks_count_even_if_ansible_ends_well() -> None:
    state = RunState()
    for event in recorded("verify"):
        if event["event"] != "runner_on_failed":
            state = state_of("verify", until=5)
    assert state.real_failures == ()
    found = diagnose(spec_of(Verb.VERIFY), state, 0)
    assert found is not None
    assert found.kind == "verify_failed"
    assert diagnose(spec_of(Verb.APPLY), state, 0) is None


def test_a_check_task_that_breaks_is_no_finding() -> None:
    """A module that crashes must not be told as a check that failed, even when other checks did fail."""
    state = state_of("verify")
    broken = Failure("box", "host_base", "Check", "u2", "f:1", "kosmos.appliance.host_check", "MODULE FAILURE")
    found = diagnose(spec_of(Verb.VERIFY), RunState(failures=(broken,), checks=state.checks), 2)
    assert found is not None
    assert found.kind == "module_crash"


def test_where_an_interruption_fell() -> None:
    found = outcome_of("interrupted").diagnosis
    assert found is not None
    assert found.cause == "Stopped by request during net_gamma > Wait for the far end."
    early = diagnose(spec_of(), RunState(), 254, interrupted=True)
    assert early is not None
    assert early.cause == "Stopped by request."


@pytest.mark.parametrize(("rc", "kind"), [(0, "nothing_to_do"), (250, "ansible_error")])
def test_a_run_without_any_word(rc: int, kind: str) -> None:
    found = diagnose(spec_of(), RunState(), rc)
    assert found is not None
    assert found.kind == kind
