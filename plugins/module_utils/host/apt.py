"""Talk to apt-get so that its answers are values: what a transaction would do, and why it failed.

apt-get(8), apt.conf(5) (DPkg::Lock::Timeout), dpkg's lock protocol: fcntl locks on lock-frontend, then lock.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.kosmos.appliance.plugins.module_utils.host.system import Done, HostError, Run, run

ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "APT_LISTCHANGES_FRONTEND": "none"}
LOCK = Path("/var/lib/dpkg/lock-frontend")
#: (pattern in apt's text, reason, cure); the first that matches names the failure.
FAILURES = (
    (
        r"Could not get lock|Unable to acquire the dpkg (frontend )?lock|is held by process",
        "apt_locked",
        "Wait for the other package run to end (`ps -C apt,apt-get,dpkg,unattended-upgr`), then run again.",
    ),
    (
        r"No space left on device|enough free space",
        "no_space",
        "Free space on the named file system (`df -h; apt-get clean`), then run again.",
    ),
    (
        r"is not valid yet|[Rr]elease file .* (is )?expired",
        "clock",
        "Set the clock (`date -s`, or let preflight show the skew), then run again.",
    ),
    (
        r"Could not resolve|[Tt]emporary failure|Could not connect|Connection (failed|refused|timed out|reset)"
        r"|Unable to connect|Network is unreachable|[Ff]ailed to fetch|Could not wait for server",
        "mirror_unreachable",
        "Check the network and the mirror in /etc/apt/sources.list.d, then run again.",
    ),
    (
        r"Unable to locate package|has no installation candidate",
        "unknown_package",
        "Check /etc/apt/sources.list.d: it has to name Debian 13 (trixie), section main.",
    ),
    (
        r"unmet dependencies|held broken packages|conflicts",
        "conflict",
        "Run `apt-get -f install` on the host and read which package holds the others back.",
    ),
)
TAIL_LINES = 25


@dataclass(frozen=True)
class Transaction:
    """What apt-get would do, by package name."""

    new: tuple[str, ...] = ()
    upgraded: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def parse_simulation(text: str) -> Transaction:
    """Read the `Inst`, `Remv` and `Purg` lines of `apt-get --simulate`."""
    new: list[str] = []
    upgraded: list[str] = []
    removed: list[str] = []
    for line in text.splitlines():
        match = re.match(r"(Inst|Remv|Purg) (\S+)( \[)?", line)
        if match:
            name = match[2].partition(":")[0]
            {"Inst": upgraded if match[3] else new}.get(match[1], removed).append(name)
    return Transaction(tuple(sorted(new)), tuple(sorted(upgraded)), tuple(sorted(set(removed))))


def failure(done: Done, doing: str) -> HostError:
    """Turn the end of a failed apt-get into an error with a reason, a cure and apt's last words."""
    tail = "\n".join(done.text.splitlines()[-TAIL_LINES:])
    errors = (
        "\n".join(line for line in done.text.splitlines() if line.startswith(("E: ", "W: ", "dpkg: error"))) or tail
    )
    for pattern, reason, cure in FAILURES:
        if re.search(pattern, errors) or re.search(pattern, tail):
            return HostError(f"apt could not {doing}: {errors}", reason=reason, cure=cure)
    if done.rc == 124:
        return HostError(f"apt could not {doing}: {tail}", reason="timeout", cure="Look at /var/log/apt/term.log.")
    return HostError(f"apt could not {doing}: {tail}", reason="apt", cure="Look at /var/log/apt/term.log on the host.")


def lock_holder(path: Path) -> str | None:
    """Return who holds dpkg's lock ("apt-get (pid 812)"), or None when it is free."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # struct flock on Linux, 64 bit: short type, short whence, off_t start, off_t len, pid_t pid
        asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack("hhqqi4x", fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    if kind == fcntl.F_UNLCK:
        return None
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        name = "a process"
    return f"{name} (pid {pid})"


@dataclass
class Apt:
    """apt-get with bounded waits. `run`, `sleep` and `monotonic` are injected by tests."""

    lock_timeout_seconds: int = 300
    run: Run = run
    lock: Path = LOCK
    lists: Path = Path("/var/lib/apt/lists")
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    log: list[str] = field(default_factory=list)

    def wait_for_lock(self) -> None:
        """Wait until no other package run is under way. Raises HostError (apt_locked) naming the holder."""
        deadline = self.monotonic() + self.lock_timeout_seconds
        while holder := lock_holder(self.lock):
            if self.monotonic() >= deadline:
                raise HostError(
                    f"apt is in use by {holder} and was not released within {self.lock_timeout_seconds} s",
                    reason="apt_locked",
                    cure=f"Let {holder} finish (or end it), then run again. Nothing has been changed.",
                )
            self.sleep(1)

    def lists_age_seconds(self) -> float:
        """Return the age of the package lists; infinite when there are none."""
        times = [entry.stat().st_mtime for entry in self.lists.glob("*_Packages*")] if self.lists.is_dir() else []
        refreshed = self.lists / "partial"
        if not times:
            return float("inf")
        return self.now() - max([*times, refreshed.stat().st_mtime] if refreshed.is_dir() else times)

    def get(self, *arguments: str, doing: str, timeout_seconds: float = 3600) -> Done:
        """Run apt-get. Raises HostError with a reason when it fails."""
        argv = ["apt-get", "-q", "-o", f"DPkg::Lock::Timeout={self.lock_timeout_seconds}", *arguments]
        done = self.run(argv, timeout_seconds=timeout_seconds, env=ENVIRONMENT)
        self.log.append(" ".join(argv))
        if done.rc != 0:
            raise failure(done, doing)
        return done

    def update(self) -> None:
        """Fetch the package lists; an unreachable source is an error here, not a warning."""
        self.get("-o", "Acquire::Retries=2", "--error-on=any", "update", doing="fetch the package lists")

    def simulate(self, *arguments: str, doing: str) -> Transaction:
        """Ask what a transaction would do; takes no lock."""
        return parse_simulation(self.get("-s", "-o", "Debug::NoLocking=true", *arguments, doing=doing).stdout)

    def transact(self, *arguments: str, doing: str) -> None:
        """Do a transaction, keeping configuration files that an operator changed."""
        keep = ("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold")
        self.get("-y", *keep, "-o", "Acquire::Retries=2", *arguments, doing=doing)

    def repair(self) -> None:
        """Finish what an interrupted dpkg left half done."""
        done = self.run(["dpkg", "--configure", "-a", "--force-confold"], timeout_seconds=1800, env=ENVIRONMENT)
        self.log.append("dpkg --configure -a")
        if done.rc != 0:
            self.transact("-f", "install", doing="finish the interrupted package run")


def names(packages: Sequence[str]) -> str:
    """Return a list for a message."""
    return ", ".join(packages) if packages else "none"
