"""Load the appliance file: every problem at once, each with path, line, value, reason and what is wanted instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from kosmos_installer import catalogue, explain, rules, yaml_file
from kosmos_installer.errors import FileError
from kosmos_installer.model import API_VERSION, Appliance, ApplianceFile, example
from kosmos_installer.paths import ansible_tree
from kosmos_installer.yaml_file import Document, KeyPath

_CURE = "Change the file, then: kosmos-install validate"


@dataclass(frozen=True)
class Expired:
    """A key that is no longer read. It is refused, not ignored: its owner relied on it."""

    release: str
    instead: str


#: Keys that were, and what to write now. Those of 0.1.0 are the names in the two papers that the project comes from.
EXPIRED: dict[KeyPath, Expired] = {
    ("network_zones",): Expired("0.1.0", "kosmos.network.zones"),
    ("kosmos", "network_zones"): Expired("0.1.0", "kosmos.network.zones"),
}


@dataclass(frozen=True)
class Surroundings:
    """What rules need beside the file. today: the date in UTC.  check_ids: asked only if the file has waivers."""

    today: date
    check_ids: Callable[[], frozenset[str]]

    @classmethod
    def real(cls) -> Surroundings:
        """The clock and the checks of this installation."""
        return cls(datetime.now(UTC).date(), lambda: catalogue.ids(catalogue.load(ansible_tree().roles)))


def load(path: Path, surroundings: Surroundings | None = None) -> Appliance:
    """The appliance that the file at `path` describes. Raises FileError (exit 2) naming every problem."""
    return _checked(yaml_file.read(path), surroundings)


def parse(content: str, file: str, surroundings: Surroundings | None = None) -> Appliance:
    """The same for text that is not in a file yet; `file` is the name for messages."""
    return _checked(yaml_file.parse(content.encode(), file), surroundings)


def _checked(document: Document, surroundings: Surroundings | None) -> Appliance:
    appliance = _judge(document, surroundings or Surroundings.real())
    if appliance is None or document.problems:
        problems = sorted(document.problems, key=lambda problem: problem.line)
        raise FileError(document.file, problems, _CURE)
    return appliance


def _judge(document: Document, surroundings: Surroundings) -> Appliance | None:
    """The appliance; it counts only if no problem was noted in the document."""
    if document.data is None or not _top_is_right(document) or not _version_is_ours(document):
        return None
    _refuse_templates(document, document.data, ())
    wrong = {problem.path for problem in document.problems}
    _name_expired(document)
    errors: list[ErrorDetails] = []
    try:
        appliance = ApplianceFile.model_validate(document.data).kosmos
    except ValidationError as error:
        errors = error.errors(include_url=False)
        appliance = _with_stand_ins(document.data["kosmos"], errors)
    for detail in errors:
        path = tuple(detail["loc"])
        if path not in EXPIRED and yaml_file.dotted(path) not in wrong:
            explain.note(document, detail, ApplianceFile)
    broken = frozenset(str(detail["loc"][1]) for detail in errors if len(detail["loc"]) > 1)
    case = rules.Case(appliance, surroundings.today, surroundings.check_ids)
    for finding in rules.findings(case, broken):
        document.problem(finding.path, finding.reason, finding.found, finding.wanted)
    return appliance


def _with_stand_ins(kosmos: Any, errors: list[ErrorDetails]) -> Appliance:
    """An appliance whose broken sections are the model's examples, so that the rules can judge the sound ones.

    The caller leaves out every rule that reads a broken section: no finding speaks of a stand-in.
    """
    broken = {detail["loc"][1] for detail in errors if len(detail["loc"]) > 1}
    sound = {key: value for key, value in kosmos.items() if key not in broken} if isinstance(kosmos, dict) else {}
    return Appliance.model_validate(example() | sound)


def _top_is_right(document: Document) -> bool:
    data = document.data
    example = f"kosmos:\n  apiVersion: {API_VERSION}\n  ..."
    if not isinstance(data, dict):
        document.problem((), "The file must begin with the key `kosmos`.", yaml_file.shown(data), example)
        return False
    others = [key for key in data if key != "kosmos" and (key,) not in EXPIRED]
    for key in others:
        near = explain.did_you_mean(key, ["kosmos"]) if "kosmos" not in data else ""
        reason = f"Only the key `kosmos` may stand at the top.{near}"
        document.problem((key,), reason, wanted="Other Ansible variables go into another file in this folder.")
    if "kosmos" not in data:
        if not others:
            _name_expired(document)
            document.problem((), "The key `kosmos` is missing.", wanted=example)
        return False
    for key in others:
        del data[key]
    return True


def _version_is_ours(document: Document) -> bool:
    """A file of another version is not judged any further: each other message would mislead."""
    kosmos = document.data["kosmos"]
    version = kosmos.get("apiVersion", API_VERSION) if isinstance(kosmos, dict) else API_VERSION
    if version == API_VERSION:
        return True
    family, _, number = str(version).partition("/v")
    newer = family == "kosmos" and number.isdigit() and int(number) > int(API_VERSION.partition("/v")[2])
    reason = "This file is for a newer kosmos-install." if newer else "This is no version of the appliance file."
    cure = "Upgrade kosmos-install, or write " if newer else ""
    document.problem(("kosmos", "apiVersion"), reason, yaml_file.shown(version), f"{cure}{API_VERSION}")
    return False


def _name_expired(document: Document) -> None:
    for path, expired in EXPIRED.items():
        value: Any = document.data
        for part in path:
            value = value.get(part, None) if isinstance(value, dict) else None
        if value is not None:
            reason = f"This key is no longer read since {expired.release}."
            document.problem(path, reason, wanted=f"Write {expired.instead} instead.")


def _refuse_templates(document: Document, value: Any, path: KeyPath) -> None:
    """Ansible would render `{{ }}` here, but validation and the JSON schema see only the text."""
    if isinstance(value, dict):
        for key, below in value.items():
            _refuse_templates(document, below, (*path, key))
    elif isinstance(value, list):
        for number, below in enumerate(value):
            _refuse_templates(document, below, (*path, number))
    elif isinstance(value, str) and ("{{" in value or "{%" in value):
        document.problem(path, "Templates are not rendered in this file.", yaml_file.shown(value), "Write the value.")
