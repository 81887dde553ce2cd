"""What is found against what is needed, as a table."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.matchers import OPERATORS, MatchError, matches

TABLE: list[tuple[Any, Any, bool]] = [
    # literals
    (1, "1", True), ("1", 1, True), (True, "true", True), (True, True, True), (True, 1, False), ("a  b", "a b", True),
    ("A", "a", False), (2.0, 2, True), (None, None, True), (None, "", False), (None, False, False), ("", "", True),
    ([], [], True), (["a"], [], False), (["a", 1], ["a", "1"], True), (["a", "b"], ["b", "a"], False),
    ("a", ["a"], False),
    # operators
    ("b", {"in": ["a", "b"]}, True), (None, {"in": [None, "a"]}, True), (None, {"in": ["a"]}, False),
    ("a", {"not": "b"}, True), ("a", {"not": "a"}, False), (None, {"not": "a"}, True),
    (None, {"absent": True}, True), ("a", {"absent": True}, False), ("a", {"absent": False}, True),
    (None, {"absent": False}, False),
    ("10", {"min": 9}, True), (8, {"min": 9}, False), (5, {"min": 1, "max": 5}, True), (6, {"min": 1, "max": 5}, False),
    ("6.12.41+deb13", {"min_version": "6.1"}, True), ("6.1", {"min_version": "6.12"}, False),
    ("a\nbc\n", {"matches": "^b"}, True), ("abc", {"matches": "^b"}, False),
    (["rw", "nosuid"], {"contains": "nosuid"}, True), (["nosuidx"], {"contains": "nosuid"}, False),
    ("rw,nosuid", {"contains": "nosuid"}, True), (["a", "b"], {"contains_all": ["a", "b"]}, True),
    (["a"], {"contains_all": ["a", "b"]}, False), (["a"], {"not_contains": ["b", "c"]}, True),
    (["a"], {"not_contains": "a"}, False), (["x 1", "y 2"], {"any_matches": r"^y \d"}, True),
    ([], {"any_matches": "."}, False),
    (["x 1"], {"none_matches": "y"}, True), ("x\ny", {"none_matches": "^y$"}, False),
    (["b", "a"], {"same_items": ["a", "b"]}, True), (["a"], {"same_items": ["a", "b"]}, False),
    (["a"], {"subset_of": ["a", "b"]}, True), (["c"], {"subset_of": ["a", "b"]}, False),
    ("0600", {"mode_max": "0640"}, True), ("0644", {"mode_max": "0640"}, False), ("4755", {"mode_max": "0755"}, False),
]  # fmt: skip


@pytest.mark.parametrize(("found", "needed", "holds"), TABLE)
def test_table(found: Any, needed: Any, holds: bool) -> None:
    assert matches(found, needed) is holds


@pytest.mark.parametrize("name", sorted(set(OPERATORS) - {"in", "not", "absent"}))
def test_what_is_absent_never_passes(name: str) -> None:
    value = {"min": 0, "max": 10**9, "mode_max": "7777", "min_version": "0"}.get(name, [])
    assert matches(None, {name: value}) is False


def test_every_operator_is_in_the_table() -> None:
    assert {name for _, needed, _ in TABLE if isinstance(needed, dict) for name in needed} == set(OPERATORS)


@pytest.mark.parametrize(
    ("found", "needed", "what"),
    [
        ("x", {"min": 1}, "not a number"),
        (True, {"max": 1}, "not a number"),
        ("x", {"matches": "("}, "not a regular expression"),
        ("x", {"mode_max": "0640"}, "octal"),
        ("x", {"min_version": "1"}, "version number"),
        ("x", {"equals": 1}, "unknown operator equals"),
        ("x", {}, "empty mapping"),
    ],
)
def test_nonsense_is_named(found: Any, needed: Any, what: str) -> None:
    with pytest.raises(MatchError, match=what):
        matches(found, needed)
