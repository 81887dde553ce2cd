"""The variable table of a README."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))

import role_readme

SPEC = {
    "argument_specs": {
        "verify": {"options": {"x_enforce": {"type": "bool", "default": True, "description": "Fail."}}},
        "main": {
            "options": {
                "x_who": {"type": "str", "required": True, "description": ["First.", "Second | third."]},
                "x_how": {"choices": ["a", "b"], "default": "a", "description": "How."},
                "x_list": {"type": "list", "elements": "int", "default": list(range(100)), "description": "Many."},
                "x_empty": {"type": "str", "default": "", "description": "Nothing."},
            }
        },
    }
}


def test_table_has_main_first_and_every_variable_once() -> None:
    lines = role_readme.table(SPEC).splitlines()[2:]
    assert [line.split("`")[1] for line in lines] == ["x_who", "x_how", "x_list", "x_empty", "x_enforce"]


def test_cells_tell_type_default_and_meaning() -> None:
    lines = role_readme.table(SPEC).splitlines()[2:]
    assert lines[0] == "| `x_who` | str | required | First. Second \\| third. |"
    assert lines[1] == "| `x_how` | one of `a`, `b` | `a` | How. |"
    assert lines[2].startswith("| `x_list` | list of int | `[0, 1, 2,")
    assert " ...` | Many. |" in lines[2]
    assert lines[3] == "| `x_empty` | str | `''` | Nothing. |"


def test_page_replaces_only_what_is_between_the_markers() -> None:
    old = "# x\n\n<!-- variables -->\nold\n<!-- /variables -->\n\nMore.\n"
    new = role_readme.page(old, SPEC)
    assert new.startswith("# x\n\n<!-- variables -->\n| Variable |")
    assert new.endswith("|\n<!-- /variables -->\n\nMore.\n")
    assert role_readme.page(new, SPEC) == new


def test_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="no lines"):
        role_readme.page("# x\n", SPEC)
