"""The hosts of an inventory and where they really are, and the secrets that the inventory holds.

Ansible itself reads the inventory (`ansible-inventory --list`); SSH itself resolves aliases (`ssh -G`).
"""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos_installer.errors import ExitCode, KosmosError
from kosmos_installer.redact import secret_values

GROUP = "appliance"
_SECONDS = 30

# The one lookup that a connection variable of ours uses; see inventories/lab/hosts.yml.
_ENV_LOOKUP = re.compile(
    r"lookup\(\s*'(?:ansible\.builtin\.)?env'\s*,\s*'(\w+)'\s*(?:,\s*default=(.+))?\)\s*$", re.DOTALL
)

Run = Callable[[list[str]], str]


@dataclass(frozen=True)
class Target:
    """One host. address and port are where TCP connections go; address is `local` when there is no connection."""

    name: str
    address: str
    port: int = 22

    @property
    def key(self) -> str:
        """The same for every name of the same host."""
        return self.address if self.address == "local" else f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Targets:
    """The hosts of group `appliance`, and every secret value that the inventory spells out."""

    hosts: tuple[Target, ...]
    secrets: tuple[str, ...]


def read(inventory: Path, environment: Mapping[str, str]) -> Targets:
    """Ask Ansible for the inventory and SSH for the addresses.

    Raises KosmosError (usage) for an inventory that Ansible cannot read.
    """

    def run(argv: list[str]) -> str:
        return _output(argv, environment)

    try:
        listing = json.loads(run(["ansible-inventory", "-i", str(inventory), "--list"]))
    except (ValueError, OSError, subprocess.SubprocessError) as error:
        raise KosmosError(
            "The inventory cannot be read",
            where=str(inventory),
            why=(getattr(error, "stderr", "") or str(error)).strip(),
            cure=f"See: ansible-inventory -i {shlex.quote(str(inventory))} --list",
            exit_code=ExitCode.USAGE,
        ) from error
    return targets_of(listing, environment, run, _resolve)


def targets_of(
    listing: Mapping[str, Any], environment: Mapping[str, str], run: Run, resolve: Callable[[str, int], str]
) -> Targets:
    """The targets in the output of `ansible-inventory --list`. run: executes `ssh -G`.  resolve: name to address."""
    variables: Mapping[str, Any] = listing.get("_meta", {}).get("hostvars", {})
    names = _members(listing, GROUP)
    hosts = tuple(_target(name, variables.get(name, {}), environment, run, resolve) for name in names)
    return Targets(hosts, tuple(dict.fromkeys(secret_values(variables))))


def _members(listing: Mapping[str, Any], group: str) -> list[str]:
    entry = listing.get(group, {})
    below = [name for child in entry.get("children", []) for name in _members(listing, child)]
    return list(dict.fromkeys([*entry.get("hosts", []), *below]))


def _target(
    name: str,
    variables: Mapping[str, Any],
    environment: Mapping[str, str],
    run: Run,
    resolve: Callable[[str, int], str],
) -> Target:
    text = {key: _rendered(str(value), environment) for key, value in variables.items() if key.startswith("ansible_")}
    if text.get("ansible_connection", "").rpartition(".")[2] == "local":
        return Target(name, "local")
    argv = ["ssh", "-G"]
    for key in ("ansible_ssh_common_args", "ansible_ssh_extra_args"):
        argv += shlex.split(text.get(key, ""))
    argv += ["-p", text["ansible_port"]] if "ansible_port" in text else []
    asked = text.get("ansible_host", name)
    try:
        lines = [line.partition(" ") for line in run([*argv, asked]).splitlines()]
        options = {key: value for key, _, value in lines}
        host, port = options["hostname"], int(options["port"])
    except (OSError, subprocess.SubprocessError, KeyError, ValueError):
        host, port = asked, int(text.get("ansible_port", "22"))
    return Target(name, resolve(host, port), port)


def _rendered(text: str, environment: Mapping[str, str]) -> str:
    """Jinja is Ansible's business; only the environment lookup is followed here. Anything else stays as it is,
    which still gives one lock per inventory name."""
    return re.sub(r"\{\{(.*?)\}\}", lambda match: _value(match.group(1).strip(), environment, match.group(0)), text)


def _value(expression: str, environment: Mapping[str, str], unknown: str) -> str:
    joined = [part.strip() for part in re.split(r"\s~\s(?![^()]*\))", expression)]
    if len(joined) > 1:
        return "".join(_value(part, environment, unknown) for part in joined)
    if literal := re.fullmatch(r"'([^']*)'", expression):
        return literal.group(1)
    if found := _ENV_LOOKUP.match(expression):
        value = environment.get(found.group(1), "")
        return value or _value(found.group(2).strip(), environment, unknown) if found.group(2) else value
    return unknown


def _resolve(host: str, port: int) -> str:
    with suppress(OSError):
        return str(sorted(info[4][0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0])
    return host


def _output(argv: list[str], environment: Mapping[str, str]) -> str:
    return subprocess.run(
        argv,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=True,
        timeout=_SECONDS,
        stdin=subprocess.DEVNULL,
    ).stdout
