"""Typed JSON documents: a frozen dataclass is the schema, and whatever it does not know is refused.

A field's type says how it is written: `bytes` as base64, `Hex` as hexadecimal, `datetime` as RFC 3339 in UTC, a
`Mapping` as an object, a `tuple` as a list, an enumeration as its value. A class with a `FORMAT` writes it as
"format", and reads only that one: a document of another version is another document.
"""

from __future__ import annotations

import base64
import difflib
import functools
import hashlib
import json
import re
import reprlib
import types
from collections import Counter
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from .refusal import Refused

T = TypeVar("T")
Hex = Annotated[bytes, "hex"]
MAX_BYTES = 32 * 1024 * 1024
MAX_TEXT = 4096
MAX_INTEGER = 2**64 - 1
HEXADECIMAL = re.compile(r"(?:[0-9a-f]{2})*")
INTEGER_KEY = re.compile(r"0|[1-9][0-9]{0,9}")


def _refuse(where: str, words: str) -> Refused:
    return Refused("document", f"{where}: {words}")


def read(kind: type[T], data: bytes, what: str) -> T:
    """Return the document in `data`. Raises Refused that names the path, the fault and what is possible there."""
    if len(data) > MAX_BYTES:
        raise _refuse(what, f"{len(data)} bytes, more than {MAX_BYTES}")
    try:
        content = json.loads(data.decode("utf-8"), object_pairs_hook=_pairs, parse_constant=_no_constant)
    except Refused as error:
        raise _refuse(what, str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _refuse(what, f"is not JSON: {type(error).__name__}: {error}") from error
    return cast(T, _read(kind, content, what))


def write(value: Any) -> bytes:
    """Return a document as canonical JSON: sorted keys, no spaces. The same value always gives the same bytes."""
    return json.dumps(_write(type(value), value), sort_keys=True, separators=(",", ":")).encode()


def digest(value: Any) -> str:
    """Return the SHA-384 of a document's canonical form, as hexadecimal."""
    return hashlib.sha384(write(value)).hexdigest()


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _refuse("JSON", f"the key {reprlib.repr(twice)} stands twice")
    return found


def _no_constant(word: str) -> Any:
    raise _refuse("JSON", f"{word} is not a value")


@functools.cache
def _schema(kind: type) -> dict[str, tuple[Any, bool]]:
    """Return type and whether it is needed, by field name."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        field.name: (hints[field.name], field.default is MISSING and field.default_factory is MISSING)
        for field in fields(kind)
    }


def _read(kind: Any, value: Any, where: str) -> Any:  # noqa: PLR0911, PLR0912 - one line per kind of value
    if kind in (Hex, bytes):
        return _binary(kind, value, where)
    if is_dataclass(kind):
        return _object(cast(type, kind), value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):
        return None if value is None else _read(_inner(kind), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _refuse(where, "has to be a list")
        return tuple(_read(arguments[0], entry, f"{where}[{number}]") for number, entry in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise _refuse(where, "has to be an object")
        keyed = [(_key(arguments[0], name, where), name, entry) for name, entry in value.items()]
        return {key: _read(arguments[1], entry, f"{where}.{name}") for key, name, entry in keyed}
    if kind is datetime:
        return _moment(value, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        known = [member.value for member in kind]
        if value not in known:
            raise _refuse(where, f"{reprlib.repr(value)} is not known; there are: {', '.join(map(str, known))}")
        return kind(value)
    if type(value) is not kind:
        raise _refuse(where, f"has to be of type {kind.__name__}, is {type(value).__name__}")
    if kind is int and not 0 <= value <= MAX_INTEGER:
        raise _refuse(where, f"is not between 0 and {MAX_INTEGER}")
    if kind is str:
        _printable(value, where)
    return value


def _printable(text: str, where: str) -> None:
    """Words end up on terminals and in reports: no control characters, no halves of surrogate pairs, one line."""
    if len(text) > MAX_TEXT or not text.isprintable():
        raise _refuse(where, f"{reprlib.repr(text)} is not one line of printable text, at most {MAX_TEXT} characters")


def _inner(kind: Any) -> Any:
    """Return X of `X | None`, and any other type as it is."""
    if get_origin(kind) not in (types.UnionType, Union):
        return kind
    return next(argument for argument in get_args(kind) if argument is not types.NoneType)


def _object(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _refuse(where, "has to be an object")
    content, schema = dict(value), _schema(kind)
    wanted = getattr(kind, "FORMAT", None)
    if wanted is not None and (found := content.pop("format", None)) != wanted:
        raise _refuse(f"{where}.format", f"is {reprlib.repr(found)}, expected {wanted!r}")
    for name in content:
        _printable(name, where)
        if name not in schema:
            near = difflib.get_close_matches(name, schema, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(schema)}"
            raise _refuse(f"{where}.{name}", f"is not known; {hint}")
    missing = [name for name, (_, needed) in schema.items() if needed and name not in content]
    if missing:
        raise _refuse(f"{where}.{missing[0]}", "is missing")
    return kind(**{name: _read(schema[name][0], entry, f"{where}.{name}") for name, entry in content.items()})


def _binary(kind: Any, value: Any, where: str) -> bytes:
    if not isinstance(value, str):
        raise _refuse(where, f"has to be text, is {type(value).__name__}")
    if kind == Hex:
        if not HEXADECIMAL.fullmatch(value):
            raise _refuse(where, "is not hexadecimal in lower case, two digits to the byte")
        return bytes.fromhex(value)
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise _refuse(where, f"is not base64: {error}") from error


def _key(kind: Any, name: str, where: str) -> Any:
    _printable(name, where)
    if kind is not int:
        return name
    if not INTEGER_KEY.fullmatch(name):
        raise _refuse(f"{where}.{name}", "has to be a number")
    return int(name)


def _moment(value: Any, where: str) -> datetime:
    try:
        found = datetime.fromisoformat(value)
        if found.tzinfo is None:
            raise ValueError("no time zone")
        return found.astimezone(UTC)
    except (ValueError, TypeError, OverflowError) as error:
        raise _refuse(where, f"{reprlib.repr(value)} is not a time in UTC such as 2026-01-31T12:00:00Z") from error


def _write(kind: Any, value: Any) -> Any:  # noqa: PLR0911 - one line per kind of value
    kind = _inner(kind)
    if kind == Hex and value is not None:
        return value.hex()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if is_dataclass(value):
        written = {
            name: _write(hint, getattr(value, name))
            for name, (hint, _) in _schema(cast(type, type(value))).items()
            if getattr(value, name) is not None
        }
        form = getattr(value, "FORMAT", None)
        return {"format": form, **written} if form else written
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    arguments = get_args(kind)
    if isinstance(value, Mapping):
        return {str(name): _write(arguments[1], entry) for name, entry in value.items()}
    if isinstance(value, tuple):
        return [_write(arguments[0], entry) for entry in value]
    return value
