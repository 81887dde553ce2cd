"""What the verbs that touch a host do: find the appliance, check the question, run it, answer with an exit code."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from getpass import getpass
from pathlib import Path

from kosmos_installer import config, console, situation, support, targets
from kosmos_installer.errors import ExitCode
from kosmos_installer.inventory import Inventory, select
from kosmos_installer.operation import Operation
from kosmos_installer.paths import ansible_tree, state_dir
from kosmos_installer.plan import Options, RoleMap, Verb, make_spec
from kosmos_installer.redact import Redactor, secret_values
from kosmos_installer.view import Mode, make_view


def run(verb: Verb, options: Options, given: str, *, as_json: bool, quiet: bool) -> int:
    """Run the playbook of a verb. given: the inventory as the operator wrote it, or empty."""
    tree = ansible_tree()
    chosen = _select(given)
    appliance = config.load(chosen.appliance_file)
    spec = make_spec(
        verb,
        options,
        name=appliance.name,
        playbooks=tree.playbooks,
        inventory=chosen.folder.resolve(),
        roles=RoleMap.of(tree.roles),
        inventory_text=given,
    )
    password = getpass("BECOME password: ") if options.ask_become_pass else ""
    environment = tree.environment(os.environ)
    mode = Mode.JSON if as_json else Mode.QUIET if quiet else Mode.AUTO
    operation = Operation(
        spec=spec,
        targets=targets.read(spec.inventory, environment),
        environment=environment,
        cwd=tree.root,
        state_dir=state_dir(),
        view=make_view(mode, sys.stdout, sys.stderr, show_diff=options.diff),
        become_password=password,
    )
    return int(operation.execute().exit_code)


def status(given: str, *, as_json: bool) -> int:
    """Tell how things stand; exit 4 when a host does not answer."""
    chosen = _select(given)
    appliance = config.load(chosen.appliance_file)
    found = targets.read(chosen.folder.resolve(), ansible_tree().environment(os.environ))
    report = situation.look(appliance.name, found.hosts, state_dir() / "runs")
    if as_json:
        console.say_json(report.data())
    else:
        console.say(report.text(datetime.now(UTC)))
    return int(ExitCode.OK if report.reachable else ExitCode.UNREACHABLE)


def support_bundle(given: str, output: Path | None, *, as_json: bool) -> int:
    """Write the support bundle. An invalid appliance file is no reason to refuse: it may be what needs support."""
    chosen = _select(given)
    environment = ansible_tree().environment(os.environ)
    found = targets.read(chosen.folder.resolve(), environment)
    redactor = Redactor.knowing([*found.secrets, *secret_values(dict(os.environ))])
    now = datetime.now(UTC)
    target = output or Path.cwd() / f"kosmos-support-{chosen.name}-{now:%Y%m%dT%H%M%SZ}.tar.gz"
    source = support.Source(chosen.name, state_dir() / "runs", chosen.folder.resolve(), environment, redactor)
    names = support.write(source, target, now)
    if as_json:
        console.say_json({"bundle": target, "files": names})
    else:
        console.say(f"{target}\n{len(names)} files, secrets masked. Look through it before you send it.")
    return int(ExitCode.OK)


def _select(given: str) -> Inventory:
    return select(given or None, Path.cwd(), ansible_tree().inventories)
