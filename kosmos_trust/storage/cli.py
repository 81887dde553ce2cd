"""The command line: thin, one function of the library for each verb. Keys come by standard input, never as arguments.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 nothing is broken but a person or a reboot is needed first.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kosmos_trust.durable import private_folder

from . import place, plan, recovery, report, units
from .datakeys import DataKeys
from .errors import StorageError, WaitingError
from .move import discard_old
from .shred import shred
from .volume import Volume

DECLARATION = Path("/etc/kosmos/storage.json")
DATA = Path("/var/lib/kosmos/datakeys")
WAITING = 3
MAX_KEY_BYTES = 200


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code; a known failure becomes one line on standard error."""
    options = _parser().parse_args(argv)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump, also of the programs called, would hold keys
    try:
        answer = options.run(options)
    except WaitingError as error:
        sys.stderr.write(f"waiting: {error}\n")
        return WAITING
    except StorageError as error:
        sys.stderr.write(f"refused: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"refused: {error.filename or 'this host'}: {error.strerror}\n")
        return 1
    if answer is not None:
        sys.stdout.write(answer if isinstance(answer, str) else json.dumps(answer, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="kosmos_trust.storage", description="Sealed data of this host.")
    top.add_argument(
        "--declaration", type=Path, default=DECLARATION, help="what is declared (JSON); default %(default)s"
    )
    verbs = top.add_subparsers(required=True, metavar="VERB")

    def verb(parent: Any, name: str, run: Any, text: str, *flags: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = parent.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        for flag in flags:
            made.add_argument(flag, action="store_true", help=FLAGS[flag])
        return made

    verb(verbs, "status", _status, "say what is there and what is next", "--json", "--no-tpm")
    verb(verbs, "prepare", _prepare, "make the volume on an empty disk", "--start-over")
    verb(verbs, "enrol-tpm", _enrol_tpm, "let the TPM open the volume", "--recovery-key-stdin", "--again")
    verb(verbs, "advance", _advance, "take every step that needs no person")
    verb(verbs, "open", _open, "open the volume with the recovery key from standard input; this is recorded")
    verb(verbs, "mount-plan", _mount_plan, "show crypttab, fstab and units", "--json", "--discard", "--no-measure")
    verb(verbs, "discard-old", _discard_old, "remove the copies in clear that moving left behind")

    keys = verbs.add_parser("recovery-key", help="the key that only the operator holds").add_subparsers(required=True)
    verb(keys, "new", _new_key, "make a recovery key and show it, this once", "--recovery-key-stdin")
    verb(keys, "drill", _drill, "prove the recovery key from standard input")
    by = verb(keys, "acknowledge", _acknowledge, "record that a person keeps the key outside this host")
    by.add_argument("--by", required=True, metavar="NAME", help="who keeps it")

    data = verbs.add_parser("datakey", help="sealed files of agents").add_subparsers(required=True)
    for name, run, text in (
        ("status", _age, "the age of each agent's key"),
        ("rotate", _rotate, "re-wrap the files of an agent, or of all that are due"),
        ("seal", _seal, "seal standard input into a file"),
        ("open", _unseal, "write the content of a sealed file to standard output"),
    ):
        one = verb(data, name, run, text)
        one.add_argument("--base", type=Path, default=DATA, help="default %(default)s")
        if name in ("rotate", "seal", "open"):
            one.add_argument("--agent", required=name != "rotate")
        one.add_argument("--allow-unsealed", action="store_true", help=FLAGS["--allow-unsealed"])
        if name in ("seal", "open"):
            one.add_argument("path", type=Path)

    gone = verb(verbs, "shred", _shred, "destroy a file, and say how far that went", "--json", "--no-trim")
    gone.add_argument("path", type=Path)
    return top


FLAGS = {
    "--json": "as JSON",
    "--no-tpm": "do not ask the TPM",
    "--start-over": "format again a volume on which nothing was stored yet",
    "--recovery-key-stdin": "unlock with the recovery key from standard input",
    "--again": "replace a TPM slot that could not be proved",
    "--discard": "let TRIM through",
    "--no-measure": "do not measure the volume key into PCR 15",
    "--allow-unsealed": "make the root key even on a disk in clear: for tests only",
    "--no-trim": "do not ask for TRIM",
}


def _volume(options: argparse.Namespace, *, changing: bool = True) -> Volume:
    """Return the declared volume; for a change no second run may be under way, until this process ends."""
    volume = Volume(plan.load(options.declaration))
    if changing:
        private_folder(volume.plan.state)
        path = volume.plan.state / "lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError("another run is under way", where=str(path), cure="wait for it, run again") from None
    return volume


def _data_keys(options: argparse.Namespace) -> DataKeys:
    return DataKeys(options.base, sealed_only=not options.allow_unsealed)


def _key() -> bytes:
    key = sys.stdin.buffer.read(MAX_KEY_BYTES + 1)
    if not key.strip() or len(key) > MAX_KEY_BYTES:
        raise StorageError("standard input holds no recovery key", cure="give its eight groups of eight letters")
    return key


def _lent(options: argparse.Namespace) -> bytes | None:
    return _key() if options.recovery_key_stdin else None


def _status(options: argparse.Namespace) -> Any:
    told = report.collect(_volume(options, changing=False), ask_tpm=not options.no_tpm)
    return told if options.json else "\n".join(report.lines(told)) + "\n"


def _prepare(options: argparse.Namespace) -> str:
    volume = _volume(options)
    volume.prepare(start_over=options.start_over)
    return f"{volume.state}\n"


def _enrol_tpm(options: argparse.Namespace) -> str:
    volume = _volume(options)
    volume.enrol_tpm(_lent(options), again=options.again)
    volume.prove_tpm()
    return f"{volume.state}\n"


def _advance(options: argparse.Namespace) -> str:
    volume = _volume(options)
    volume.prove_tpm()
    return f"{place.advance(volume)}\n"


def _open(options: argparse.Namespace) -> None:
    recovery.open_volume(_volume(options), _key())


def _mount_plan(options: argparse.Namespace) -> Any:
    volume = _volume(options, changing=False)
    volume.require("formatted")
    line = units.crypttab_line(volume.plan, str(volume.uuid), discard=options.discard, measure=not options.no_measure)
    texts = units.mount_units(volume.plan)
    if options.json:
        return {"crypttab": line, "files": [asdict(text) for text in texts]}
    return f"# /etc/crypttab\n{line}\n" + "".join(f"\n# {text.path}\n{text.text}" for text in texts)


def _discard_old(options: argparse.Namespace) -> None:
    volume = _volume(options)
    volume.require("finished")
    for folder in volume.plan.folders:
        discard_old(Path(folder), units.on_volume(volume.plan, folder))


def _new_key(options: argparse.Namespace) -> str:
    return _volume(options).new_recovery_key(_lent(options)).decode() + "\n"


def _drill(options: argparse.Namespace) -> str:
    return f"the recovery key opens slot {_volume(options).drill(_key())}\n"


def _acknowledge(options: argparse.Namespace) -> Any:
    return asdict(recovery.acknowledge(_volume(options), options.by))


def _age(options: argparse.Namespace) -> Any:
    keys = _data_keys(options)
    return [asdict(age) for agent in keys.agents() if (age := keys.age(agent))]


def _rotate(options: argparse.Namespace) -> Any:
    keys = _data_keys(options)
    return {agent: keys.rotate(agent) for agent in ([options.agent] if options.agent else keys.due())}


def _seal(options: argparse.Namespace) -> None:
    _data_keys(options).seal(options.agent, sys.stdin.buffer, options.path)


def _unseal(options: argparse.Namespace) -> None:
    for chunk in _data_keys(options).open(options.agent, options.path):
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def _shred(options: argparse.Namespace) -> Any:
    told = shred(options.path, trim=not options.no_trim)
    if options.json:
        return asdict(told)
    good = "".join(f"  done: {text}\n" for text in told.achieved)
    return f"{told.path} is removed\n{good}" + "".join(f"  not done: {text}\n" for text in told.not_achieved)
