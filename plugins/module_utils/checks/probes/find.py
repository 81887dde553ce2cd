"""Probe: files that match predicates, over one shared walk of the file system."""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import Arg, Found, Host, Kind, ProbeError

#: Entries one walk may see. A Debian server has about 100 000; a store of small objects must be excluded by path.
WALK_LIMIT = 600_000
TYPES = {"file": stat.S_ISREG, "directory": stat.S_ISDIR, "link": stat.S_ISLNK}


def find(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell the sorted paths that meet every predicate given."""
    known_users = _numbers(host, "passwd")
    known_groups = _numbers(host, "group")
    hits = []
    for path, status in _walk(host, args):
        mode = status.st_mode
        wanted = (
            (args["type"] is None or TYPES[args["type"]](mode))
            and (args["name"] is None or fnmatch.fnmatch(path.rsplit("/", 1)[1], args["name"]))
            and (args["mode_any"] is None or stat.S_IMODE(mode) & int(args["mode_any"], 8))
            and (args["mode_lacks"] is None or not stat.S_IMODE(mode) & int(args["mode_lacks"], 8))
            and (not args["unowned"] or status.st_uid not in known_users or status.st_gid not in known_groups)
        )
        if wanted and not any(fnmatch.fnmatch(path, pattern) for pattern in args["exclude"]):
            hits.append(path)
    return Found(sorted(hits), f"walk of {', '.join(args['paths'])}")


def _numbers(host: Host, database: str) -> frozenset[int]:
    rows = (line.split(":") for line in (host.text(f"/etc/{database}") or "").splitlines())
    return frozenset(int(row[2]) for row in rows if len(row) > 2 and row[2].isdigit())


def _walk(host: Host, args: Mapping[str, Any]) -> Iterator[tuple[str, os.stat_result]]:
    for start in args["paths"]:
        key = ("walk", start, args["depth"], args["one_filesystem"])
        entries = host.once(key, partial(_listed, host, start, args))
        yield from entries


def _listed(host: Host, start: str, args: Mapping[str, Any]) -> list[tuple[str, os.stat_result]]:
    return list(_entries(host, start, args))


def _entries(host: Host, start: str, args: Mapping[str, Any]) -> Iterator[tuple[str, os.stat_result]]:
    place = host.path(start)
    if not place.is_dir():
        return
    device, seen, pending = place.stat().st_dev, 0, [(str(place), start.rstrip("/"), 1)]
    while pending:
        folder, shown, depth = pending.pop()
        try:
            children = list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for child in children:
            try:
                status = child.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            seen += 1
            if seen > WALK_LIMIT:
                raise ProbeError(f"{start} holds more than {WALK_LIMIT} entries")
            path = f"{shown}/{child.name}"
            if args["one_filesystem"] and status.st_dev != device:
                continue
            yield path, status
            if stat.S_ISDIR(status.st_mode) and (args["depth"] is None or depth < args["depth"]):
                pending.append((child.path, path, depth + 1))


KINDS = {
    "find": Kind(
        find,
        "Sorted paths below folders that meet every predicate. Checks over the same folders share one walk.",
        (
            Arg("paths", "absolute folders", type="list", required=True),
            Arg("type", "kind of entry", default=None, choices=("file", "directory", "link")),
            Arg("name", "glob for the last part of the path", default=None),
            Arg("mode_any", 'at least one of these octal bits is set ("0002")', default=None),
            Arg("mode_lacks", 'none of these octal bits is set ("1000")', default=None),
            Arg("unowned", "user or group has no name", type="bool", default=False),
            Arg("exclude", "globs over the whole path that do not count", type="list", default=[]),
            Arg("depth", "levels to go down; all without it", type="int", default=None),
            Arg("one_filesystem", "do not enter other mounts", type="bool", default=True),
        ),
        rooted=True,
    ),
}
