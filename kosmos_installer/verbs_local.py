"""The verbs that need no host: init, validate, schema, checks, version."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kosmos_installer import __version__, console, paths
from kosmos_installer.errors import FileError
from kosmos_installer.inventory import select

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
InventoryName = Annotated[
    str,
    typer.Option(
        "-i",
        "--inventory",
        metavar="FOLDER",
        help="The appliance: a folder such as inventories/NAME, or its name. Needed only if there are several.",
        show_default=False,
    ),
]

checks_app = typer.Typer(no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    app.command("init")(init)
    app.command("validate")(validate)
    app.command("schema")(schema)
    app.add_typer(checks_app, name="checks", help="What is checked on a host, and the cure for each finding.")
    app.command("version")(version)


def _answer(text: str) -> Any:
    return typer.Option(help=text, show_default=False)


def init(
    *,
    name: Annotated[str, _answer("Name of the appliance. [default: kosmos-1]")] = "",
    profile: Annotated[str, _answer("appliance or lab. [default: appliance]")] = "",
    host: Annotated[str, _answer("Address of the host, or localhost.")] = "",
    user: Annotated[str, _answer("Account on the host, with SSH key and sudo. [default: operator]")] = "",
    hostname: Annotated[str, _answer("Host name without domain. [default: the name]")] = "",
    domain: Annotated[str, _answer("DNS domain. [default: kosmos.internal]")] = "",
    timezone: Annotated[str, _answer("Time zone. [default: Etc/UTC]")] = "",
    ntp: Annotated[str, _answer("NTP servers, separated by commas, or offline.")] = "",
    management_interface: Annotated[str, _answer("Interface of the management network.")] = "",
    allowed_cidrs: Annotated[str, _answer("Networks that may open SSH, separated by commas.")] = "",
    trunk: Annotated[str, _answer("Interface that carries the VLANs.")] = "",
    data_disk: Annotated[str, _answer("The empty data disk, /dev/disk/by-id/...")] = "",
    as_json: Json = False,
) -> None:
    """Write inventories/NAME in this folder: ask what flags did not say. Never overwrites."""
    given = {
        "name": name,
        "profile": profile,
        "host": host,
        "user": user,
        "hostname": hostname,
        "domain": domain,
        "timezone": timezone,
        "ntp": ntp,
        "management_interface": management_interface,
        "allowed_cidrs": allowed_cidrs,
        "trunk": trunk,
        "data_disk": data_disk,
    }
    from kosmos_installer import initialise  # noqa: PLC0415 - pydantic is slow to import

    inventories = Path("inventories")
    if name:
        initialise.refuse_existing(name, inventories)
    if initialise.missing(given) and sys.stdin.isatty() and not as_json:
        answers = initialise.ask(given, inventories, _prompt, console.say)
    else:
        answers = initialise.complete(given)
    folder = initialise.create(answers, inventories)
    if as_json:
        console.say_json({"inventory": str(folder), "next": f"kosmos-install preflight -i {folder}"})
        return
    console.say(f"Written: {folder}/group_vars/all/kosmos.yml and {folder}/hosts.yml")
    console.say(f"Next:    kosmos-install preflight -i {folder}")


def _prompt(text: str, default: str) -> str:
    return str(typer.prompt(text, default=default or None))


def validate(inventory: InventoryName = "", as_json: Json = False) -> None:
    """Judge the appliance file and hosts.yml; every problem at once. Touches no host."""
    chosen = select(inventory or None, Path(), paths.ansible_tree().inventories)
    from kosmos_installer import config, hosts  # noqa: PLC0415 - pydantic is slow to import

    wrong: list[FileError] = []
    try:
        appliance = config.load(chosen.appliance_file)
    except FileError as error:
        wrong.append(error)
    try:
        names = hosts.names(chosen.hosts_file)
    except FileError as error:
        wrong.append(error)
    if wrong:
        raise wrong[0].joined(wrong[1:])
    if as_json:
        settings = appliance.model_dump(mode="json", by_alias=True)
        console.say_json({"valid": True, "file": str(chosen.appliance_file), "hosts": names, "kosmos": settings})
        return
    zones = ", ".join(f"{zone.name} (VLAN {zone.vlan}, {zone.cidr})" for zone in appliance.network.zones)
    console.say(f"{chosen.appliance_file} is valid.")
    console.say(f"  appliance: {appliance.name}, profile {appliance.profile}")
    console.say(f"  host:      {appliance.hostname}.{appliance.domain} ({', '.join(names)} in hosts.yml)")
    console.say(f"  zones:     {zones}")
    console.say(f"Next: kosmos-install preflight -i {inventory or chosen.folder}")


def schema(as_json: Json = False) -> None:
    """Print the JSON schema of the appliance file, for editors. It is JSON with and without --json."""
    del as_json
    from kosmos_installer import schema as published  # noqa: PLC0415 - pydantic is slow to import

    console.say(published.text().removesuffix("\n"))


@checks_app.command("list")
def checks_list(
    role: Annotated[str, typer.Option(help="Only the checks of this role.", show_default=False)] = "",
    phase: Annotated[str, typer.Option(help="preflight, verify or clean.", show_default=False)] = "",
    severity: Annotated[str, typer.Option(help="At least this: low, medium, high, critical.", show_default=False)] = "",
    as_json: Json = False,
) -> None:
    """List the checks of all roles."""
    from kosmos_installer import catalogue  # noqa: PLC0415 - yaml is slow to import

    chosen = catalogue.choose(catalogue.load(paths.ansible_tree().roles), role, phase, severity)
    if as_json:
        console.say_json([check.data() for check in chosen])
        return
    rows = [(check.id, check.role, check.phase, check.severity, check.title) for check in chosen]
    console.say(console.table(("ID", "ROLE", "PHASE", "SEVERITY", "TITLE"), rows))
    console.say(f"\n{len(rows)} checks. One of them in full: kosmos-install checks show ID")


@checks_app.command("show")
def checks_show(
    check_id: Annotated[str, typer.Argument(metavar="ID", help="As `checks list` names it.")], as_json: Json = False
) -> None:
    """Show one check: what is probed, what is needed, the cure, and the sources."""
    from kosmos_installer import catalogue, yaml_file  # noqa: PLC0415 - yaml is slow to import

    check = catalogue.get(catalogue.load(paths.ansible_tree().roles), check_id)
    if as_json:
        console.say_json(check.data())
        return
    rows = [
        ("title", check.title),
        ("role", f"{check.role}, phase {check.phase}, severity {check.severity}"),
        ("probe", yaml_file.shown(check.probe, 200)),
        ("needed", yaml_file.shown(check.needed, 200)),
        ("only if", check.when),
        ("cure", check.cure),
        ("sources", ", ".join(check.refs)),
        ("declared", f"{check.file}:{check.line}"),
    ]
    console.say(check.id)
    console.say("\n".join(console.wrapped(f"  {label + ':':<10}", value) for label, value in rows if value))


def version(as_json: Json = False) -> None:
    """Show what is inside: this program, Ansible, Python, and where the roles lie."""
    import platform  # noqa: PLC0415 - slow to import, as is the next
    from importlib.metadata import version as installed_version  # noqa: PLC0415

    tree = paths.ansible_tree()
    facts = {
        "kosmos-install": __version__,
        "ansible-core": installed_version("ansible-core"),
        "ansible-runner": installed_version("ansible-runner"),
        "python": platform.python_version(),
        "collection": str(tree.root),
        "origin": tree.origin,
    }
    if as_json:
        console.say_json(facts)
        return
    console.say("\n".join(f"{label + ':':<16}{value}" for label, value in facts.items()))
