"""The reducer, on what ansible_runner really reported (record_events.py)."""

from __future__ import annotations

import json

import pytest
from run_support import EVENTS, TOTALS, recorded, state_of

from kosmos_installer.events import RunState, announce, progress, reduce, roles_of


def statuses(state: RunState) -> list[tuple[str, str]]:
    return [(task.name, task.status) for task in state.tasks]


def test_good_run() -> None:
    state = state_of("ok")
    assert statuses(state) == [
        ("Read the kernel release", "ok"),
        ("Write the three settings", "changed"),
        ("Look at what is not needed here", "skipped"),
        ("Take the fast way", "skipped"),
        ("Write the greeting", "changed"),
        ("Restart the service", "changed"),
        ("Do what this recording is about", "ok"),
        ("Say that it is well", "ok"),
    ]
    assert [task.handler for task in state.tasks] == [False] * 5 + [True] + [False] * 2
    assert state.finished
    assert state.changed == 3
    assert state.failures == ()
    assert dict(state.hosts)["box"][:2] == (("ok", 6), ("changed", 3))
    assert state.tasks[0].path == "/kosmos/roles/host_alpha/tasks/main.yml:2"
    assert 0 < state.seconds < 120


def test_roles_of_a_good_run() -> None:
    alpha, beta, gamma = roles_of(state_of("ok"))
    assert (alpha.name, alpha.layer, alpha.status, alpha.done, alpha.total, alpha.changed) == (
        "host_alpha", "host", "done", 3, 3, 2,
    )  # fmt: skip
    assert (beta.status, beta.done, beta.changed) == ("done", 2, 1)
    assert (gamma.layer, gamma.done, gamma.total) == ("net", 2, 1)  # an included file brings one more
    assert alpha.seconds > beta.seconds > 0


def test_slowest_tasks_come_first() -> None:
    slowest = state_of("ok").slowest(3)
    assert len(slowest) == 3
    assert slowest[0].name == "Write the three settings"
    assert [task.seconds for task in slowest] == sorted((task.seconds for task in slowest), reverse=True)


def test_plan_tells_files_and_differences() -> None:
    first, second = state_of("plan").changes
    assert (first.role, first.task) == ("host_alpha", "Write the three settings")
    assert first.paths == ("/made/one.conf", "/made/two.conf", "/made/three.conf")
    assert [(diff.path, diff.before, diff.after) for diff in first.diffs] == [
        (f"/made/{name}.conf", "", f"{name} = on\n") for name in ("one", "two", "three")
    ]
    assert second.paths == ("/made/greeting",)


@pytest.mark.parametrize(
    ("name", "title", "message", "where"),
    [
        ("failure", "net_gamma > Load the rules", "The command exited with a non-zero return code.", "failure.yml:2"),
        ("undefined", "net_gamma > Write the rules", "'net_gamma_zone' is undefined", "undefined.yml:2"),
    ],
)
def test_failure(name: str, title: str, message: str, where: str) -> None:
    state = state_of(name)
    (failure,) = state.real_failures
    assert (failure.title, failure.host, failure.status) == (title, "box", "failed")
    assert failure.message == message
    assert failure.where.endswith(where)
    assert roles_of(state)[-1].status == "failed"


def test_failure_keeps_what_the_host_said() -> None:
    (failure,) = state_of("failure").real_failures
    assert failure.evidence == ("rules.nft:7: syntax error, unexpected end of file",)
    assert failure.facts["exit status"] == "3"
    assert failure.facts["command"].startswith('echo "loading rules"')


def test_failure_in_a_loop_is_that_of_the_item() -> None:
    (failure,) = state_of("loop_failure").real_failures
    assert failure.item == "gateway"
    assert failure.facts == {"command": "test gateway = agents", "exit status": "1"}
    assert failure.message == "The command exited with a non-zero return code."


def test_rescued_failure_is_none() -> None:
    state = state_of("rescued")
    assert [failure.rescued for failure in state.failures] == [True]
    assert state.real_failures == ()
    assert ("Take the fast way", "rescued") in statuses(state)
    assert roles_of(state)[1].status == "done"


def test_only_the_failure_that_was_not_rescued_counts() -> None:
    state = state_of("rescued_then_failure")
    assert [(failure.task, failure.rescued) for failure in state.failures] == [
        ("Take the fast way", True),
        ("Load the rules", False),
    ]
    assert [failure.task for failure in state.real_failures] == ["Load the rules"]


