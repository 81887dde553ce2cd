#!/usr/bin/python3
"""Start one tiny container in gVisor under containerd, look at it from inside and from its cgroup, and say so in JSON.

Nothing is pulled: the root file system is the host's own static busybox, made and removed by each run. The limits are
read from the cgroup in which the sandbox process really is, not from the one that was asked for: with a wrong cgroup
driver gVisor runs, but unlimited (gvisor#7671).

Exit 0: everything holds. 1: it ran, but not as it must (0 with --report: the answer tells). 2: it could not be run.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

NAMESPACE = "kosmos-smoke"
BANNER = "Starting gVisor"
READY = "kosmos-ready"
NOBODY = 65534
SCRIPT = f"/bin/busybox dmesg; /bin/busybox uname -rv; echo {READY}; read wait"


class SmokeError(Exception):
    """The container could not be run; the text says which step failed and what it answered."""


@dataclass(frozen=True)
class Wanted:
    """What the container is given: limits in bytes and tasks, and how it is started."""

    runtime: str
    memory_bytes: int
    pids: int
    systemd_cgroup: bool
    timeout_seconds: float


def cgroups_path(name: str, wanted: Wanted) -> str:
    """Return where the container's cgroup is to be: slice, prefix and name for systemd, else a path."""
    return f"system.slice:kosmos:{name}" if wanted.systemd_cgroup else f"/kosmos/{name}"


def oci_spec(root: Path, name: str, wanted: Wanted) -> dict[str, Any]:
    """Return the OCI runtime specification of the container (opencontainers/runtime-spec config.md)."""
    return {
        "ociVersion": "1.1.0",
        "process": {
            "user": {"uid": NOBODY, "gid": NOBODY},
            "args": ["/bin/busybox", "sh", "-c", SCRIPT],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "noNewPrivileges": True,
            "capabilities": {},
        },
        "root": {"path": str(root), "readonly": True},
        "hostname": "smoke",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "cgroupsPath": cgroups_path(name, wanted),
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")],
            "resources": {"memory": {"limit": wanted.memory_bytes}, "pids": {"limit": wanted.pids}},
        },
    }


def ctr(arguments: Sequence[str], timeout_seconds: float = 20) -> str:
    """Run ctr in our own namespace and return what it printed.

    :raises SmokeError: it failed or did not end in time.
    """
    try:
        done = subprocess.run(
            ["ctr", "--namespace", NAMESPACE, *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_seconds, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise SmokeError(f"ctr {arguments[0]}: {exc}") from exc
    if done.returncode != 0:
        raise SmokeError(f"ctr {' '.join(arguments[:2])}: {done.stderr.strip()}")
    return done.stdout


def clear() -> None:
    """Remove what an interrupted run left in our namespace."""
    for name in ctr(["tasks", "list", "-q"]).split():
        with contextlib.suppress(SmokeError):  # it may have ended by itself just now
            ctr(["tasks", "kill", "--signal", "SIGKILL", name])
        with contextlib.suppress(SmokeError):
            ctr(["tasks", "delete", "--force", name])
    for name in ctr(["containers", "list", "-q"]).split():
        with contextlib.suppress(SmokeError):  # the client that started it may be deleting it just now
            ctr(["containers", "delete", name])
    if left := ctr(["containers", "list", "-q"]).split():
        raise SmokeError(f"an earlier run left containers that cannot be deleted: {', '.join(left)}")


@contextlib.contextmanager
def root_filesystem(folder: Path, busybox: Path) -> Iterator[Path]:
    """Make a root file system that holds one static program."""
    if not busybox.exists():
        raise SmokeError(f"{busybox} is missing; install the package busybox-static")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="smoke-", dir=folder))
    try:
        for name in ("bin", "proc"):
            (root / name).mkdir()
            (root / name).chmod(0o755)
        root.chmod(0o755)
        shutil.copyfile(busybox, root / "bin/busybox")
        (root / "bin/busybox").chmod(0o755)
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def cgroup_of(pid: int, proc: Path = Path("/proc"), tree: Path = Path("/sys/fs/cgroup")) -> Path | None:
    """Return the cgroup v2 directory of a process (cgroups(7): the line that begins with `0::`)."""
    found = re.search(r"^0::(/.*)$", (proc / str(pid) / "cgroup").read_text(), re.MULTILINE)
    return tree / found[1].lstrip("/") if found else None


