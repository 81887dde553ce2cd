"""The checks of all roles, read from roles/*/checks/*.yml without a host: what there is, how bad, and the cure.

Only what a list needs is judged here; probes, their arguments and operators are judged by the engine that evaluates
them (plugins/module_utils/checks).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from kosmos_installer import yaml_file
from kosmos_installer.errors import ExitCode, FileError, KosmosError, Problem
from kosmos_installer.yaml_file import Document

SEVERITIES = ("low", "medium", "high", "critical")
PHASES = ("preflight", "verify", "clean")

ID = re.compile(r"[a-z][a-z0-9]*(\.[a-z0-9][a-z0-9_-]*){2,}")
_REQUIRED = ("id", "title", "severity", "probe", "needed", "cure")
_CURE = "This is a fault in the product's own files, or in a role that you changed."


@dataclass(frozen=True)
class Check:
    """One check as its role declares it. probe, needed and when may hold Jinja, rendered only when a host is asked."""

    id: str
    title: str
    role: str
    phase: str
    severity: str
    probe: dict[str, Any]
    needed: Any
    cure: str
    refs: tuple[str, ...]
    when: str
    file: str
    line: int

    def data(self) -> dict[str, Any]:
        """For `--json`."""
        return {**vars(self), "refs": list(self.refs)}


def load(roles: Path) -> tuple[Check, ...]:
    """Every check below the folder `roles`, by role and id. Raises FileError (exit 2) for the first wrong file."""
    checks: list[Check] = []
    for path in sorted(roles.glob("*/checks/*.yml")):
        document = yaml_file.read(path)
        document.file = str(path.relative_to(roles.parent))
        checks += _checks(document, path.parts[-3])
        if document.problems:
            problems = [Problem(**{**vars(problem), "file": document.file}) for problem in document.problems]
            raise FileError(document.file, problems, _CURE)
    _refuse_twins(checks)
    return tuple(sorted(checks, key=lambda check: (check.role, check.id)))


def ids(checks: Iterable[Check]) -> frozenset[str]:
    """The ids alone."""
    return frozenset(check.id for check in checks)


def choose(checks: Iterable[Check], role: str = "", phase: str = "", severity: str = "") -> list[Check]:
    """The checks of this role, phase and at least this severity; an empty word chooses all.

    Raises KosmosError (exit 2) for a word that no check has.
    """
    checks = list(checks)
    _refuse_unknown("role", role, sorted({check.role for check in checks}))
    _refuse_unknown("phase", phase, PHASES)
    _refuse_unknown("severity", severity, SEVERITIES)
    least = SEVERITIES.index(severity) if severity else 0
    return [
        check
        for check in checks
        if role in ("", check.role) and phase in ("", check.phase) and SEVERITIES.index(check.severity) >= least
    ]


def get(checks: Iterable[Check], wanted: str) -> Check:
    """The check with the id `wanted`. Raises KosmosError (exit 2) with the nearest ids when there is none."""
    by_id = {check.id: check for check in checks}
    if wanted in by_id:
        return by_id[wanted]
    near = get_close_matches(wanted, by_id, n=3, cutoff=0.5)
    raise KosmosError(
        f"There is no check {wanted}",
        why=f"Did you mean {' or '.join(near)}?" if near else "",
        cure="See: kosmos-install checks list",
        exit_code=ExitCode.USAGE,
    )


def _refuse_unknown(what: str, word: str, known: Iterable[str]) -> None:
    if word and word not in known:
        near = get_close_matches(word, list(known), n=1)
        raise KosmosError(
            f"There is no {what} {word}" + (" with checks" if what == "role" else ""),
            why=f"Did you mean {near[0]}?" if near else "",
            cure=f"One of: {', '.join(known)}",
            exit_code=ExitCode.USAGE,
        )


def _refuse_twins(checks: list[Check]) -> None:
    first: dict[str, Check] = {}
    problems: list[Problem] = []
    for check in checks:
        other = first.setdefault(check.id, check)
        if other is not check:
            reason = f"The id stands in {other.file}:{other.line} too."
            problems.append(Problem(check.id, check.file, check.line, reason))
    if problems:
        raise FileError("roles/*/checks", problems, _CURE)


def _checks(document: Document, role: str) -> Iterator[Check]:
    if document.data is None:
        return
    if not isinstance(document.data, list):
        document.problem((), "The file must be a list of checks.", wanted="- id: host.time.synchronised")
        return
    for number, item in enumerate(document.data):
        before = len(document.problems)
        _judge(document, number, item)
        if len(document.problems) == before:
            yield Check(
                id=item["id"],
                title=item["title"],
                role=role,
                phase=item.get("phase", "verify"),
                severity=item["severity"],
                probe=item["probe"],
                needed=item["needed"],
                cure=item["cure"].strip(),
                refs=tuple(item.get("refs", [])),
                when=str(item.get("when", "")),
                file=document.file,
                line=document.line((number,)),
            )


def _judge(document: Document, number: int, item: Any) -> None:
    """Note what is wrong with one check."""
    if not isinstance(item, dict):
        document.problem((number,), "A check is a mapping.", yaml_file.shown(item), "id: host.time.synchronised")
        return
    for key in [key for key in _REQUIRED if key not in item]:
        document.problem((number, key), "This key is required.")
    for key in ("id", "title", "cure"):
        if key in item and not (isinstance(item[key], str) and item[key].strip()):
            document.problem((number, key), "It must be text.", yaml_file.shown(item[key]))
    if isinstance(item.get("id"), str) and not ID.fullmatch(item["id"]):
        document.problem((number, "id"), "The id does not have the form layer.area.what.", item["id"])
    for key, allowed in (("severity", SEVERITIES), ("phase", PHASES)):
        if key in item and item[key] not in allowed:
            document.problem((number, key), "Not allowed.", yaml_file.shown(item[key]), ", ".join(allowed))
    probe = item.get("probe", {"kind": ""})
    if not (isinstance(probe, dict) and isinstance(probe.get("kind"), str)):
        document.problem((number, "probe"), "A probe has a kind.", yaml_file.shown(probe), "{kind: sysctl, key: ...}")
    refs = item.get("refs", [])
    if not (isinstance(refs, list) and all(isinstance(ref, str) for ref in refs)):
        document.problem((number, "refs"), "It must be a list of text.", yaml_file.shown(refs), '["CIS 2.3.2.1"]')
