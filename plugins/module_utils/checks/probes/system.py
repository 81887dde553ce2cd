"""Probes over the running system: units, packages, commands, sshd, the package manager's state."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import (
    Arg,
    Completed,
    Found,
    Host,
    Kind,
    ProbeError,
)
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.probes.files import pick, settings

LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock")


def _answer(done: Completed, argv: list[str], wanted: tuple[int, ...] = (0,)) -> str:
    if done.rc not in wanted:
        what = done.stderr.strip().splitlines()[-1:] or done.stdout.strip().splitlines()[-1:] or ["no message"]
        raise ProbeError(f"`{' '.join(argv)}` ended with {done.rc}: {what[0]}")
    return done.stdout


def unit(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell a property of a systemd unit; a unit that is not there is absent."""
    name, wanted = str(args["name"]), str(args["property"])
    argv = ["systemctl", "show", "--no-pager", name]
    rows = (line.partition("=") for line in _answer(host.command(argv), argv).splitlines())
    properties = {key: value for key, _, value in rows}
    evidence = f"systemctl show {name}: {wanted}"
    if properties.get("LoadState") == "not-found" and wanted != "LoadState":
        return Found(None, f"{evidence} (no such unit)")
    return Found(properties.get(wanted), evidence)


def package(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell the installed version of a Debian package; absent when it is not fully installed."""
    version = host.once("dpkg", lambda: _installed(host)).get(str(args["name"]))
    return Found(version, f"/var/lib/dpkg/status: {args['name']}")


def _stanzas(host: Host) -> list[dict[str, str]]:
    text = host.data("/var/lib/dpkg/status", limit=64 * 1024 * 1024) or b""
    return [
        dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and not line.startswith(" "))
        for stanza in text.decode("utf-8", "replace").split("\n\n")
    ]


def _installed(host: Host) -> dict[str, str]:
    rows = host.once("dpkg-stanzas", lambda: _stanzas(host))
    good = (row for row in rows if row.get("Status", "").split()[-1:] == ["installed"])
    return {row["Package"]: row.get("Version", "") for row in good}


def packages(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell the packages that dpkg left half done, or those of the list that are missing."""
    rows = host.once("dpkg-stanzas", lambda: _stanzas(host))
    if args["attribute"] == "half_done":
        settled = {"installed", "config-files", "not-installed"}
        broken = [row["Package"] for row in rows if row.get("Status", "x").split()[-1] not in settled]
        return Found(sorted(broken), "/var/lib/dpkg/status")
    known = host.once("dpkg", lambda: _installed(host))
    return Found(sorted(name for name in args["names"] if name not in known), "/var/lib/dpkg/status")


def command(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell what a command says; a program that is not installed is absent."""
    argv = [str(word) for word in args["argv"]]
    done = host.command(argv, float(args["timeout_seconds"]))
    evidence = f"`{' '.join(argv)}` (exit {done.rc})"
    if done.rc is None:
        return Found(None, f"{argv[0]}: not installed")
    if args["attribute"] == "rc":
        said = (done.stderr or done.stdout).strip().splitlines()[-1:]
        return Found(done.rc, ": ".join([evidence, *said]))
    if args["attribute"] == "stderr":
        return Found(done.stderr.strip(), evidence)
    if args["attribute"] == "lines":
        return Found(settings(done.stdout, ""), evidence)
    if args["attribute"] == "json":
        try:
            return Found(pick(json.loads(_answer(done, argv)), str(args["pick"])), f"{evidence}: {args['pick']}")
        except ValueError as error:
            raise ProbeError(f"{evidence} did not answer in JSON: {error}") from error
    return Found(done.stdout.strip(), evidence)


def sshd(host: Host, args: Mapping[str, Any]) -> Found:
    """Tell the setting in force of the SSH server: text, or a list when the keyword repeats."""
    argv = ["sshd", "-T"] + (["-C", str(args["match"])] if args["match"] else [])
    done = host.command(argv)
    if done.rc is None:
        return Found(None, "sshd: not installed")
    rows = (line.split(None, 1) for line in _answer(done, argv).splitlines() if line)
    values = [row[1] if len(row) > 1 else "" for row in rows if row[0].lower() == str(args["keyword"]).lower()]
    value: Any = values[0] if len(values) == 1 else values or None
    return Found(value, f"{' '.join(argv)}: {args['keyword']}")


def apt_lock(host: Host, args: Mapping[str, Any]) -> Found:  # noqa: ARG001 - every probe has this shape
    """Tell which process holds a lock of apt or dpkg: "name (pid N) holds PATH", or absent."""
    rows = [line.split() for line in (host.text("/proc/locks") or "").splitlines()]
    for path in LOCKS:
        try:
            status = host.path(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for row in rows:
            if len(row) > 5 and row[1] != "->" and row[5] == device:
                name = (host.text(f"/proc/{row[4]}/comm") or "a process").strip()
                return Found(f"{name} (pid {row[4]}) holds {path}", "/proc/locks")
    return Found(None, f"/proc/locks: nobody holds {', '.join(LOCKS)}")


NAME = Arg("name", "name", required=True)
KINDS = {
    "unit": Kind(
        unit,
        "A property of a systemd unit (absent when there is no such unit).",
        (NAME, Arg("property", "as in systemctl show", default="ActiveState")),
        rooted=False,
    ),
    "package": Kind(package, "The installed version of a Debian package.", (NAME,), rooted=True),
    "packages": Kind(
        packages,
        "A list of package names: those left half done, or those of `names` that are not installed.",
        (
            Arg("attribute", "what to tell", required=True, choices=("half_done", "missing")),
            Arg("names", "packages that should be there (for missing)", type="list", default=[]),
        ),
        rooted=True,
    ),
    "command": Kind(
        command,
        "What a command answers. No shell, no standard input, C locale. Equal commands of a batch run once.",
        (
            Arg("argv", "program and arguments", type="list", required=True),
            Arg("attribute", "what to tell", default="stdout", choices=("stdout", "stderr", "rc", "lines", "json")),
            Arg("pick", "dotted path into the answer (for json)", default=""),
            Arg("timeout_seconds", "longest run", type="float", default=30),
        ),
        rooted=False,
    ),
    "sshd": Kind(
        sshd,
        "A setting in force of the SSH server (sshd -T); a list when the keyword repeats.",
        (
            Arg("keyword", "any case", required=True),
            Arg("match", "connection for Match blocks: user=x,host=y,addr=z", default=""),
        ),
        rooted=False,
    ),
    "apt_lock": Kind(apt_lock, "Who holds a lock of apt or dpkg; absent when nobody.", (), rooted=True),
}
