"""From pydantic's errors to words for the person who wrote the file: reason, allowed values, an example."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from kosmos_installer.yaml_file import Document, KeyPath, shown

_KINDS = {
    "string_type": 'text (in quotes: "...")',
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list (lines that begin with `- `)",
    "model_type": "keys below it",
    "model_attributes_type": "keys below it",
}


@dataclass(frozen=True)
class Place:
    """What the model says about a key path: its field, and the model that the field belongs to."""

    field: FieldInfo | None
    owner: type[BaseModel]


def note(document: Document, error: ErrorDetails, model: type[BaseModel]) -> None:
    """Add one pydantic error to the document's problems, unless reading the file has found that value wrong before."""
    path: KeyPath = tuple(error["loc"])
    place = find(model, path)
    kind, value = error["type"], error["input"]
    context: dict[str, Any] = error.get("ctx", {})
    if kind == "missing":
        document.problem(path, "This key is required.", wanted=_wanted(place))
    elif kind == "extra_forbidden":
        keys = names(place.owner)
        document.problem(path, f"This key is not known.{did_you_mean(str(path[-1]), keys)}", wanted=one_of(keys))
    elif kind == "literal_error":
        allowed = choices(place.field)
        document.problem(
            path, f"This value is not allowed.{did_you_mean(value, allowed)}", shown(value), one_of(allowed)
        )
    elif kind in _KINDS:
        given = _kind_of(value)
        document.problem(path, f"It must be {_KINDS[kind]}, not {given}.", shown(value), _wanted(place))
    elif kind == "value_error":
        document.problem(path, str(context["error"]), shown(value), _wanted(place))
    else:
        document.problem(path, _limit(kind, context), shown(value), _wanted(place))


def find(model: type[BaseModel], path: KeyPath) -> Place:
    """Follow `path` through the model. An unknown key gives no field, and the model where it was tried."""
    owner: type[BaseModel] = model
    field: FieldInfo | None = None
    annotation: Any = model
    for part in path:
        annotation = _inner(annotation)
        if isinstance(part, int):
            annotation = get_args(annotation)[0]
            continue
        owner = annotation
        field = next((item for name, item in owner.model_fields.items() if (item.alias or name) == part), None)
        if field is None:
            break
        annotation = field.annotation
    return Place(field, owner)


def names(model: type[BaseModel]) -> list[str]:
    """The keys of `model`, as they stand in the file."""
    return [field.alias or name for name, field in model.model_fields.items()]


def did_you_mean(given: Any, known: Iterable[str]) -> str:
    """` Did you mean x?`, or nothing when no known word is near."""
    near = get_close_matches(str(given), list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]}?" if near else ""


def one_of(words: Iterable[str]) -> str:
    """The words in one row."""
    return "one of: " + ", ".join(words)


def _limit(kind: str, context: dict[str, Any]) -> str:
    """The reasons that speak of a limit or a form."""
    if kind == "too_short":
        return "The list is empty."
    if kind in {"greater_than_equal", "less_than_equal"}:
        bound = context.get("ge", context.get("le"))
        return f"It must be at {'least' if 'ge' in context else 'most'} {bound}."
    if kind == "string_too_long":
        return f"It is longer than {context['max_length']} characters."
    return "It does not have the right form."


def _wanted(place: Place) -> str:
    """What the field is, and an example of it."""
    if place.field is None:
        return ""
    examples = place.field.examples or []
    example = f"\nFor instance: {shown(examples[0])}" if examples else ""
    return f"{place.field.description}{example}"


def choices(field: FieldInfo | None) -> list[str]:
    """The allowed words of a field that has a fixed set of them; else none."""
    annotation = _inner(field.annotation) if field else None
    return [str(choice) for choice in get_args(annotation)] if get_origin(annotation) is Literal else []


def _inner(annotation: Any) -> Any:
    """The type inside `X | None`."""
    if get_origin(annotation) in {Union, UnionType}:
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation


def _kind_of(value: Any) -> str:
    if value is None:
        return "nothing"
    kinds = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "keys below it",
    }
    return kinds.get(type(value), "a date")
