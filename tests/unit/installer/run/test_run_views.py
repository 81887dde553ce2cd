"""What a person sees: the living picture, the ends of runs, the report, the status."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType
from run_support import outcome_of, spec_of, state_of

from kosmos_installer import report, situation, view
from kosmos_installer.events import RunState, Task
from kosmos_installer.outcome import Outcome, counts_of, duration
from kosmos_installer.plan import Verb
from kosmos_installer.record import Record
from kosmos_installer.results import Check
from kosmos_installer.targets import Target
from kosmos_installer.view_end import shown
from kosmos_installer.view_live import picture

NOW = datetime(2026, 11, 22, 7, 15, 7, tzinfo=UTC)


def drawn(part: RenderableType, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as text:
        console.print(part)
    return text.get()


def scene(state: RunState, height: int = 40, width: int = 100, **options: Any) -> str:
    return drawn(picture(spec_of(**options), state, ("kosmos-lab",), frame=1, height=height, width=width), width)


def ended(outcome: Outcome, *, show_diff: bool = False, page: str = "") -> str:
    out = io.StringIO()
    shown_by = view.make_view(view.Mode.AUTO, out, out, show_diff=show_diff)
    shown_by.end(outcome, page)
    return out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1:00"), (127, "2:07"), (3727, "1:02:07")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_picture_in_the_middle_of_a_run() -> None:
    lines = scene(state_of("ok", until=13)).splitlines()
    assert lines[0].startswith("  KOSMOS  apply lab → kosmos-lab")
    assert lines[2].rstrip().endswith("33%")
    running = next(line for line in lines if "host_alpha" in line)
    assert running.split() == [
        "host", "⠙", "host_alpha", "3", "of", "3", "1", "changed",
        "Look", "at", "what", "is", "not", "needed", "here", *running.split()[-2:],
    ]  # fmt: skip
    assert next(line for line in lines if "net_gamma" in line).split() == ["net", "·", "net_gamma", "1"]


def test_the_picture_before_anything_is_known() -> None:
    text = scene(RunState())
    assert "⠙ Starting Ansible" in text
    assert "%" not in text


def test_the_picture_of_a_task_outside_of_roles() -> None:
    task = Task("u", "", "Gathering Facts", "", handler=False, started=1.0)
    assert "⠙ Gathering Facts" in scene(replace(state_of("ok", until=0), tasks=(task,), started=1.0))


def test_the_picture_of_a_failure_and_of_a_check_run() -> None:
    text = scene(state_of("failure"), check=True)
    assert "nothing is changed" in text
    assert next(line for line in text.splitlines() if "net_gamma" in line).split()[:3] == ["net", "✘", "net_gamma"]


@pytest.mark.parametrize("until", [0, 14, None])
def test_the_picture_fits_a_low_terminal(until: int | None) -> None:
    totals = tuple((f"{layer}_{part}", 3) for layer in ("host", "sec", "ops") for part in "abcdefgh")
    state = state_of("ok", totals=totals, until=until)
    high, low = scene(state, height=60).splitlines(), scene(state, height=20).splitlines()
    assert len(low) <= 20 < len(high)
    assert any("8 roles" in line for line in low)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", ["ok", "failure", "interrupted"])
def test_the_picture_never_breaks_a_line(name: str, width: int) -> None:
    lines = scene(state_of(name), width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) == 4 + 3


def test_end_of_a_good_run() -> None:
    text = ended(outcome_of("ok"))
    assert "✔ lab is applied: 3 tasks changed something in 3:12\n" in text
    assert "slowest tasks" in text
    assert text.endswith("  next    kosmos-install verify -i lab\n")


def test_end_of_a_failure_says_everything() -> None:
    text = ended(outcome_of("failure", only=("net",)))
    for line in (
        "failed       net_gamma > Load the rules",
        "host         box",
        "where        roles/net_gamma/tasks/failure.yml:2",
        "message      The command exited with a non-zero return code.",
        "exit status  3",
        "evidence     rules.nft:7: syntax error, unexpected end of file",
        "cure         Correct what its message and evidence name.",
        "✘ apply lab: net_gamma > Load the rules failed. (in 3:12)",
        "log     /state/runs/20261122T071507Z-apply-lab/log.txt",
        "resume  kosmos-install apply -i lab --only net",
    ):
        assert line in text, line


def test_commands_and_paths_are_never_broken() -> None:
    long = "/state/" + "x" * 150
    text = ended(replace(outcome_of("failure"), record=long))
    assert f"  log     {long}/log.txt\n" in text


def test_end_before_the_first_task_shows_what_ansible_said() -> None:
    text = ended(outcome_of("syntax"))
    assert "said    [ERROR]: 'gather_fact' is not a valid attribute for a Play" in text
    assert "4   gather_fact: false" in text


def test_warnings_are_shown() -> None:
    assert "! Could not match supplied host pattern, ignoring: nowhere" in ended(outcome_of("nobody"))


def test_end_of_an_interruption_has_no_failure_panel() -> None:
    text = ended(outcome_of("interrupted"))
    assert "■ apply lab: Stopped by request during net_gamma > Wait for the far end. (in 3:12)" in text
    assert "cause" not in text
    assert "resume  kosmos-install apply -i lab" in text


def test_plan_shows_files_and_on_request_lines() -> None:
    outcome = outcome_of("plan", Verb.PLAN)
    text = ended(outcome)
    assert "host_alpha  1 change\n" in text
    assert "~ Write the three settings\n        /made/one.conf  +1 -0\n" in text
    assert "+one = on" not in text
    assert "✔ lab: 2 tasks would change something in" in text
    assert text.endswith("next    kosmos-install apply -i lab\n")
    assert "+one = on" in ended(outcome, show_diff=True)


def test_plan_without_changes_proposes_nothing() -> None:
    outcome = outcome_of("plan", Verb.PLAN)
    calm = tuple(replace(task, status="ok") for task in outcome.state.tasks)
    text = ended(replace(outcome, state=replace(outcome.state, tasks=calm, changes=())))
    assert "✔ lab: nothing to change in" in text
    assert "next" not in text


def test_end_of_a_failed_verify() -> None:
    text = ended(outcome_of("verify", Verb.VERIFY), page="/state/report.html")
    for line in (
        "✘ failed  host.alpha.root_login  Root cannot log in over SSH  critical",
        'found   ["PermitRootLogin yes"]',
        'needed  {"contains": "PermitRootLogin no"}',
        "cure    Run kosmos-install apply --only host_alpha, then reload sshd.",
        "✘ verify lab: The host is not as it should be: 1 check failed.",
        "  report  /state/report.html",
        "  again   kosmos-install verify -i lab",
    ):
        assert line in text, line
    row = next(line for line in text.splitlines() if line.startswith("  host_alpha"))
    assert row.split() == ["host_alpha", "1", "1", "1", "1"]


@pytest.mark.parametrize(
    ("verb", "words", "following"),
    [
        (Verb.VERIFY, "✔ lab is as it should be, 1 of 2 checks passed in", ""),
        (Verb.PREFLIGHT, "✔ lab is fit for the appliance, 1 of 2 checks passed in", "kosmos-install plan -i lab"),
        (Verb.RESET, "✔ lab is reset: nothing had to be changed, 1 of 2", "kosmos-install verify -i lab --clean"),
    ],
)
def test_good_ends_of_other_verbs(verb: Verb, words: str, following: str) -> None:
    bad = outcome_of("verify", verb)
    checks = tuple(check for check in bad.state.checks if check.status != "failed")
    good = replace(bad, diagnosis=None, state=replace(bad.state, checks=checks, failures=()))
    text = ended(good)
    assert words in text
    assert text.endswith(f"next    {following}\n" if following else "log.txt\n")


def test_a_terminal_gets_a_frame() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    view.print_ending(console, outcome_of("failure"), "", show_diff=False)
    assert isinstance(console.file, io.StringIO)
    assert "╭─" in console.file.getvalue()


def test_plain_view_says_each_task_once() -> None:
    out = io.StringIO()
    plain = view.make_view(view.Mode.AUTO, out, out)
    plain.begin(spec_of(check=True), ("kosmos-lab",))
    for until in (0, 5, 10, 20, None):
        plain.update(state_of("ok", until=until))
    plain.end(outcome_of("ok"))
    plain.leave()
    lines = out.getvalue().splitlines()
    assert lines[0] == "KOSMOS apply lab -> kosmos-lab, nothing is changed"
    assert sum("host_alpha > Write the three settings (" in line for line in lines) == 1
    assert sum("Say that it is well (" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ("", "(empty)"),
        ("a\n  b", "a b"),
        ([1, "x"], '[1, "x"]'),
        (True, "true"),
        ("x" * 400, "x" * 299 + "…"),
    ],
)
def test_shown_values(value: Any, text: str) -> None:
    assert shown(value) == text


def test_report_escapes_and_loads_nothing() -> None:
    outcome = outcome_of("verify", Verb.VERIFY)
    evil = replace(
        outcome.state.checks[0],
        found={"a": ["<script>alert(1)</script>"], "b": []},
        needed=None,
        evidence="<img>",
        passed=False,
    )
    page = report.as_html(replace(outcome, state=replace(outcome.state, checks=(evil, *outcome.state.checks[1:]))), NOW)
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "default-src 'none'" in page
    assert "http://" not in page.replace("http-equiv", "")
    assert "https://" not in page
    assert "2 failed" not in page
    assert page.count("<details open>") == 2
    assert "(nothing)" in page


def test_report_sorts_the_bad_ones_first() -> None:
    (section,) = report.sections(outcome_of("verify", Verb.VERIFY).state.checks)
    assert [check.status for check in section.checks] == ["failed", "waived", "passed", "skipped"]
    assert section.counts == {"total": 4, "passed": 1, "failed": 1, "waived": 1, "skipped": 1}


def test_report_data_and_files(tmp_path: Path) -> None:
    outcome = outcome_of("verify", Verb.VERIFY)
    with Record.create(tmp_path, "verify", "lab", NOW, {}) as record:
        page = report.write(record, outcome, NOW)
    data = json.loads((record.folder / "report.json").read_text())
    assert (data["report"], data["passed"], data["made"]) == ("kosmos/checks/v1", False, "2026-11-22T07:15:07+00:00")
    assert data["roles"]["host_alpha"]["failed"] == 1
    assert "Root cannot log in over SSH" in Path(page).read_text()


def test_waived_and_skipped_are_no_failures() -> None:
    base = Check("a.b.c", "box", "r", "t", "verify", "low", passed=False, waived=True, skipped=False)
    assert [base.status, replace(base, skipped=True).status, replace(base, passed=True).status] == [
        "waived", "skipped", "passed",
    ]  # fmt: skip
    assert counts_of([base])["failed"] == 0


# --- status -----------------------------------------------------------------------------------------------------------


def run(runs: Path, verb: str, minute: int, summary: dict[str, Any] | None, name: str = "lab") -> None:
    with Record.create(runs, verb, name, NOW.replace(minute=minute), {}) as record:
        if summary is not None:
            record.write("summary.json", summary)


def test_status_of_an_appliance_that_never_ran(tmp_path: Path) -> None:
    found = situation.look("lab", [Target("box", "10.0.0.1")], tmp_path, lambda _: "")
    assert not found.reachable
    text = found.text(NOW)
    assert "box  10.0.0.1:22  does not answer" in text
    assert "none; begin with: kosmos-install preflight" in text
    assert "never; run: kosmos-install verify" in text
    assert found.data()["last_verify"] is None


def test_status_tells_the_last_runs_and_the_last_verify(tmp_path: Path) -> None:
    checks = {"counts": {"total": 4, "passed": 2, "skipped": 1}, "results": [{"id": "a.b.c", "status": "failed"}]}
    diagnosis = {"cause": "The host is not as it should be: 1 check failed."}
    bad = {"exit_code": 5, "exit_name": "verify_failed", "seconds": 61, "checks": checks, "diagnosis": diagnosis}
    run(tmp_path, "verify", 1, bad)
    run(tmp_path, "apply", 5, {"exit_code": 0, "seconds": 192, "changed": 7})
    run(tmp_path, "plan", 6, {"exit_code": 0, "seconds": 5, "changed": 2, "check": True})
    run(tmp_path, "verify", 7, None)
    run(tmp_path, "apply", 8, {"exit_code": 0}, name="other")
    found = situation.look("lab", [Target("box", "local")], tmp_path)
    assert found.reachable
    text = found.text(NOW)
    for words in (
        "box  local  answers: this machine",
        "8 minutes ago   verify  was cut off, or still runs",
        "plan    ok in 5.0 s, would change 2",
        "apply   ok in 3:12, changed 7",
        "14 minutes ago  verify  verify_failed after 1:01: The host is not as it should be: 1 check failed.",
        "14 minutes ago: 2 of 3 checks passed; failed: a.b.c",
    ):
        assert words in text, words
    assert "other" not in text
    assert found.data()["last_verify"]["failed"] == ["a.b.c"]
    assert [row["verb"] for row in found.data()["runs"]] == ["verify", "plan", "apply", "verify"]


@pytest.mark.parametrize(
    ("hours", "words"), [(0, "just now"), (1, "1 hour ago"), (5, "5 hours ago"), (24, "1 day ago"), (72, "3 days ago")]
)
def test_status_counts_time_as_people_do(tmp_path: Path, hours: int, words: str) -> None:
    run(tmp_path, "apply", 15, {"exit_code": 0})
    later = datetime.fromtimestamp(NOW.timestamp() + 3600 * hours, UTC)
    assert words in situation.look("lab", [], tmp_path).text(later)