def limit(cgroup: Path | None, name: str) -> int | str | None:
    """Return a limit of a cgroup as a number, `max` for none, or null when there is no such file."""
    try:
        text = (cgroup / name).read_text().strip() if cgroup else ""
    except OSError:
        return None
    return int(text) if text.isdigit() else text or None


def read_until_ready(output: IO[bytes], deadline: float) -> list[str]:
    """Collect the container's output up to its last line.

    :raises SmokeError: it ended or stayed silent before that.
    """
    descriptor, collected = output.fileno(), b""
    while READY.encode() not in collected:
        readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(descriptor, 65536) if readable else b""
        if not chunk:
            why = "ended" if readable else "did not answer in time"
            raise SmokeError(f"the container {why}: {collected.decode(errors='replace').strip()[-600:]}")
        collected += chunk
    return collected.decode(errors="replace").split(READY)[0].strip().splitlines()


def task_pid(name: str) -> int:
    """Return the host's pid of the sandbox."""
    found = re.search(rf"^{re.escape(name)}\s+(\d+)\s", ctr(["tasks", "list"]), re.MULTILINE)
    if not found:
        raise SmokeError(f"ctr lists no task {name}")
    return int(found[1])


def smoke(wanted: Wanted, folder: Path, busybox: Path) -> dict[str, Any]:
    """Run the container and return the findings."""
    clear()
    name, started = f"smoke-{os.getpid()}", time.monotonic()
    with root_filesystem(folder, busybox) as root:
        spec = root.with_suffix(".json")
        spec.write_text(json.dumps(oci_spec(root, name, wanted)))
        argv = ["ctr", "--namespace", NAMESPACE, "run", "--rm", "--runc-binary", wanted.runtime]
        argv += ["--runc-systemd-cgroup", "--cgroup", cgroups_path(name, wanted)] if wanted.systemd_cgroup else []
        process = subprocess.Popen(
            [*argv, "--config", str(spec), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            lines = read_until_ready(process.stdout, started + wanted.timeout_seconds)
            pid = task_pid(name)
            cgroup = cgroup_of(pid)
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            findings = {
                "gvisor": any(BANNER in line for line in lines),
                "kernel_inside": lines[-1] if lines else None,
                "kernel_host": os.uname().release,
                "sandbox_process": command,
                "cgroup": str(cgroup) if cgroup else None,
                "memory_max": limit(cgroup, "memory.max"),
                "pids_max": limit(cgroup, "pids.max"),
            }
            with contextlib.suppress(BrokenPipeError, subprocess.TimeoutExpired):
                process.communicate(b"\n", timeout=10)
        finally:
            spec.unlink(missing_ok=True)
            if process.poll() is None:
                process.kill()
                process.wait()
            clear()
    findings["seconds"] = round(time.monotonic() - started, 1)
    return findings


def judge(findings: dict[str, Any], wanted: Wanted) -> list[str]:
    """Return what is not as it must be."""
    faults = [] if findings["gvisor"] else ["the container does not run in gVisor"]
    faults += [] if "runsc" in findings["sandbox_process"] else ["the sandbox is not a runsc process"]
    for key, value in (("memory_max", wanted.memory_bytes), ("pids_max", wanted.pids)):
        if findings[key] != value:
            faults.append(f"{key} of the cgroup is {findings[key]}, not {value}")
    return faults


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runtime", required=True, help="the runc-compatible program")
    parser.add_argument("--memory-bytes", type=int, required=True)
    parser.add_argument("--pids", type=int, required=True)
    parser.add_argument("--systemd-cgroup", action="store_true")
    parser.add_argument("--timeout-seconds", type=float, default=60)
    parser.add_argument("--folder", type=Path, default=Path("/var/lib/kosmos/gvisor"))
    parser.add_argument("--busybox", type=Path, default=Path("/usr/bin/busybox"))
    parser.add_argument("--report", action="store_true", help="exit 0 when the container ran, whatever was found")
    given = parser.parse_args(arguments)
    wanted = Wanted(given.runtime, given.memory_bytes, given.pids, given.systemd_cgroup, given.timeout_seconds)
    try:
        with Path("/run/lock/kosmos-gvisor-smoke.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            findings = smoke(wanted, given.folder, given.busybox)
    except (SmokeError, OSError) as exc:
        sys.stdout.write(json.dumps({"ran": False, "error": str(exc)}) + "\n")
        return 2
    faults = judge(findings, wanted)
    sys.stdout.write(json.dumps({"ran": True, **findings, "faults": faults}) + "\n")
    return 1 if faults and not given.report else 0


if __name__ == "__main__":
    sys.exit(main())
