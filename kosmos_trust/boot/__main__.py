"""`kosmos-boot`: look at the boot of this host, and change it. Exit codes: 0 well, 1 refused or broken, 75 it waits."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from . import build, config, gate, health, signing
from .changer import Changer
from .commands import run
from .errors import BootError, SignatureError
from .findings import Verdict
from .host import Host
from .roles import Role
from .rotate import Rotation
from .state import State
from .update import Outcome, Result, Updater, parts_of

OK, BROKEN, WAIT = 0, 1, 75  # 75: EX_TEMPFAIL of sysexits.h


def say(text: str) -> None:
    """Write one line to standard output."""
    sys.stdout.write(text + "\n")


def tell(verdict: Verdict, *, as_json: bool) -> int:
    """Show a verdict; return the exit code."""
    say(json.dumps(verdict.as_dict(), indent=2) if as_json else "\n".join(verdict.lines()))
    return OK if verdict.passed else BROKEN


@dataclass(frozen=True)
class On:
    """What a verb works on: the host, what is remembered of it, and the words of the command line."""

    host: Host
    state: State
    words: argparse.Namespace


def _status(on: On) -> int:
    return tell(health.status(on.host, on.state), as_json=on.words.json)


def _history(on: On) -> int:
    for event in on.state.history():
        details = " ".join(f"{key}={value}" for key, value in event.items() if key not in ("time", "event"))
        say(json.dumps(event) if on.words.json else f"{event.get('time')} {event.get('event')} {details}".rstrip())
    return OK


def _check(on: On) -> int:
    data = on.words.image.read_bytes()
    placed = on.words.image.parent == on.host.esp.folder
    expected = on.host.expectation(None if placed else len(data))
    return tell(gate.judge(data, str(on.words.image), expected), as_json=on.words.json)


def _build(on: On) -> int:
    with on.state.locked():
        image = build.build(parts_of(on.host, on.words.kernel), on.state.staging, on.host.run)
    say(f"{image.label}: built, without signatures")
    return OK


def _update(on: On) -> int:
    with on.state.locked():
        updater = Updater(on.host, on.state)
        if on.words.signatures is not None:
            return _told(updater.finish(on.words.signatures.read_bytes(), str(on.words.signatures)))
        if on.words.image is not None:
            return _told(updater.take(on.words.image.read_bytes()))
        if on.words.if_needed and not updater.needed():
            return _told(Result(Outcome.UNCHANGED))
        return _told(updater.update(parts_of(on.host, on.words.kernel)))


def _told(result: Result) -> int:
    if result.verdict is not None:
        say("\n".join(result.verdict.lines()))
    if result.outcome is Outcome.WAITING:
        say(f"the image waits for a signature from elsewhere: {result.to_sign}")
        return WAIT
    if result.outcome is Outcome.REFUSED:
        say("THE NEW IMAGE WAS REFUSED. The old one stays the default.")
        return BROKEN
    say(f"{result.outcome.value}{f': {result.entry.path.name}' if result.entry else ''}")
    return OK


def _bless(on: On) -> int:
    verdict = health.health(on.host)
    on.state.note("blessed" if verdict.passed else "not blessed", image=on.host.booted,
               rules=[one.id for one in verdict.failures])  # fmt: skip
    return tell(verdict, as_json=on.words.json)


def _rotate(on: On) -> int:
    with on.state.locked():
        answers = None
        if on.words.signatures is not None:
            answers = signing.parse_answers(on.words.signatures.read_bytes(), str(on.words.signatures))
        rotation = Rotation(on.state.rotation, Changer(on.host, on.state, answers))
        if on.words.start:
            rotation.start()
            on.state.note("rotation begun")
        pause = rotation.advance()
        if pause is None:
            on.state.note("rotation finished")
            say("the new keys are the keys; the old ones open nothing any more")
            return OK
    say(f"step {pause.step.value}: {pause.why}; {pause.cure}")
    return WAIT


def _sign(words: argparse.Namespace) -> int:
    """On the controller: answer a request. It needs no settings of a host."""
    keys: dict[Role, list[RSAPrivateKey]] = {role: [] for role in Role}
    for role in Role:
        for path in (words.keys / f"{role.value}.key", words.keys / f"{role.value}.next.key"):
            if path.exists() or ".next" not in path.name:
                keys[role].append(_private(path))
    requests = signing.parse_requests(words.request.read_bytes(), str(words.request))
    words.output.write_bytes(signing.answer(requests, keys, words.cmdline))
    for name, request in requests.items():
        parts = {one.name: one.digest.hex() for one in request.sections["sha256"]}
        say(f"{name}: signed; kernel {parts.get('.linux', 'none')}, initrd {parts.get('.initrd', 'none')} (SHA-256)")
    return OK


def _private(path: Path) -> RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise SignatureError(
            "a private key cannot be read", where=str(path), why=type(error).__name__, cure="see --keys"
        ) from None
    if not isinstance(key, RSAPrivateKey):
        raise SignatureError("a private key is not RSA", where=str(path), cure="see --keys")
    return key


Verb = Callable[[On], int]
VERBS: dict[str, tuple[Verb | None, str]] = {
    "status": (_status, "what the owner must know about the boot"),
    "check": (_check, "judge an image by every rule of the gate"),
    "build": (_build, "build an image without signatures, publish nothing"),
    "update": (_update, "build, sign, judge and publish"),
    "bless": (_bless, "judge the running boot; well means: systemd may bless its image"),
    "rotate-key": (_rotate, "change the PCR signing keys; run it again after each pause"),
    "history": (_history, "what has happened"),
    "sign": (None, "on the controller: answer a request for signatures"),
}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="kosmos-boot", description=__doc__)
    top.add_argument("--config", type=Path, default=config.PATH, help="the settings of this host")
    verbs = top.add_subparsers(dest="verb", required=True)
    made = {name: verbs.add_parser(name, help=text, description=text) for name, (_, text) in VERBS.items()}
    for name in ("status", "check", "bless", "history"):
        made[name].add_argument("--json", action="store_true", help="as JSON")
    made["check"].add_argument("image", type=Path)
    for name in ("build", "update"):
        made[name].add_argument("--kernel", metavar="VERSION", help="this kernel, not the newest")
    made["update"].add_argument("--if-needed", action="store_true", help="only when the default image is not right")
    made["update"].add_argument("--image", type=Path, help="publish an image that was signed elsewhere")
    made["rotate-key"].add_argument("--start", action="store_true", help="begin a rotation")
    for name in ("update", "rotate-key"):
        made[name].add_argument("--signatures", type=Path, metavar="FILE", help="the answer of the controller")
    made["sign"].add_argument("request", type=Path)
    made["sign"].add_argument("--keys", type=Path, required=True, help="folder with initrd.key and all.key")
    made["sign"].add_argument("--cmdline", required=True, help="the declared kernel command line")
    made["sign"].add_argument("--output", type=Path, required=True, help="where the answer goes")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code. A known failure is one line on standard error."""
    words = parser().parse_args(argv)
    try:
        verb = VERBS[words.verb][0]
        if verb is None:
            return _sign(words)
        settings = config.load(words.config)
        return verb(On(Host(settings, run), State(settings.state), words))
    except (BootError, OSError) as error:
        sys.stderr.write(f"kosmos-boot: {error}\n")
        return BROKEN


if __name__ == "__main__":
    sys.exit(main())
