"""The published schema: it is the model's, it takes what is right, and refuses what the model refuses by type."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import TypeAdapter
from test_config_types import RIGHT, WRONG, put

from kosmos_installer import schema
from kosmos_installer.model import Appliance, ApplianceFile, Section

ROOT = Path(__file__).parents[4]
VALIDATOR = jsonschema.Draft202012Validator(
    schema.document(), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
)
# Rules of single values that JSON Schema has no words for; so is the order of the numbers in "90-80".
BEYOND = {
    "A name of digits only would be taken for an address.",
    "It is too long: host name and domain together may have 253 characters (RFC 1035).",
    "This is an address inside a network; the network is 10.0.0.0/8.",
}


def as_json(value: Any) -> Any:
    """What an editor sees: YAML dates are text to it."""
    return json.loads(json.dumps(value, default=lambda day: day.isoformat() if isinstance(day, date) else str(day)))


def test_the_published_schema_is_the_models() -> None:
    assert (ROOT / "docs/reference/kosmos.schema.json").read_text() == schema.text()
    jsonschema.Draft202012Validator.check_schema(schema.document())


@pytest.mark.parametrize("inventory", ["example", "lab"])
def test_the_shipped_files_are_right(inventory: str) -> None:
    path = ROOT / "inventories" / inventory / "group_vars/all/kosmos.yml"
    VALIDATOR.validate(as_json(yaml.safe_load(path.read_text())))


@pytest.mark.parametrize("name", ["invalid"])
def test_the_kept_bad_file_is_refused(name: str) -> None:
    content = (Path(__file__).parent / f"files/{name}.yml").read_text().replace("2027-13-01", '"2027-13-01"')
    errors = {error.json_path for error in VALIDATOR.iter_errors(as_json(yaml.safe_load(content)))}
    assert {"$.kosmos", "$.kosmos.name", "$.kosmos.profile", "$.kosmos.network.zones[0].vlan"} <= errors


@pytest.mark.parametrize(
    ("path", "value", "reason"), [row for row in WRONG if row[2] not in BEYOND and "90-80" not in str(row)]
)
def test_what_the_model_refuses_the_schema_refuses(path: str, value: Any, reason: str, kosmos: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(as_json({"kosmos": put(kosmos, path, value)})), reason


@pytest.mark.parametrize(("path", "value"), RIGHT)
def test_what_the_model_takes_the_schema_takes(path: str, value: Any, kosmos: dict[str, Any]) -> None:
    VALIDATOR.validate(as_json({"kosmos": put(kosmos, path, value)}))


def test_every_example_in_the_model_is_right_and_every_key_is_described() -> None:
    pending: list[type[Section]] = [ApplianceFile, Appliance]
    seen: set[type[Section]] = set()
    while pending:
        model = pending.pop()
        seen.add(model)
        assert model.__doc__
        for name, field in model.model_fields.items():
            assert field.description and field.description.endswith((".", ". , / -", "..."))
            examples = field.examples or []
            assert examples or not field.is_required() or model is ApplianceFile, name
            adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation())
            for example in examples:
                adapter.validate_python(example)
        pending += [inner for inner in Section.__subclasses__() if inner not in seen and inner not in pending]


def test_the_smallest_file_is_complete(accept: Callable[[dict[str, Any]], Appliance], kosmos: dict[str, Any]) -> None:
    assert accept(kosmos).model_dump(mode="json", by_alias=True)["apiVersion"] == "kosmos/v1"
