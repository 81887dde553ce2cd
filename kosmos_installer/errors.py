"""What may go wrong, told to a person: what happened, where, why, and what to do about it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """Exit codes of `kosmos-install`; scripts may rely on them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    PREFLIGHT_REFUSED = 3
    UNREACHABLE = 4
    VERIFY_FAILED = 5
    BUSY = 6
    NO_SPACE = 7
    MIRROR_UNREACHABLE = 8
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """One line for the reference."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.OK: "It is done, or everything is as it should be.",
    ExitCode.FAILED: "It failed; the message says where and why.",
    ExitCode.USAGE: "A wrong option, or a wrong appliance file. No host was touched.",
    ExitCode.PREFLIGHT_REFUSED: "Preflight refused the host. Nothing was changed.",
    ExitCode.UNREACHABLE: "The host cannot be reached, or Ansible itself failed.",
    ExitCode.VERIFY_FAILED: "Verify found the host other than it should be.",
    ExitCode.BUSY: "Another run works on this host, or its package manager is locked.",
    ExitCode.NO_SPACE: "A disk is full.",
    ExitCode.MIRROR_UNREACHABLE: "The Debian mirror cannot be reached.",
    ExitCode.INTERRUPTED: "It was interrupted; the same command resumes.",
}


def wrapped(label: str, value: str) -> str:
    """`label` and `value` in lines of at most 110 columns; words, paths and commands stay whole."""
    indent = " " * len(label)
    rows = [
        textwrap.wrap(row, 110 - len(label), break_long_words=False, break_on_hyphens=False) or [""]
        for row in value.split("\n")
    ]
    return label + ("\n" + indent).join(line for row in rows for line in row)


@dataclass(eq=False)
class KosmosError(Exception):
    """A known failure. Only `what` must be given; an empty part is not printed.

    what: one sentence, what could not be done.  where: file:line, role > task, or host.
    why: the cause as far as it is known.  cure: the command or change that helps.
    """

    what: str
    where: str = ""
    why: str = ""
    cure: str = ""
    exit_code: ExitCode = ExitCode.FAILED

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """Lines for a person, without a final newline."""
        parts = [("where", self.where), ("why", self.why), ("cure", self.cure)]
        lines = [f"error: {self.what}"]
        return "\n".join([*lines, *(wrapped(f"  {label + ':':<7}", value) for label, value in parts if value)])

    def data(self) -> dict[str, Any]:
        """The same as `text`, for `--json`."""
        return {
            "what": self.what,
            "where": self.where,
            "why": self.why,
            "cure": self.cure,
            "exit_code": int(self.exit_code),
            "exit_name": self.exit_code.name.lower(),
        }


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a YAML file that a person wrote.

    path: key path such as `kosmos.network.zones[0].vlan`.  line: counted from 1, 0 if it belongs to no line.
    found: the value as written, empty when there is none.  wanted: allowed values or an example.
    """

    path: str
    file: str
    line: int
    reason: str
    found: str = ""
    wanted: str = ""

    def where(self) -> str:
        """`file:line`, the form that editors and terminals open."""
        return f"{self.file}:{self.line}" if self.line else self.file

    def text(self) -> str:
        """Lines for a person, without a final newline."""
        rows = [("where", self.where()), ("found", self.found), ("why", self.reason), ("wanted", self.wanted)]
        body = [wrapped(f"    {label + ':':<8}", value) for label, value in rows if value]
        return "\n".join([f"  {self.path or '(whole file)'}", *body])

    def data(self) -> dict[str, Any]:
        """The same as `text`, for `--json`."""
        return {
            "path": self.path,
            "file": self.file,
            "line": self.line,
            "reason": self.reason,
            "found": self.found,
            "wanted": self.wanted,
        }


class FileError(KosmosError):
    """A YAML file with problems: all of them are told at once."""

    def __init__(self, file: str, problems: Sequence[Problem], cure: str) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(what=f"{count} in {file}", cure=cure, exit_code=ExitCode.USAGE)
        self.file = file
        self.problems = tuple(problems)

    def joined(self, others: Sequence[FileError]) -> FileError:
        """One error for this file and the others."""
        files = ", ".join([self.file, *(other.file for other in others)])
        problems = [*self.problems, *(problem for other in others for problem in other.problems)]
        return FileError(files, problems, self.cure)

    def text(self) -> str:
        """One block per problem, in the order of the file."""
        blocks = [f"error: {self.what}", *(problem.text() for problem in self.problems)]
        return "\n\n".join([*blocks, f"  cure:  {self.cure}"])

    def data(self) -> dict[str, Any]:
        """The same as `text`, for `--json`."""
        return {**super().data(), "problems": [problem.data() for problem in self.problems]}
