"""Decide whether what was found is what is needed.

`needed` is a literal (equality) or a mapping of operators, all of which must hold.
Nothing found (None) satisfies no operator except `absent`, `not` and an `in` that lists null: a missing file must
never pass as "does not contain the bad line".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class MatchError(ValueError):
    """`needed` itself makes no sense. The text says why."""


def same(found: Any, needed: Any) -> bool:
    """Compare as a person would: 1 equals "1", spaces inside a value do not count, true equals "true"."""
    if isinstance(found, list) or isinstance(needed, list):
        return (
            isinstance(found, list)
            and isinstance(needed, list)
            and len(found) == len(needed)
            and all(same(left, right) for left, right in zip(found, needed, strict=True))
        )
    if isinstance(found, Mapping) or isinstance(needed, Mapping) or found is None or needed is None:
        return bool(found == needed)
    return _plain(found) == _plain(needed)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return " ".join(str(value).split())


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise MatchError(f"{value!r} is not a number")
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise MatchError(f"{value!r} is not a number") from error


def version_key(text: Any) -> tuple[int, ...]:
    """Return the leading dotted number of a version: "6.12.41+deb13-amd64" gives (6, 12, 41)."""
    match = re.match(r"\d+(?:\.\d+)*", str(text))
    if match is None:
        raise MatchError(f"{text!r} does not start with a version number")
    return tuple(int(part) for part in match.group().split("."))


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _contains(found: Any, item: Any) -> bool:
    if isinstance(found, list):
        return any(same(entry, item) for entry in found)
    return str(item) in str(found)


def _regex(pattern: Any) -> re.Pattern[str]:
    try:
        return re.compile(str(pattern), re.MULTILINE)
    except re.error as error:
        raise MatchError(f"{pattern!r} is not a regular expression: {error}") from error


def _lines(found: Any) -> list[str]:
    return [str(entry) for entry in found] if isinstance(found, list) else str(found).splitlines()


def _mode_max(found: Any, limit: Any) -> bool:
    try:
        return int(str(found), 8) & ~int(str(limit), 8) == 0
    except ValueError as error:
        raise MatchError(f"{limit!r} and {found!r} must both be octal modes in quotes") from error


def _same_items(found: Any, needed: Any) -> bool:
    left, right = sorted(map(_plain, _items(found))), sorted(map(_plain, _items(needed)))
    return left == right


Operator = Callable[[Any, Any], bool]

OPERATORS: Mapping[str, tuple[Operator, str]] = {
    "in": (lambda f, n: any(same(f, entry) for entry in _items(n)), "equals one of the list (null = absent)"),
    "not": (lambda f, n: not same(f, n), "is anything else, also absent"),
    "absent": (lambda f, n: (f is None) is bool(n), "true: nothing was found; false: something was"),
    "min": (lambda f, n: _number(f) >= _number(n), "a number, at least this"),
    "max": (lambda f, n: _number(f) <= _number(n), "a number, at most this"),
    "min_version": (lambda f, n: version_key(f) >= version_key(n), "a dotted version, at least this"),
    "matches": (lambda f, n: bool(_regex(n).search(str(f))), "the text holds the regular expression (multi-line)"),
    "contains": (_contains, "the list has the item, or the text has the part"),
    "contains_all": (lambda f, n: all(_contains(f, item) for item in _items(n)), "`contains` for every item"),
    "not_contains": (
        lambda f, n: not any(_contains(f, item) for item in _items(n)),
        "`contains` for none (an item or a list of items)",
    ),
    "any_matches": (lambda f, n: any(_regex(n).search(line) for line in _lines(f)), "one line or item matches"),
    "none_matches": (lambda f, n: not any(_regex(n).search(line) for line in _lines(f)), "no line or item matches"),
    "same_items": (_same_items, "the same items in any order"),
    "subset_of": (lambda f, n: all(_contains(_items(n), item) for item in _items(f)), "no item outside the list"),
    "mode_max": (_mode_max, 'a file mode without any bit beyond this one ("0640")'),
}
ABSENT_MAY_PASS = frozenset({"in", "not", "absent"})


def unknown_operators(needed: Any) -> Sequence[str]:
    """Return the keys of `needed` that are no operators ([] for a literal)."""
    if not isinstance(needed, Mapping):
        return []
    return [str(key) for key in needed if key not in OPERATORS] or ([] if needed else ["(empty mapping)"])


def matches(found: Any, needed: Any) -> bool:
    """Return whether `found` is as `needed`. Raises MatchError when they cannot be compared."""
    if not isinstance(needed, Mapping):
        return same(found, needed)
    unknown = unknown_operators(needed)
    if unknown:
        raise MatchError(f"unknown operator {', '.join(unknown)}; there are: {', '.join(OPERATORS)}")
    if found is None and not ABSENT_MAY_PASS.issuperset(needed):
        return False
    return all(OPERATORS[name][0](found, value) for name, value in needed.items())