def test_before_the_recap_every_failure_is_real() -> None:
    events = list(recorded("rescued"))
    until = next(index for index, event in enumerate(events) if event["event"] == "runner_on_failed") + 1
    assert len(state_of("rescued", until=until).real_failures) == 1


def test_unreachable_host() -> None:
    state = state_of("unreachable")
    (failure,) = state.real_failures
    assert (failure.status, failure.host) == ("unreachable", "far")
    assert "connect to host 127.0.0.1 port 1: Connection refused" in failure.message
    assert roles_of(state)[0].status == "unreachable"


def test_worst_result_of_several_hosts_names_the_task() -> None:
    state = state_of("two_hosts")
    assert statuses(state)[0] == ("Read the kernel release", "unreachable")
    assert [host for host, _ in state.hosts] == ["box", "far"]


def test_interrupted_run_has_no_end() -> None:
    state = state_of("interrupted")
    assert not state.finished
    assert state.current is not None
    assert (state.current.name, state.current.status) == ("Wait for the far end", "running")
    assert roles_of(state)[-1].status == "running"
    assert "[ERROR]: User interrupted execution" in state.output


def test_words_before_the_first_play_are_kept() -> None:
    state = state_of("syntax")
    assert state.tasks == ()
    assert state.output[0] == "[ERROR]: 'gather_fact' is not a valid attribute for a Play"


def test_warnings_are_kept_once() -> None:
    state = state_of("nobody")
    assert state.warnings == ("Could not match supplied host pattern, ignoring: nowhere",)
    event = next(event for event in recorded("nobody") if event["event"] == "warning")
    assert reduce(state, event).warnings == state.warnings


def test_checks_arrive_with_their_evidence() -> None:
    state = state_of("verify")
    assert [(check.id, check.status) for check in state.checks] == [
        ("host.alpha.hostname", "passed"),
        ("host.alpha.root_login", "failed"),
        ("host.alpha.banner", "waived"),
        ("host.alpha.usb", "skipped"),
    ]
    login = state.checks[1]
    assert (login.found, login.needed) == (["PermitRootLogin yes"], {"contains": "PermitRootLogin no"})
    assert (login.severity, login.role, login.host) == ("critical", "host_alpha", "box")
    assert login.refs == ("CIS 5.1.20", "ANSSI R30")
    assert login.cure == "Run kosmos-install apply --only host_alpha, then reload sshd."
    assert [failure.of_checks for failure in state.real_failures] == [True]


def test_checks_reported_again_replace_the_first_report() -> None:
    state = state_of("verify")
    event = next(event for event in recorded("verify") if event["event"] == "runner_on_ok")
    assert reduce(state, event).checks == state.checks


def test_percentage() -> None:
    events = list(recorded("ok"))
    shares = []
    state = announce(RunState(), TOTALS)
    for event in events:
        state = reduce(state, event)
        share = progress(state)
        assert share is not None
        shares.append(share)
    assert shares == sorted(shares)
    assert (shares[0], shares[-2], shares[-1]) == (0.0, 0.99, 1.0)


def test_percentage_is_unknown_without_totals() -> None:
    assert progress(state_of("ok", totals=(), until=10)) is None


def test_roles_without_totals_appear_as_they_come() -> None:
    assert [role.name for role in roles_of(state_of("ok", totals=(), until=10))] == ["host_alpha"]


@pytest.mark.parametrize("path", sorted(EVENTS.glob("*.jsonl")), ids=lambda path: path.stem)
def test_reducer_survives_damaged_events(path: object) -> None:
    """A handler that raises would end the run."""
    state = RunState()
    for line in (EVENTS / str(path)).read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        for damaged in (
            {key: value for key, value in event.items() if key != "event_data"},
            {**event, "event_data": None, "created": "yesterday", "stdout": None},
            {**event, "event_data": {**event.get("event_data", {}), "res": "text", "task_uuid": None, "role": None}},
            {**event, "event_data": {**event.get("event_data", {}), "res": {"results": "text", "diff": "text"}}},
            {"event": event["event"]},
            {},
        ):
            state = reduce(state, damaged)
    assert roles_of(state) is not None


def test_ignored_failure_is_none() -> None:
    event = next(event for event in recorded("failure") if event["event"] == "runner_on_failed")
    event["event_data"]["ignore_errors"] = True
    events = [event if other["event"] == "runner_on_failed" else other for other in recorded("failure")]
    state = RunState()
    for each in events:
        state = reduce(state, each)
    assert state.failures == ()
    assert statuses(state)[-1] == ("Load the rules", "ok")
