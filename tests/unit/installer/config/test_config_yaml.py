"""What can be wrong before there is any appliance file: bytes, YAML, and YAML's surprises."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from kosmos_installer import yaml_file

UNREADABLE = [
    pytest.param(b"", 0, "The file is empty.", "", id="empty"),
    pytest.param(b"# only a comment\n---\n", 0, "The file is empty.", "", id="comments"),
    pytest.param(b"a: 1\nb: \xff\xfe\n", 2, "This is not UTF-8 text.", "byte 0xff", id="latin"),
    pytest.param(b"a: 1\nb: \x07\n", 2, "A control character is not allowed in YAML.", "U+0007", id="bell"),
    pytest.param(b"a:\n\tb: 1\n", 2, "A tab is used for indentation.", '"\\tb: 1"', id="tab"),
    pytest.param(b"a:\n  - b\n  c: 1\n", 3, "This is not YAML: expected <block end>, but found '?' (while parsing "
                 "a block collection).", "c: 1", id="syntax"),
    pytest.param(b"a: [1, 2\n", 2, "This is not YAML: expected ',' or ']', but got '<stream end>' (while parsing a "
                 "flow sequence).", "", id="unclosed"),
    pytest.param(b"a: 1\n---\nb: 2\n", 2, "A second YAML document begins here.", "---", id="second document"),
    pytest.param(b"a: @x\n", 1, "A value that begins with this character must be quoted.", "a: @x", id="reserved"),
    pytest.param(b"$ANSIBLE_VAULT;1.1;AES256\n3132\n", 1, yaml_file._NO_VAULT, "$ANSIBLE_VAULT", id="vault file"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "line", "reason", "found"), UNREADABLE)
def test_a_file_that_cannot_be_read(content: bytes, line: int, reason: str, found: str) -> None:
    document = yaml_file.parse(content, "x.yml")
    assert document.data is None
    [problem] = document.problems
    assert (problem.line, problem.reason, problem.found) == (line, reason, found)


SURPRISES = [
    pytest.param("a: {b: 1, c: 2, b: 3}", "a.b", "This key is given twice; the first time on line 1.", id="double"),
    pytest.param("a: 12:30", "a", "YAML reads this as the number 750.", id="base 60"),
    pytest.param("a: 0100", "a", "YAML reads this as the number 64.", id="octal"),
    pytest.param("a: 010.5", "a", None, id="a decimal is no octal"),
    pytest.param("a: 0", "a", None, id="zero"),
    pytest.param("a: 2027-13-01", "a", "This is no date: month must be in 1..12.", id="date"),
    pytest.param("on: 1", "on", "A key must be text.", id="key is a truth value"),
    pytest.param("1: 1", "1", "A key must be text.", id="key is a number"),
    pytest.param("? [a, b]\n: 1", None, "A key must be text.", id="key is a list"),
    pytest.param("a: !vault |\n  $ANSIBLE_VAULT;1.1", "a", yaml_file._NO_VAULT, id="vault value"),
    pytest.param("a: !unsafe x", "a", "The tag !unsafe is not known.", id="tag"),
    pytest.param("a: &x [*x]", "a[0]", "This value contains itself.", id="loop"),
    pytest.param("a: {<<: 1}", "a", "The merge `<<` is wrong: expected a mapping or list of mappings for merging, but "
                 "found scalar.", id="merge"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "path", "reason"), SURPRISES)
def test_what_yaml_would_silently_take_for_something_else(content: str, path: str | None, reason: str | None) -> None:
    document = yaml_file.parse(content.encode(), "x.yml")
    if reason is None:
        assert not document.problems
        return
    [problem] = document.problems
    assert problem.reason == reason
    assert path is None or problem.path == path
    assert problem.line == 1


def test_lines_are_those_of_the_values() -> None:
    document = yaml_file.parse(b"a:\n  b:\n    - c: 1\n    - c: 2\nd: 3\n", "x.yml")
    assert document.data == {"a": {"b": [{"c": 1}, {"c": 2}]}, "d": 3}
    assert [document.line(path) for path in (("a", "b", 0, "c"), ("a", "b", 1, "c"), ("d",))] == [3, 4, 5]
    assert document.line(("a", "b", 1, "missing")) == 4, "a missing key belongs to the line of what it is missing in"


def test_merges_and_aliases_are_ordinary_yaml() -> None:
    document = yaml_file.parse(b"x: &x {a: 1}\ny: {<<: *x, b: 2}\nz: *x\n", "x.yml")
    assert document.data == {"x": {"a": 1}, "y": {"a": 1, "b": 2}, "z": {"a": 1}}
    assert not document.problems


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert yaml_file.parse("\ufeffa: 1".encode(), "x.yml").data == {"a": 1}


@pytest.mark.parametrize("fast", [True, False])
def test_both_parsers_of_yaml_give_the_same(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not fast:
        monkeypatch.setattr(yaml_file, "_FAST_LOADER", yaml_file.yaml.SafeLoader)
    document = yaml_file.parse(b"a: [1, {b: 2027-01-31}]\n", "x.yml")
    assert document.data == {"a": [1, {"b": date(2027, 1, 31)}]}
    assert document.line(("a", 1, "b")) == 1


def test_what_is_no_readable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert yaml_file.read(tmp_path).problems[0].reason == "This is a folder, a file is needed."
    assert yaml_file.read(tmp_path / "x.yml").problems[0].reason == "There is no such file."
    loop = tmp_path / "loop.yml"
    loop.symlink_to(loop)
    assert yaml_file.read(loop).problems[0].reason == "It cannot be read: Too many levels of symbolic links."
    locked = tmp_path / "locked.yml"
    locked.write_text("a: 1")
    locked.chmod(0)
    if os.geteuid() == 0:  # root may read everything, so the refusal is made by hand
        monkeypatch.setattr(Path, "read_bytes", _refused)
    assert yaml_file.read(locked).problems[0].reason == "This file may not be read by you."


def _refused(_path: Path) -> bytes:
    raise PermissionError(13, "Permission denied")


def test_long_values_are_cut() -> None:
    assert yaml_file.shown("x" * 80) == "x" * 57 + "..."
    assert yaml_file.shown({"a": [1, "b"]}) == "{a: [1, b]}"
