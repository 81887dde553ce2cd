"""Write a new inventory: ask what must be known, judge it as `validate` does, then put both files there at once."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

from kosmos_installer import config
from kosmos_installer.errors import ExitCode, FileError, KosmosError, Problem
from kosmos_installer.init_files import LOCAL, OFFLINE, appliance_text, hosts_text
from kosmos_installer.inventory import APPLIANCE_FILE, HOSTS_FILE

Answers = Mapping[str, str]
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class Question:
    """One thing to know. key: name of the answer; its flag is `--key` with dashes.

    default: from the answers so far; an empty one means that there is none.
    guessed: the default only helps a person who is asked; without a terminal the flag must be given.
    """

    key: str
    text: str
    default: Callable[[Answers], str]
    guessed: bool = False

    @property
    def flag(self) -> str:
        """As it is typed."""
        return "--" + self.key.replace("_", "-")


def _near(host: str) -> str:
    """The /24 around an IPv4 address, a good guess for the management network."""
    try:
        address = ip_address(host)
    except ValueError:
        return ""
    return str(ip_network(f"{address}/24", strict=False)) if address.version == 4 else ""


QUESTIONS = (
    Question("name", "Name of the appliance", lambda _: "kosmos-1"),
    Question("profile", "Profile, appliance or lab", lambda _: "appliance"),
    Question("host", f"Address of the host, or {LOCAL} if this is it", lambda _: "", guessed=True),
    Question("user", "Account on the host, with SSH key and sudo", lambda _: "operator"),
    Question("hostname", "Host name without domain", lambda answers: answers["name"]),
    Question("domain", "DNS domain", lambda _: "kosmos.internal"),
    Question("timezone", "Time zone", lambda _: "Etc/UTC"),
    Question("ntp", f"NTP servers, by commas, or {OFFLINE}", lambda _: OFFLINE, guessed=True),
    Question("management_interface", "Management interface (on the host: ip -br link)", lambda _: "", guessed=True),
    Question(
        "allowed_cidrs", "Networks that may open SSH, by commas", lambda given: _near(given["host"]), guessed=True
    ),
    Question("trunk", "Interface of the VLAN trunk", lambda _: "", guessed=True),
    Question("data_disk", "Empty data disk (on the host: ls /dev/disk/by-id)", lambda _: "", guessed=True),
)
#: Stand for answers not given yet, so that those given can be judged; none of them can clash with a real answer.
_UNKNOWN = {
    "name": "unknown",
    "profile": "lab",
    "host": "unknown",
    "user": "unknown",
    "hostname": "unknown",
    "domain": "unknown",
    "timezone": "Etc/UTC",
    "ntp": OFFLINE,
    "management_interface": "unknown-0",
    "allowed_cidrs": "192.0.2.0/24",
    "trunk": "unknown-1",
    "data_disk": "/dev/disk/by-id/unknown",
}


def missing(given: Answers) -> list[str]:
    """The flags that have no safe default and were not given."""
    return [question.flag for question in QUESTIONS if question.guessed and not given.get(question.key)]


def complete(given: Answers) -> dict[str, str]:
    """Every answer, from flags and safe defaults. Raises KosmosError (exit 2) naming the flags still needed."""
    answers = {key: value for key, value in given.items() if value}
    if missing(answers):
        raise KosmosError(
            "There is no terminal to ask on, and these have no safe default",
            why=" ".join(missing(answers)),
            cure="Give these flags, or run kosmos-install init in a terminal.",
            exit_code=ExitCode.USAGE,
        )
    for question in QUESTIONS:
        answers.setdefault(question.key, question.default(answers))
    return answers


def ask(
    given: Answers, inventories: Path, prompt: Callable[[str, str], str], say: Callable[[str], None]
) -> dict[str, str]:
    """Every answer; what no flag gave is asked until it is right.

    inventories: where it will be written.  prompt: (question, default) to the words typed.
    say: prints why an answer was not taken.
    Raises KosmosError (exit 2) before the first question when a flag is wrong.
    """
    flags = {key: value for key, value in given.items() if value}
    refuse_wrong(flags)
    answers = dict(flags)
    for question in QUESTIONS:
        while question.key not in answers:
            answer = prompt(question.text, question.default(answers)).strip()
            reasons = [problem.reason for problem in _problems({**answers, question.key: answer})]
            if not answer:
                reasons = ["An answer is needed."]
            elif question.key == "name" and os.path.lexists(inventories / answer):
                reasons.append("There is an inventory of this name already.")
            if reasons:
                say("\n".join(reasons))
            else:
                answers[question.key] = answer
    return answers


def refuse_wrong(answers: Answers) -> None:
    """Raises FileError (exit 2) naming every answer that cannot stand; those not given yet are not judged."""
    problems = _problems(answers)
    if problems:
        raise FileError("the new inventory", problems, "Change the flags; nothing was written.")


def create(answers: Answers, inventories: Path) -> Path:
    """Write `inventories`/NAME whole or not at all, and give it back.

    Raises KosmosError (exit 2) when it exists, or when an answer is wrong: then nothing is written.
    """
    refuse_wrong(answers)
    refuse_existing(answers["name"], inventories)
    files = {APPLIANCE_FILE: appliance_text(answers), HOSTS_FILE: hosts_text(answers)}
    return write(inventories / answers["name"], files)


def refuse_existing(name: str, inventories: Path) -> None:
    """Raises KosmosError (exit 2) when there is something by that name: `init` never overwrites."""
    if os.path.lexists(inventories / name):
        raise KosmosError(
            f"There is already an inventory {name}",
            where=str(inventories / name),
            why="init never overwrites.",
            cure="Choose another --name, or change its files and run: kosmos-install validate",
            exit_code=ExitCode.USAGE,
        )


def write(folder: Path, files: Mapping[Path, str]) -> Path:
    """Make `folder` with these files (paths inside it), by one rename of a finished folder beside it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise _cannot_write(folder, error) from error
    try:
        for path, text in files.items():
            target = unfinished / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise _cannot_write(folder, error) from error
    return folder


def _cannot_write(folder: Path, error: OSError) -> KosmosError:
    return KosmosError(
        "The inventory cannot be written",
        where=str(folder),
        why=str(error.strerror or error),
        cure="Run kosmos-install init in a folder of your own with free space.",
        exit_code=ExitCode.FAILED,
    )


def _problems(answers: Answers) -> list[Problem]:
    """What `validate` would say of the files for these answers."""
    full = {**_UNKNOWN, **answers}
    problems: list[Problem] = []
    if not _HOST.fullmatch(full["host"]):
        reason = "This is no host name and no IP address."
        problems.append(Problem("ansible_host", str(HOSTS_FILE), 0, reason, full["host"], "For instance: 192.0.2.10"))
    try:
        config.parse(appliance_text(full), str(APPLIANCE_FILE))
    except FileError as error:
        problems += error.problems
    return problems
