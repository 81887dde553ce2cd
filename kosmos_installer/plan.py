"""From a verb and its options to what Ansible is asked to run. Pure: no process, no terminal, no clock."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from kosmos_installer.errors import ExitCode, KosmosError


class Verb(StrEnum):
    """The verbs that run a playbook."""

    PREFLIGHT = "preflight"
    PLAN = "plan"
    APPLY = "apply"
    VERIFY = "verify"
    RESET = "reset"


_PLAYBOOKS = {
    Verb.PREFLIGHT: "preflight.yml",
    Verb.PLAN: "site.yml",
    Verb.APPLY: "site.yml",
    Verb.VERIFY: "verify.yml",
    Verb.RESET: "reset.yml",
}


@dataclass(frozen=True)
class Options:
    """What the operator asked for. Flags that Ansible has too keep Ansible's name and meaning."""

    only: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    skip_tags: tuple[str, ...] = ()
    limit: str = ""
    check: bool = False
    diff: bool = False
    verbosity: int = 0
    ask_become_pass: bool = False
    clean: bool = False
    confirm: str = ""


@dataclass(frozen=True)
class RunSpec:
    """One Ansible run, complete but for secrets: those never enter a RunSpec, so it may be printed and stored.

    name: `kosmos.name` of the appliance.  extra_vars: public values only, they are visible in the process list.
    inventory_text: the inventory as the operator wrote it, so that the resume command is what they would type.
    """

    verb: Verb
    name: str
    playbook: Path
    inventory: Path
    inventory_text: str = ""
    options: Options = field(default_factory=Options)
    tags: tuple[str, ...] = ()
    extra_vars: tuple[tuple[str, str], ...] = ()

    def argv(self) -> list[str]:
        """The exact `ansible-playbook` command, the inventory first and the playbook last."""
        options = self.options
        argv = ["ansible-playbook", "-i", str(self.inventory)]
        argv += _flag("--limit", options.limit)
        argv += _flag("--tags", ",".join(self.tags))
        argv += _flag("--skip-tags", ",".join(options.skip_tags))
        for key, value in self.extra_vars:
            argv += ["-e", f"{key}={value}"]
        argv += ["--check"] if self.check else []
        argv += ["--diff"] if self.diff else []
        argv += [f"-{'v' * options.verbosity}"] if options.verbosity else []
        argv += ["--ask-become-pass"] if options.ask_become_pass else []
        return [*argv, str(self.playbook)]

    def list_tasks_argv(self) -> list[str]:
        """The command that names the tasks which `argv` would run, without touching any host."""
        quiet = replace(self, options=replace(self.options, verbosity=0, ask_become_pass=False))
        return [*quiet.argv()[:-1], "--list-tasks", str(self.playbook)]

    @property
    def check(self) -> bool:
        """Whether Ansible may change nothing."""
        return self.options.check or self.verb is Verb.PLAN

    @property
    def diff(self) -> bool:
        """Whether modules report what they change, line by line."""
        return self.options.diff or self.verb is Verb.PLAN

    def command(self, verb: Verb | None = None, *, changing: bool = False) -> str:
        """The `kosmos-install` command line that asks for the same again.

        verb: another verb with the same target and selection.  changing: without `--check` and `--diff`.
        """
        options, target = self.options, verb or self.verb
        argv = ["kosmos-install", target.value]
        argv += _flag("-i", self.inventory_text)
        for value in options.only:
            argv += ["--only", value]
        argv += _flag("--tags", ",".join(options.tags))
        argv += _flag("--skip-tags", ",".join(options.skip_tags))
        argv += _flag("--limit", options.limit)
        argv += ["--check"] if options.check and not changing else []
        argv += ["--diff"] if options.diff and not changing else []
        argv += ["--clean"] if options.clean and target is Verb.VERIFY else []
        argv += ["--confirm", options.confirm] if target is Verb.RESET else []
        argv += ["--ask-become-pass"] if options.ask_become_pass else []
        return shlex.join(argv)

    def data(self) -> dict[str, Any]:
        """For spec.json."""
        return {
            **asdict(self),
            "playbook": str(self.playbook),
            "inventory": str(self.inventory),
            "argv": self.argv(),
            "command": self.command(),
        }


@dataclass(frozen=True)
class RoleMap:
    """The roles by layer, as `ls roles` shows them."""

    roles: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path) -> RoleMap:
        """Read the names of the roles in `folder`: every folder with tasks in it, sorted."""
        return cls(tuple(sorted(path.parent.parent.name for path in folder.glob("*/tasks/main.yml"))))

    @property
    def layers(self) -> tuple[str, ...]:
        """Layer names, sorted."""
        return tuple(sorted({layer_of(role) for role in self.roles}))

    def tags(self, only: Sequence[str]) -> tuple[str, ...]:
        """The tags for `--only LAYER|ROLE`, checked: a tag that matches nothing would run nothing, and say ok.

        Raises KosmosError (usage) for a name that is neither a layer nor a role.
        """
        for value in only:
            if value not in self.layers and value not in self.roles:
                raise KosmosError(
                    f"There is no layer or role named {value!r}",
                    why=_nearest(value, [*self.layers, *self.roles]),
                    cure=f"Layers: {', '.join(self.layers)}. Roles: {', '.join(self.roles)}.",
                    exit_code=ExitCode.USAGE,
                )
        return tuple(dict.fromkeys(only))


def layer_of(role: str) -> str:
    """`host_base` belongs to layer `host`; a role of a collection may come with its full name."""
    return role.rpartition(".")[2].partition("_")[0]


def make_spec(
    verb: Verb,
    options: Options,
    *,
    name: str,
    playbooks: Path,
    inventory: Path,
    roles: RoleMap,
    inventory_text: str = "",
) -> RunSpec:
    """Check the options against each other and against the appliance, and build the RunSpec.

    Raises KosmosError (usage) for an unknown --only, for --only with --tags, and for a reset without its name.
    """
    if options.only and options.tags:
        raise KosmosError(
            "--only and --tags cannot be given together",
            why="--only chooses the tags of a layer or role itself.",
            cure="Give one of them.",
            exit_code=ExitCode.USAGE,
        )
    if verb is Verb.RESET and options.confirm != name:
        found = f"--confirm says {options.confirm!r}" if options.confirm else "--confirm is missing"
        raise KosmosError(
            f"Nothing was reset: {found}, and this appliance is {name!r}",
            why="A reset removes the appliance from its host, so it asks for the name in kosmos.name.",
            cure=f"If that is what you want: kosmos-install reset --confirm {shlex.quote(name)}",
            exit_code=ExitCode.USAGE,
        )
    extra: list[tuple[str, str]] = []
    if verb is Verb.VERIFY and options.clean:
        extra.append(("kosmos_verify_phase", "clean"))
    if verb is Verb.RESET:
        extra.append(("kosmos_reset_confirm", name))
    return RunSpec(
        verb=verb,
        name=name,
        playbook=playbooks / _PLAYBOOKS[verb],
        inventory=inventory,
        inventory_text=inventory_text,
        options=options,
        tags=roles.tags(options.only) or options.tags,
        extra_vars=tuple(extra),
    )


def _flag(name: str, value: str) -> list[str]:
    return [name, value] if value else []


def _nearest(value: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(value, known, n=1)
    return f"Did you mean {near[0]!r}?" if near else ""
