"""Read a YAML file that a person wrote: plain data, the line of every value, and every problem in clear words.

Stricter than YAML itself, where YAML surprises: duplicate keys, numbers that were meant as text (04:00, 0100) and keys
that are not text are problems, not silently something else.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from kosmos_installer.errors import Problem

KeyPath: TypeAlias = tuple[str | int, ...]

_FAST_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_VAULT_HEADER = "$ANSIBLE_VAULT"
_NO_VAULT = "Encrypted values are not supported here: this file is read without a password and holds no secrets."


@dataclass
class Document:
    """One file. `data` is None when it could not be read at all; then `problems` says why."""

    file: str
    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, path: KeyPath) -> int:
        """The line (from 1) of the value at `path`, or of the nearest thing around it; 0 when there is none."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 0

    def problem(self, path: KeyPath, reason: str, found: str = "", wanted: str = "") -> None:
        """Note a problem with the value at `path`."""
        self.problems.append(Problem(dotted(path), self.file, self.line(path), reason, found, wanted))


def dotted(path: KeyPath) -> str:
    """`("kosmos", "zones", 0, "vlan")` as a person writes it: `kosmos.zones[0].vlan`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def shown(value: Any, limit: int = 60) -> str:
    """A value as YAML would hold it on one line, cut at `limit` characters."""
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000, sort_keys=False)
    text = text.removesuffix("\n").removesuffix("\n...")
    return text if len(text) <= limit else text[: limit - 3] + "..."


def read(path: Path) -> Document:
    """Read the file at `path`; never raises for what a person can get wrong."""
    try:
        content = path.read_bytes()
    except OSError as error:
        document = Document(str(path))
        document.problem((), _unreadable(path, error))
        return document
    return parse(content, str(path))


def parse(content: bytes, file: str) -> Document:
    """Read `content`, which came from `file`."""
    document = Document(file)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        document.lines[()] = content.count(b"\n", 0, error.start) + 1
        document.problem((), "This is not UTF-8 text.", f"byte 0x{content[error.start]:02x}", "Save the file as UTF-8.")
        return document
    if text.startswith(_VAULT_HEADER):
        document.lines[()] = 1
        document.problem((), _NO_VAULT, _VAULT_HEADER, "Decrypt it: ansible-vault decrypt " + file)
        return document
    root = _compose(text, document)
    document.data = None if root is None else _Builder(document).value(root, ())
    if document.data is None and not document.problems:
        document.lines.clear()
        document.problem((), "The file is empty.", wanted="See inventories/example for a complete one.")
    return document


def _unreadable(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "There is no such file."
    if path.is_dir():
        return "This is a folder, a file is needed."
    if isinstance(error, PermissionError):
        return "This file may not be read by you."
    return f"It cannot be read: {error.strerror or error}."


def _compose(text: str, document: Document) -> yaml.Node | None:
    """The node tree, by libyaml where present; its terse messages are replaced by the Python parser's."""
    try:
        root: yaml.Node | None = yaml.compose(text, Loader=_FAST_LOADER)
        return root
    except yaml.YAMLError:
        pass
    try:
        yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        document.lines[()] = text.count("\n", 0, error.position) + 1
        document.problem((), "A control character is not allowed in YAML.", f"U+{int(error.character):04X}")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line if mark else 0
        document.lines[()] = line + 1
        rows = text.splitlines()
        row = rows[line] if line < len(rows) else ""
        document.problem((), *_syntax(error, row))
    else:  # pragma: no cover - the two parsers disagree only where libyaml has a fault
        document.problem((), "This is not YAML.")
    return None


def _syntax(error: yaml.MarkedYAMLError, row: str) -> tuple[str, str, str]:
    """(reason, found, wanted) for a syntax error on the line `row`."""
    if "\t" in row[: len(row) - len(row.lstrip())] or "'\\t'" in str(error.problem):
        return "A tab is used for indentation.", shown(row), "Indent by spaces."
    if "expected a single document" in str(error.context):
        return "A second YAML document begins here.", row.strip(), "One document: remove the line `---`."
    if row.lstrip().partition(": ")[2].startswith(("{{", "%", "@", "`", "*", "&")):
        return "A value that begins with this character must be quoted.", row.strip(), 'For instance: key: "value"'
    context = f" ({error.context})" if error.context else ""
    return f"This is not YAML: {error.problem}{context}.", row.strip(), ""


class _Builder:
    """Turns nodes into plain data, noting lines and problems in the document on the way."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._constructor = yaml.constructor.SafeConstructor()
        self._open: set[int] = set()

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in self._open:
            self._document.problem(path, "This value contains itself.", wanted="Remove the alias.")
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*path, number)) for number, item in enumerate(node.value)]
            return self._scalar(node, path)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        first_lines: dict[Hashable, int] = {}
        for key, line in self._own_keys(node):
            if key in first_lines:
                self._document.lines[(*path, str(key))] = line
                reason = f"This key is given twice; the first time on line {first_lines[key]}."
                self._document.problem((*path, str(key)), reason, wanted="Keep one of them.")
            first_lines.setdefault(key, line)
        try:
            self._constructor.flatten_mapping(node)
        except yaml.constructor.ConstructorError as error:
            self._document.problem(path, f"The merge `<<` is wrong: {error.problem}.")
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            below = (*path, str(key))
            self._document.lines.setdefault(below, key_node.start_mark.line + 1)
            if not isinstance(key, str) or not key_node.tag.endswith(":str"):
                self._document.problem(below, "A key must be text.", wanted='Quote it, for instance: "on":')
                continue
            result[key] = self.value(value_node, below)
        return result

    @staticmethod
    def _own_keys(node: yaml.MappingNode) -> Iterator[tuple[Hashable, int]]:
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.value != "<<":
                yield key_node.value, key_node.start_mark.line + 1

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        text = str(node.value)
        if node.tag == "!vault":
            self._document.problem(path, _NO_VAULT, "!vault", "Write the value itself; secrets do not belong here.")
            return None
        try:
            value = self._constructor.construct_object(node)
        except yaml.constructor.ConstructorError:
            self._document.problem(path, f"The tag {node.tag} is not known.", wanted="Write the plain value.")
            return None
        except ValueError as error:
            self._document.problem(path, f"This is no date: {error}.", text, "For instance: 2027-01-31")
            return None
        if isinstance(value, int | float) and (":" in text or (text.startswith("0") and text[1:].isdigit())):
            reason = f"YAML reads this as the number {value}."
            self._document.problem(path, reason, text, f'Text is quoted ("{text}"); a number has no leading zero.')
        return value
