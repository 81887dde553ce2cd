"""The entry point: which verbs there are, and how every failure becomes clear text and an exit code.

Modules that define verbs import only typer and the standard library at their top; what is heavy (pydantic, rich,
ansible) is imported by the verb that needs it, so `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import typer

from kosmos_installer import __version__, console, verbs, verbs_local
from kosmos_installer.errors import ExitCode, KosmosError
from kosmos_installer.lab import cli as lab
from kosmos_installer.paths import ensure_private, state_dir

PROGRAM = "kosmos-install"

app = typer.Typer(
    name=PROGRAM,
    help="Turn one box into an attested, zero-trust home for AI agents, and prove that it still is one.",
    epilog="Start with `kosmos-install init`, or try everything in a VM with `kosmos-install lab up`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        console.say(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version: bool = typer.Option(
        False, "--version", help="Show the version and exit.", is_eager=True, callback=_print_version
    ),
) -> None:
    """Carry the options that come before a verb."""


verbs_local.register(app)
verbs.register(app)
app.add_typer(lab.app, name="lab", help="The same appliance in a virtual machine with UEFI and a TPM 2.0.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; give back its exit code. No traceback ever reaches the terminal.

    argv: the arguments after the program's name; None means those of this process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    try:
        result = app(args=arguments, prog_name=PROGRAM, standalone_mode=False)
    except KosmosError as error:
        console.say_error(error, as_json=as_json)
        return int(error.exit_code)
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            return int(ExitCode.USAGE)  # it has printed the help by itself
        console.say_error(_usage_error(error), as_json=as_json)
        return int(ExitCode.USAGE)
    except (typer.Abort, KeyboardInterrupt):
        console.warn("Interrupted.")
        return int(ExitCode.INTERRUPTED)
    except Exception as error:
        console.say_error(_unexpected(error, arguments, datetime.now(UTC)), as_json=as_json)
        return int(ExitCode.FAILED)
    return result if isinstance(result, int) else int(ExitCode.OK)


def _usage_error(error: typer.TyperException) -> KosmosError:
    """A wrong option or argument, in the words that every other failure uses."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else PROGRAM
    return KosmosError(error.format_message(), where=command, cure=f"See: {command} --help", exit_code=ExitCode.USAGE)


def _unexpected(error: Exception, arguments: Sequence[str], now: datetime) -> KosmosError:
    """A fault of ours: keep the traceback in a private file and name the file."""
    import traceback  # noqa: PLC0415 - not needed for anything that goes well

    report = (
        f"kosmos-install {__version__}, Python {sys.version.split()[0]}, {now.isoformat(timespec='seconds')}\n"
        f"arguments: {' '.join(arguments)}\n\n" + "".join(traceback.format_exception(error))
    )
    return KosmosError(
        f"kosmos-install met a fault of its own: {type(error).__name__}: {error}",
        where=str(_keep_report(report, now)),
        why="This is not your mistake. The file above holds the details; nothing was sent anywhere.",
        cure="Try again; if it stays, report it with that file.",
        exit_code=ExitCode.FAILED,
    )


def _keep_report(report: str, now: datetime) -> Path:
    """Write `report` under the state folder, or in the temporary folder when that cannot be written."""
    import tempfile  # noqa: PLC0415 - not needed for anything that goes well

    name = f"fault-{now:%Y%m%dT%H%M%SZ}-"
    try:
        folder = ensure_private(state_dir() / "faults")
        handle, path = tempfile.mkstemp(prefix=name, suffix=".txt", dir=folder)
    except OSError:
        handle, path = tempfile.mkstemp(prefix=name, suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(report)
    return Path(path)


if __name__ == "__main__":
    sys.exit(main())
