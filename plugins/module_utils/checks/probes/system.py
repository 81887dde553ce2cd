"""Probes over the running system: units, commands, the SSH server."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.kosmos.appliance.plugins.module_utils.checks.model import (
    Arg,
    Found,
    Host,
    Kind,
    ProbeError,
)
from ansible_collections.kosmos.appliance.plugins.module_utils.checks.probes.files import pick, settings
from ansible_collections.kosmos.appliance.plugins.module_utils.host.system import Completed


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
        lines = settings(done.stdout, "")
        return Found([line for line in lines if re.search(str(args["only"]), line)], evidence)
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


NAME = Arg("name", "name", required=True)
KINDS = {
    "unit": Kind(
        unit,
        "A property of a systemd unit (absent when there is no such unit).",
        (NAME, Arg("property", "as in systemctl show", default="ActiveState")),
        rooted=False,
    ),
    "command": Kind(
        command,
        "What a command answers. No shell, no standard input, C locale. Equal commands of a batch run once.",
        (
            Arg("argv", "program and arguments", type="list", required=True),
            Arg("attribute", "what to tell", default="stdout", choices=("stdout", "stderr", "rc", "lines", "json")),
            Arg("only", "regular expression that a line must hold (for lines)", default=""),
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
}
