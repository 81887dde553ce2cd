"""The mapping in playbooks/group_vars: it reads every setting, and its defaults are those of the model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from jinja2 import ChainableUndefined, StrictUndefined, Undefined
from jinja2.exceptions import UndefinedError
from jinja2.nativetypes import NativeEnvironment

from kosmos_installer.model import Appliance, Section

MAPPING = sorted((Path(__file__).parents[4] / "playbooks/group_vars/all").glob("*.yml"))
# What the command itself reads, not a role: the version, the name that reset asks for, and what a rule judges.
NOT_FOR_ROLES = {"apiVersion", "name", "hardware.memory_gib"}


class AnsiblesUndefined(ChainableUndefined, StrictUndefined):
    """As in Ansible: `a.b.c | default(1)` is 1 when `a` has no `b`, and nothing undefined is ever printed."""


def settings(model: type[Section], path: str = "") -> Iterator[tuple[str, Any]]:
    """(key path, default or ...) of every setting; a list is one setting."""
    for name, field in model.model_fields.items():
        below = f"{path}{field.alias or name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from settings(field.annotation, below + ".")
        else:
            yield below, ... if field.is_required() else field.default


def with_every_default(kosmos: dict[str, Any]) -> dict[str, Any]:
    """The same appliance, with every default written out."""
    for path, default in settings(Appliance):
        *way, last = path.split(".")
        if default is ... or default is None:
            continue
        place = kosmos
        for part in way:
            place = place.setdefault(part, {})
        place.setdefault(last, default)
    return kosmos


def rendered(kosmos: dict[str, Any]) -> dict[str, Any]:
    """Every variable of the mapping for this appliance; variables may use each other in any order."""
    environment = NativeEnvironment(undefined=AnsiblesUndefined)
    waiting = {name: raw for path in MAPPING for name, raw in yaml.safe_load(path.read_text()).items()}
    known: dict[str, Any] = {"kosmos": kosmos}
    while waiting:
        done = {}
        for name, raw in waiting.items():
            with suppress(UndefinedError):
                value = environment.from_string(raw).render(known) if isinstance(raw, str) else raw
                if not isinstance(value, Undefined):
                    done[name] = value
        assert done, f"these cannot be rendered: {sorted(waiting)}"
        known |= done
        waiting = {name: raw for name, raw in waiting.items() if name not in done}
    return known


def test_the_smallest_file_and_the_one_with_every_default_mean_the_same(kosmos: dict[str, Any]) -> None:
    smallest = rendered(dict(kosmos))
    del smallest["kosmos"]
    full = rendered(with_every_default(kosmos))
    assert {name: full[name] for name in smallest} == smallest
    assert len(smallest) > 20


def test_every_setting_reaches_a_role() -> None:
    text = "".join(path.read_text() for path in MAPPING)
    read = set(re.findall(r"\bkosmos\.([A-Za-z_.]+)", text))
    wanted = {path for path, _ in settings(Appliance)} - NOT_FOR_ROLES
    assert wanted - read == set(), "these settings of the appliance file are read by nothing"
    assert read - wanted == set(), "these are no settings of the appliance file"
