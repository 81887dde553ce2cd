"""Probes over accounts: /etc/passwd, /etc/shadow, /etc/group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import Arg, Found, Host, Kind, ProbeError

NO_LOGIN = ("nologin", "false", "sync", "shutdown", "halt")
SHADOW_FIELDS = {"min_days": 3, "max_days": 4, "warn_days": 5, "inactive_days": 6}
LISTS = ("uid0", "empty_passwords", "login_shells", "system_login_shells", "duplicate_names", "duplicate_ids")
ABOUT_ONE = ("exists", "locked", "shell", "home", "uid", "groups", *SHADOW_FIELDS)


def _rows(host: Host, name: str, width: int) -> list[list[str]]:
    text = host.text(f"/etc/{name}")
    if text is None:
        raise ProbeError(f"/etc/{name}: absent")
    return [row for line in text.splitlines() if len(row := line.split(":")) >= width]


def account(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell a list over all accounts, or one attribute of one account."""
    attribute = str(args["attribute"])
    if attribute in LISTS:
        source = "/etc/shadow" if attribute == "empty_passwords" else "/etc/passwd, /etc/group"
        return Found(_all(host, attribute), source)
    if args["name"] is None:
        raise ProbeError(f"the attribute {attribute} needs the argument name")
    row = next((row for row in _rows(host, "passwd", 7) if row[0] == args["name"]), None)
    evidence = f"/etc/passwd: {args['name']}"
    if attribute == "exists":
        return Found(row is not None, evidence)
    return Found(None, f"{evidence} (no such account)") if row is None else _one(host, attribute, row)


def _all(host: Host, attribute: str) -> list[str]:
    rows = _rows(host, "passwd", 7)
    if attribute == "uid0":
        return [row[0] for row in rows if row[2] == "0"]
    if attribute == "empty_passwords":
        return [row[0] for row in _rows(host, "shadow", 2) if row[1] == ""]
    if attribute in {"login_shells", "system_login_shells"}:
        shells = [row for row in rows if row[6] and row[6].rsplit("/", 1)[-1] not in NO_LOGIN]
        return [row[0] for row in shells if attribute == "login_shells" or 0 < int(row[2]) < 1000]
    field = 0 if attribute == "duplicate_names" else 2
    found = []
    for name, entries in (("user", rows), ("group", _rows(host, "group", 4))):
        counts = Counter(row[field] for row in entries)
        found += [f"{name} {value}" for value, times in counts.items() if times > 1]
    return found


def _one(host: Host, attribute: str, row: list[str]) -> Found:
    name = row[0]
    if attribute == "groups":
        groups = [entry[0] for entry in _rows(host, "group", 4) if name in entry[3].split(",") or entry[2] == row[3]]
        return Found(groups, f"/etc/group: {name}")
    plain = {"shell": row[6], "home": row[5], "uid": int(row[2])}
    if attribute in plain:
        return Found(plain[attribute], f"/etc/passwd: {name}")
    shadow = next((entry for entry in _rows(host, "shadow", 2) if entry[0] == name), None)
    if shadow is None:
        return Found(None, f"/etc/shadow: no line for {name}")
    if attribute == "locked":
        return Found(shadow[1].startswith(("!", "*")), f"/etc/shadow: {name}")
    value = (shadow + [""] * 9)[SHADOW_FIELDS[attribute]]
    return Found(int(value) if value.lstrip("-").isdigit() else None, f"/etc/shadow: {name} ({attribute})")


def group(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell the members listed in a group; absent when there is no such group."""
    row = next((row for row in _rows(host, "group", 4) if row[0] == args["name"]), None)
    members = None if row is None else [name for name in row[3].split(",") if name]
    return Found(members, f"/etc/group: {args['name']}")


KINDS = {
    "account": Kind(
        account,
        "With `name`: one attribute of that account. Without: a list over all accounts.",
        (
            Arg("attribute", "what to tell", required=True, choices=LISTS + ABOUT_ONE),
            Arg("name", "account", default=None),
        ),
        rooted=True,
    ),
    "group": Kind(group, "The members of a group.", (Arg("name", "group", required=True),), rooted=True),
}
