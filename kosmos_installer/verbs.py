"""The verbs that touch a host: preflight, plan, apply, verify, status, reset, support-bundle. Only parsing is here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kosmos_installer.plan import Options, Verb

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
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="LAYER|ROLE", help="Only this layer or role; may be repeated.", show_default=False),
]
Tags = Annotated[str, typer.Option("-t", "--tags", help="As in ansible-playbook.", show_default=False)]
SkipTags = Annotated[str, typer.Option("--skip-tags", help="As in ansible-playbook.", show_default=False)]
Limit = Annotated[str, typer.Option("-l", "--limit", help="As in ansible-playbook.", show_default=False)]
Check = Annotated[bool, typer.Option("-C", "--check", help="As in ansible-playbook: change nothing.")]
Diff = Annotated[bool, typer.Option("-D", "--diff", help="Show changed files line by line.")]
Verbose = Annotated[
    int, typer.Option("-v", "--verbose", count=True, help="As in ansible-playbook, for the log; up to -vvvv.")
]
BecomePass = Annotated[
    bool, typer.Option("-K", "--ask-become-pass", help="Ask for the sudo password; it is never stored.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document at the end instead of text.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing unless something goes wrong.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    for verb in (preflight, plan, apply, verify, status, reset):
        app.command(verb.__name__)(verb)
    app.command("support-bundle")(support_bundle)


def preflight(
    *,
    inventory: InventoryName = "",
    limit: Limit = "",
    verbose: Verbose = 0,
    ask_become_pass: BecomePass = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Ask the host whether it is fit for the appliance. Changes nothing; names every finding with its cure."""
    options = Options(limit=limit, verbosity=verbose, ask_become_pass=ask_become_pass)
    return _run(Verb.PREFLIGHT, options, inventory, as_json=as_json, quiet=quiet)


def plan(
    *,
    inventory: InventoryName = "",
    only: Only = None,
    tags: Tags = "",
    skip_tags: SkipTags = "",
    limit: Limit = "",
    diff: Diff = False,
    verbose: Verbose = 0,
    ask_become_pass: BecomePass = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Show what `apply` would change, role by role. Changes nothing."""
    options = Options(
        only=tuple(only or ()),
        tags=_words(tags),
        skip_tags=_words(skip_tags),
        limit=limit,
        diff=diff,
        verbosity=verbose,
        ask_become_pass=ask_become_pass,
    )
    return _run(Verb.PLAN, options, inventory, as_json=as_json, quiet=quiet)


def apply(
    *,
    inventory: InventoryName = "",
    only: Only = None,
    tags: Tags = "",
    skip_tags: SkipTags = "",
    limit: Limit = "",
    check: Check = False,
    diff: Diff = False,
    verbose: Verbose = 0,
    ask_become_pass: BecomePass = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Make the host what the appliance file says. May be repeated at any time, and after any failure."""
    options = Options(
        only=tuple(only or ()),
        tags=_words(tags),
        skip_tags=_words(skip_tags),
        limit=limit,
        check=check,
        diff=diff,
        verbosity=verbose,
        ask_become_pass=ask_become_pass,
    )
    return _run(Verb.APPLY, options, inventory, as_json=as_json, quiet=quiet)


def verify(
    *,
    inventory: InventoryName = "",
    only: Only = None,
    limit: Limit = "",
    clean: Annotated[bool, typer.Option("--clean", help="Prove instead that a reset left nothing behind.")] = False,
    verbose: Verbose = 0,
    ask_become_pass: BecomePass = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Prove on the live host that it is as it should be; write a report with the evidence. Changes nothing."""
    options = Options(
        only=tuple(only or ()), limit=limit, verbosity=verbose, ask_become_pass=ask_become_pass, clean=clean
    )
    return _run(Verb.VERIFY, options, inventory, as_json=as_json, quiet=quiet)


def reset(
    *,
    inventory: InventoryName = "",
    confirm: Annotated[
        str, typer.Option("--confirm", metavar="NAME", help="kosmos.name of the appliance.", show_default=False)
    ] = "",
    only: Only = None,
    limit: Limit = "",
    verbose: Verbose = 0,
    ask_become_pass: BecomePass = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Take from the host everything that `apply` brought. Asks for the appliance's name; SSH access stays."""
    options = Options(
        only=tuple(only or ()), limit=limit, verbosity=verbose, ask_become_pass=ask_become_pass, confirm=confirm
    )
    return _run(Verb.RESET, options, inventory, as_json=as_json, quiet=quiet)


def status(*, inventory: InventoryName = "", as_json: Json = False) -> int:
    """Show whether the host answers, how the last runs ended, and what the last verify found."""
    from kosmos_installer import commands  # noqa: PLC0415 - pydantic and ansible are slow to import

    return commands.status(inventory, as_json=as_json)


def support_bundle(
    *,
    inventory: InventoryName = "",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The archive to write.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> int:
    """Pack records, configuration, versions and host facts into one archive, without secrets."""
    from kosmos_installer import commands  # noqa: PLC0415 - pydantic and ansible are slow to import

    return commands.support_bundle(inventory, output, as_json=as_json)


def _run(verb: Verb, options: Options, given: str, *, as_json: bool, quiet: bool) -> int:
    from kosmos_installer import commands  # noqa: PLC0415 - pydantic and ansible are slow to import

    return commands.run(verb, options, given, as_json=as_json, quiet=quiet)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
