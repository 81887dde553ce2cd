"""Probes over files: one file, a key in configuration files, a value in JSON."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import Arg, Found, Host, Kind, ProbeError

NAMES = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link", stat.S_IFBLK: "block device"}
ATTRIBUTES = ("exists", "type", "mode", "owner", "group", "content", "lines", "sha256", "size", "target")


def file(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell one attribute of one file; what is absent has every attribute absent, and `exists` false."""
    path, attribute = str(args["path"]), str(args["attribute"])
    place = host.path(path)
    try:
        status = place.lstat() if attribute in {"type", "target"} else place.stat()
    except (FileNotFoundError, NotADirectoryError):
        return Found(False if attribute == "exists" else None, f"{path}: absent")
    return Found(_attribute(host, path, attribute, status, str(args["comment"])), f"{path} ({attribute})")


def _attribute(host: Host, path: str, attribute: str, status: os.stat_result, comment: str) -> Any:
    if attribute in {"content", "lines", "sha256"}:
        data = host.data(path) or b""
        text = data.decode("utf-8", "replace")
        of_content: dict[str, Callable[[], Any]] = {
            "content": lambda: text,
            "lines": lambda: settings(text, comment),
            "sha256": lambda: hashlib.sha256(data).hexdigest(),
        }
        return of_content[attribute]()
    of_inode: dict[str, Callable[[], Any]] = {
        "exists": lambda: True,
        "type": lambda: NAMES.get(stat.S_IFMT(status.st_mode), "special"),
        "mode": lambda: f"{stat.S_IMODE(status.st_mode):04o}",
        "owner": lambda: name_of(host, "passwd", status.st_uid),
        "group": lambda: name_of(host, "group", status.st_gid),
        "size": lambda: status.st_size,
        "target": lambda: str(host.path(path).readlink()) if stat.S_ISLNK(status.st_mode) else None,
    }
    return of_inode[attribute]()


def name_of(host: Host, database: str, number: int) -> str:
    """Return the name of a user (database passwd) or group (group) number, or the number where it has none."""

    def read() -> dict[int, str]:
        rows = (line.split(":") for line in (host.text(f"/etc/{database}") or "").splitlines())
        return {int(row[2]): row[0] for row in reversed(list(rows)) if len(row) > 2 and row[2].isdigit()}

    return host.once(("names", database), read).get(number, str(number))


def settings(text: str, comment: str = "#") -> list[str]:
    """Return the stripped lines that say something: not empty, not a comment."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not (comment and line.startswith(comment))]


def keyvalue(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell the last value of a key over files read in order (globs are sorted), as most daemons do."""
    value, source, read = None, "", []
    for pattern in args["paths"]:
        for path in expand(host, str(pattern)):
            read.append(path)
            for found in _values(host.text(path) or "", args):
                value, source = found, path
    if value is None:
        return Found(None, f"{args['key']} is not set in {', '.join(read) or 'any file: ' + ', '.join(args['paths'])}")
    return Found(value, f"{source}: {args['key']}")


def expand(host: Host, pattern: str) -> list[str]:
    """Return the absolute paths (as seen under the root) that match a glob, sorted by name."""
    if not any(mark in pattern for mark in "*?["):
        return [pattern] if host.path(pattern).is_file() else []
    paths = host.root.glob(pattern.lstrip("/"))
    return sorted(f"/{path.relative_to(host.root)}" for path in paths if path.is_file())


def _values(text: str, args: Mapping[str, Any]) -> list[str]:
    separator, section, values, current = args["separator"], args["section"], [], None
    for line in settings(text, str(args["comment"])):
        if line.startswith("[") and line.endswith("]"):
            current = line[1:-1]
            continue
        parts = line.split(separator, 1) if separator else line.split(None, 1)
        if section is not None and current != section:
            continue
        if parts[0].strip().lower() == str(args["key"]).lower():
            values.append(parts[1].strip().strip('"') if len(parts) > 1 else "")
    return values


def json_value(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell one value of a JSON file, picked by a dotted path."""
    text = host.text(str(args["path"]))
    if text is None:
        return Found(None, f"{args['path']}: absent")
    try:
        return Found(pick(json.loads(text), str(args["pick"])), f"{args['path']}: {args['pick']}")
    except ValueError as error:
        raise ProbeError(f"{args['path']} is not JSON: {error}") from error


def pick(data: Any, dotted: str) -> Any:
    """Return the value at a dotted path ("" is the whole; numbers index lists), None where there is none."""
    for part in filter(None, dotted.split(".")):
        if isinstance(data, list) and part.isdigit() and int(part) < len(data):
            data = data[int(part)]
        elif isinstance(data, Mapping):
            data = data.get(part)
        else:
            return None
    return data


COMMENT = Arg("comment", "lines that begin so are comments", default="#")
KINDS = {
    "file": Kind(
        file,
        "One attribute of one file. `lines` are the stripped lines without comments; `mode` is text such as 0644.",
        (
            Arg("path", "absolute path", required=True),
            Arg("attribute", "what to tell", default="exists", choices=ATTRIBUTES),
            COMMENT,
        ),
        rooted=True,
    ),
    "keyvalue": Kind(
        keyvalue,
        "The last value of a key (any case) over configuration files, as text.",
        (
            Arg("paths", "absolute paths or globs, in the order they are read", type="list", required=True),
            Arg("key", "the key", required=True),
            Arg("separator", "between key and value; empty means white space", default=""),
            Arg("section", "only in this [section]", default=None),
            COMMENT,
        ),
        rooted=True,
    ),
    "json": Kind(
        json_value,
        "One value of a JSON file.",
        (Arg("path", "absolute path", required=True), Arg("pick", "dotted path, empty for all", default="")),
        rooted=True,
    ),
}
