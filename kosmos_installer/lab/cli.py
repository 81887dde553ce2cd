"""The verbs of `kosmos-install lab`. Each parses, calls `Lab`, prints; failures become text in the main program."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from kosmos_installer import console
from kosmos_installer.errors import ExitCode, KosmosError
from kosmos_installer.paths import ansible_tree

from . import inventory, packages
from .lab import Lab
from .machine import Spec
from .progress import Progress, Silence

app = typer.Typer(
    help="The same appliance in a virtual machine with UEFI and a TPM 2.0.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str, typer.Option("--name", help="Which lab; several can run side by side.")]
Json = Annotated[bool, typer.Option("--json", help="Print data as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress lines.")]
Root = Annotated[bool, typer.Option("--root", help="As root, by sudo.")]
_WORDS = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def _lab(name: str, *, quiet: bool = False) -> Lab:

    # `kill PID` ends a build like Ctrl-C does: what it has started is ended, what it has half built is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return Lab(name, progress=Silence() if quiet else Progress())


def _tell(lab: Lab, *, as_json: bool) -> None:
    data = lab.status()
    if as_json:
        console.say_json(data)
        return
    rows = [(key, _plain(value)) for key, value in data.items()]
    console.say("\n".join(f"{key.replace('_', ' '):<12} {text}" for key, text in rows))


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={_plain(one)}" for key, one in value.items())
    if isinstance(value, list):
        return "; ".join(_plain(one) for one in value)
    return str(value)


@app.command()
def up(
    name: Name = "lab",
    cold: Annotated[
        bool, typer.Option("--cold", help="Boot with a TPM of its own, not from the saved machine.")
    ] = False,
    memory: Annotated[int, typer.Option(min=1024, help="Memory in MiB.")] = Spec().memory_mib,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Start a fresh Debian 13 machine; what it is made from is built the first time and kept in the cache."""

    packages.require()
    lab = _lab(name, quiet=quiet)
    lab.up(from_golden=not cold, spec=Spec(memory_mib=memory))
    made = inventory.ensure(Path.cwd(), name, ansible_tree().inventories)
    if made is not None:
        console.warn(f"Inventory written: {made}")
    _tell(lab, as_json=as_json)


@app.command(context_settings=_WORDS)
def run(
    words: Annotated[list[str], typer.Argument(metavar="COMMAND...")], name: Name = "lab", root: Root = False
) -> None:
    """Run a command in the machine; its output, its exit code. One word is a whole shell line."""
    lab = _lab(name)
    lab.require_running()
    lab.ssh.become(*words, root=root)


@app.command()
def ssh(name: Name = "lab") -> None:
    """Log in to the machine."""
    lab = _lab(name)
    lab.require_running()
    lab.ssh.become()


@app.command()
def reset(name: Name = "lab", as_json: Json = False, quiet: Quiet = False) -> None:
    """Return to the fresh machine in seconds."""

    packages.require()
    lab = _lab(name, quiet=quiet)
    if lab.condition() == "absent":
        raise KosmosError(
            f"There is no lab '{name}'", cure=f"kosmos-install lab up --name {name}", exit_code=ExitCode.USAGE
        )
    lab.reset()
    _tell(lab, as_json=as_json)


@app.command()
def status(name: Name = "lab", as_json: Json = False) -> None:
    """Show whether the machine runs, how to reach it, and what belongs to it."""
    _tell(_lab(name), as_json=as_json)


@app.command()
def down(
    name: Name = "lab",
    keep: Annotated[bool, typer.Option("--keep", help="Leave disks and snapshots; only end the processes.")] = False,
) -> None:
    """End everything that `up` started, and remove the lab; the cache stays."""
    there = _lab(name).down(keep=keep)
    console.say(f"The lab '{name}' is {'stopped' if keep else 'removed'}" if there else f"There is no lab '{name}'")


@app.command()
def prune() -> None:
    """Remove cached disks and machines that no lab uses and `up` would not use again."""
    packages.require()
    gone = _lab("lab").workshop.prune()
    console.say("\n".join(f"Removed {one}" for one in gone) or "Nothing to remove")


@app.command(name="packages")
def list_packages(as_json: Json = False) -> None:
    """Print the Debian packages that this machine lacks for the lab, one a line; nothing when it has all."""

    names = packages.missing()
    if as_json:
        console.say_json({"missing": names, "command": packages.install_command(names) if names else ""})
    elif names:
        console.say("\n".join(names))
