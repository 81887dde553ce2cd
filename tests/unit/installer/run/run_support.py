"""Recorded runs as states and outcomes, for the tests beside this file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kosmos_installer.diagnosis import diagnose
from kosmos_installer.events import RunState, announce, reduce
from kosmos_installer.outcome import Outcome
from kosmos_installer.plan import Options, RunSpec, Verb
from kosmos_installer.redact import Redactor

EVENTS = Path(__file__).parent / "events"
TOTALS = (("host_alpha", 3), ("host_beta", 2), ("net_gamma", 1))
RC = {"unreachable": 4, "two_hosts": 4, "interrupted": 99, "syntax": 4, "ok": 0, "plan": 0, "rescued": 0, "nobody": 0}


def recorded(name: str) -> Iterator[dict[str, Any]]:
    """The events of a recorded run, redacted as in a real one."""
    redactor = Redactor()
    for line in (EVENTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        yield redactor.event(json.loads(line))


def state_of(name: str, *, totals: tuple[tuple[str, int], ...] = TOTALS, until: int | None = None) -> RunState:
    """The state after the first `until` events of a recorded run, or after all."""
    state = announce(RunState(), totals)
    for event in list(recorded(name))[:until]:
        state = reduce(state, event)
    return state


def spec_of(verb: Verb = Verb.APPLY, **options: Any) -> RunSpec:
    """A RunSpec for the appliance `lab`."""
    return RunSpec(
        verb=verb,
        name="lab",
        playbook=Path("/kosmos/playbooks/site.yml"),
        inventory=Path("/home/op/inventories/lab"),
        inventory_text="lab",
        options=Options(**options),
    )


def outcome_of(name: str, verb: Verb = Verb.APPLY, **options: Any) -> Outcome:
    """How a recorded run ended."""
    spec, state = spec_of(verb, **options), state_of(name)
    return Outcome(
        spec=spec,
        state=state,
        diagnosis=diagnose(spec, state, RC.get(name, 2), interrupted=name == "interrupted"),
        record="/state/runs/20261122T071507Z-apply-lab",
        hosts=("kosmos-lab",),
        seconds=192.4,
    )
