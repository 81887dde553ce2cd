"""The controller's half of host_check: load, render, select, hand one batch to the host, judge."""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.kosmos.appliance.plugins.module_utils.checks import definition, waivers
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.engine import explain, failures, summarise

ID_LINE = re.compile(r"^-\s+id:\s*[\"']?([^\s\"'#]+)", re.MULTILINE)
FACT = "kosmos_check_results"


class ActionModule(ActionBase):
    """Action plugin of kosmos.appliance.host_check."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return results and summary; failed is set when `enforce` and a check failed."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _, args = self.validate_argument_spec(
            argument_spec={
                "path": {"type": "path"},
                "conclude": {"type": "dict"},
                "phase": {"type": "str", "choices": list(definition.PHASES), "default": "verify"},
                "waivers": {"type": "list", "elements": "dict", "default": []},
                "enforce": {"type": "bool", "default": True},
                "root": {"type": "path", "default": "/"},
            },
            required_one_of=[["path", "conclude"]],
            mutually_exclusive=[["path", "conclude"]],
        )
        if args["conclude"] is not None:
            return result | _conclude(args["conclude"])
        folder = Path(args["path"])
        role = folder.resolve().parent.name
        checks = self._load(folder)
        batch = self._render(checks, role, args["phase"])
        self._attach(batch, args["waivers"], folder)
        answer = self._execute_module(
            module_name="kosmos.appliance.host_check",
            module_args={"batch": batch, "root": args["root"], "reference_time": time.time()},
            task_vars=task_vars,
        )
        if answer.get("failed") or answer.get("unreachable"):
            return result | answer
        return result | self._judge(answer["results"], role, args["enforce"], task_vars)

    def _load(self, folder: Path) -> list[tuple[str, Mapping[str, Any]]]:
        """Return (file, check) of every file, or fail with every fault at once."""
        files = sorted(folder.glob("*.yml"))
        if not files:
            raise AnsibleActionFail(f"{folder}: no check file (*.yml). Cure: add one, or remove the host_check task.")
        loaded: list[tuple[str, Mapping[str, Any]]] = []
        faults: list[definition.Fault] = []
        for file in files:
            content = self._loader.load_from_file(str(file), trusted_as_template=True)
            if not isinstance(content, list):
                faults.append(
                    definition.Fault(str(file), "?", "the file is not a list", "begin each check with `- id:`")
                )
                continue
            for check in content:
                faults += definition.faults_of_shape(str(file), check)
                loaded.append((str(file), check))
        _refuse(faults)
        faults = definition.faults_of_order(loaded)
        _refuse(faults)
        return loaded

    def _render(self, checks: list[tuple[str, Mapping[str, Any]]], role: str, phase: str) -> list[dict[str, Any]]:
        batch, faults = [], []
        for file, check in checks:
            if check.get("phase", "verify") != phase:
                continue
            try:
                rendered = self._render_one(check)
            except Exception as error:  # any fault of a template belongs to the check, with its file and id
                cause = str(error).strip().splitlines()[0]
                faults.append(
                    definition.Fault(file, str(check["id"]), f"cannot be rendered: {cause}", "set the variable")
                )
                continue
            if not rendered.get("skipped"):
                faults += definition.faults_of_values(file, rendered)
            batch.append(rendered | {"role": role})
        _refuse(faults)
        return batch

    def _render_one(self, check: Mapping[str, Any]) -> dict[str, Any]:
        condition = self._templar.template(check.get("when", True))
        if not isinstance(condition, bool):
            raise TypeError(f"`when` is {condition!r}, not true or false")
        if condition:
            rendered: dict[str, Any] = self._templar.template({k: v for k, v in check.items() if k != "when"})
            return rendered
        reason = self._templar.template(check.get("skip_reason", f"not applicable: {check['when']}"))
        plain = {key: check[key] for key in ("id", "severity", "refs")} | {"phase": check.get("phase", "verify")}
        return plain | {"title": str(check["title"]), "skipped": True, "reason": reason}

    def _attach(self, batch: list[dict[str, Any]], entries: list[Any], folder: Path) -> None:
        """Put each waiver on its check. Waivers of other roles' checks are known, and wait for their role."""
        if not entries:
            return
        texts = (path.read_text(encoding="utf-8") for path in folder.resolve().parents[1].glob("*/checks/*.yml"))
        known = {name for text in texts for name in ID_LINE.findall(text)} | {check["id"] for check in batch}
        try:
            accepted = waivers.parse(entries, known)
        except waivers.WaiverError as error:
            raise AnsibleActionFail(str(error)) from error
        today = dt.datetime.now(dt.UTC).date()
        for check in batch:
            if check["id"] in accepted:
                check["waiver"] = accepted[check["id"]].as_data(today)

    def _judge(self, results: list[Any], role: str, enforce: bool, task_vars: Mapping[str, Any]) -> dict[str, Any]:
        summary = summarise(results)
        before = (task_vars.get("ansible_facts") or {}).get(FACT) or {}
        mine = {"results": results, "summary": summary}
        outcome = {"changed": False, "results": results, "summary": summary}
        if enforce and failures(results):
            # A person reads this result: what passed would only bury what did not.
            return outcome | {"failed": True, "results": failures(results), "msg": explain(results)}
        return outcome | {"ansible_facts": {FACT: dict(before) | {role: mine}}}


def _conclude(by_role: Mapping[str, Any]) -> dict[str, Any]:
    """Judge what all roles found. Nothing found at all is a failure: it would be a proof of nothing."""
    results = [entry for role in by_role.values() for entry in role["results"]]
    outcome: dict[str, Any] = {"changed": False, "summary": summarise(results)}
    if not results:
        return outcome | {"failed": True, "msg": "no check was evaluated: nothing is proved"}
    if failures(results):
        return outcome | {"failed": True, "msg": explain(results)}
    return outcome


def _refuse(faults: list[definition.Fault]) -> None:
    if faults:
        raise AnsibleActionFail("\n".join(["the check files have faults:", *map(str, faults)]))
