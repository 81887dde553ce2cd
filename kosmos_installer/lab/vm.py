"""A running machine: TPM emulator, far end of the trunk, QEMU; started, watched and ended by pid."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO

from kosmos_installer.errors import KosmosError

from . import tpm
from .accel import Accelerator
from .machine import Places, Spec, qemu_argv
from .progress import Progress
from .qmp import Qmp
from .ssh import Ssh, config_text, speaks
from .state import Process, State, stop_all
from .tools import FIRMWARE, Tools

_FATAL = {b"Kernel panic": "the kernel panicked", b"You are in emergency mode": "it stopped in emergency mode"}
# QEMU's threaded emulation can lose the wake-up of a processor on a busy machine (seen once in some fifteen boots at
# six times the load that the cores carry). The guest's other processor then reports this line every 20 seconds.
_STALL, _STALL_LINES = b"kthread timer wakeup didn't happen", 3
_BOOT_TRIES = 3
_PORT_TAKEN = "Could not set up host forwarding rule"
# Ten to fifteen times what a quiet machine needs: a busy one is slow, and a panic or an ended QEMU is seen at once.
_BOOT_SECONDS = {"kvm": 150.0, "tcg": 900.0}


class StalledError(KosmosError):
    """An emulated processor no longer runs: a fault of the emulation, not of what is under test."""


def free_port(preferred: int = 0) -> int:
    """Return a TCP port of 127.0.0.1 that is free now: `preferred` if it is, else one that the kernel chooses."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise KosmosError("No TCP port is free on 127.0.0.1", cure="end programs that hold many connections")


class Vm:
    """One machine directory. At most one set of processes belongs to it, as `state.json` records."""

    def __init__(self, directory: Path, alias: str, key: Path, tools: Tools) -> None:
        self.directory = directory
        self.alias = alias
        self.tools = tools
        self._key = key

    @property
    def state_file(self) -> Path:
        """Where the processes are recorded."""
        return self.directory / "state.json"

    @property
    def state(self) -> State:
        """What is recorded now."""
        return State.load(self.state_file)

    @property
    def places(self) -> Places:
        """The machine's files and, while it runs, its sockets."""
        return Places(self.directory, Path(self.state.sockets or self.directory))

    @property
    def ssh(self) -> Ssh:
        """The way in."""
        return Ssh(self.directory / "ssh_config", self.alias)

    def running(self) -> bool:
        """Tell whether QEMU runs."""
        return self.state.find("qemu") is not None

    def prepare(self, base: Path, spec: Spec) -> None:
        """Lay out new disks and no TPM from the directory `base`: disk.qcow2, host_keys, and vars.fd (else empty)."""
        places = self.places
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if places.tpm.exists():
            shutil.rmtree(places.tpm)
        overlay(self.tools, base / "disk.qcow2", places.disk)
        empty_disk(self.tools, places.data, spec.data_mib)
        known = base / "vars.fd"
        shutil.copyfile(known if known.exists() else self.tools.file(FIRMWARE / "OVMF_VARS_4M.fd"), places.vars)
        shutil.copyfile(base / "host_keys", places.host_keys)

    def start(self, spec: Spec, accelerator: Accelerator, sockets_root: Path, *, incoming: bool = False) -> None:
        """Start the processes; returns when QEMU answers on its control socket."""
        if self.running():
            raise KosmosError(f"{self.alias} already runs", where=str(self.directory), cure="stop it first")
        self.stop()
        sockets = Path(tempfile.mkdtemp(prefix="kosmos-", dir=sockets_root))
        old = self.state
        state = State(
            ssh_port=free_port(old.ssh_port),
            sockets=str(sockets),
            spec=spec.data(),
            home=old.home or spec.data(),
            accelerator=asdict(accelerator),
        )
        state.save(self.state_file)
        places = self.places
        try:
            if spec.tpm:
                if not places.tpm.exists():
                    tpm.manufacture(places.tpm, spec.banks, self.tools)
                elif not incoming:
                    tpm.set_banks(places.tpm, spec.banks, self.tools)
                self._spawn(state, "swtpm", self.tools.argv(*tpm.emulator_argv(places.tpm, places.tpm_socket)))
                self._wait_for(places.tpm_socket, state, "swtpm")
            ready = sockets / "peer.json"
            peer = [sys.executable, "-m", "kosmos_installer.lab.peer"]
            self._spawn(state, "trunk", [*peer, str(places.trunk_vm), str(places.trunk_peer), str(ready)])
            self._wait_for(ready, state, "trunk")
            for vlan, pid in json.loads(ready.read_text()).items():
                state.processes.append(Process.of(f"zone{vlan}", pid))
            self._start_qemu(state, spec, accelerator, incoming=incoming)
        except BaseException:
            self.stop()
            raise
        self._write_ssh_config(state.ssh_port)

    def boot(self, spec: Spec, accelerator: Accelerator, sockets_root: Path, progress: Progress) -> float:
        """Start the machine and wait for ssh; return the seconds. A stalled emulation is started again, and told."""
        for left in reversed(range(_BOOT_TRIES)):
            self.start(spec, accelerator, sockets_root)
            try:
                return self.wait_ssh()
            except StalledError as stall:
                self.stop()
                if not left:
                    raise
                progress.say(f"{stall.what}; starting it again")
        raise AssertionError("not reached")

    def press_reset(self) -> None:
        """Do what the button on the case does: the firmware starts, nothing is flushed."""
        state = self.state
        state.console_from = self.places.console.stat().st_size
        state.save(self.state_file)
        with self.qmp() as qmp:
            qmp.execute("system_reset")

    def _start_qemu(self, state: State, spec: Spec, accelerator: Accelerator, *, incoming: bool) -> None:
        places = self.places
        state.console_from = places.console.stat().st_size if places.console.exists() else 0
        for attempt in range(5):
            if attempt:
                state.ssh_port = free_port()
            argv = qemu_argv(spec, places, state.ssh_port, accelerator.name, incoming=incoming)
            self._spawn(state, "qemu", self.tools.argv(*argv))
            try:
                self._wait_for(places.qmp, state, "qemu")
            except KosmosError as error:
                # Another program took the port between the choice and the start: choose another.
                if _PORT_TAKEN in error.why:
                    state.processes.pop()
                    continue
                raise
            return
        raise KosmosError(f"{self.alias}: no port could be forwarded to it", why="each one tried was taken meanwhile")

    def _spawn(self, state: State, role: str, argv: list[str]) -> None:
        log: IO[bytes]
        with (self.directory / f"{role}.log").open("wb") as log:
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        state.processes.append(Process.of(role, child.pid))
        state.save(self.state_file)

    def _wait_for(self, path: Path, state: State, role: str, seconds: float = 60.0) -> None:
        """Wait until the process has made `path`; raise with its own words when it ends or is late."""
        deadline = time.monotonic() + seconds
        process = next(one for one in reversed(state.processes) if one.role == role)
        while not path.exists():
            if not process.alive() or time.monotonic() > deadline:
                words = (self.directory / f"{role}.log").read_text(errors="replace").strip().splitlines()[-5:]
                late = f"it said nothing in {seconds:.0f} seconds"
                raise KosmosError(
                    f"{self.alias}: {role} did not start",
                    where=str(self.directory / f"{role}.log"),
                    why="\n".join(words) or late,
                    cure="read the log; 'kosmos-install lab down' removes the lab",
                )
            time.sleep(0.02)

    def _write_ssh_config(self, port: int) -> None:
        known = self.directory / "known_hosts"
        known.write_text("".join(f"{self.alias} {line}\n" for line in self.places.host_keys.read_text().splitlines()))
        partial = self.directory / ".ssh_config"
        partial.write_text(config_text(self.alias, port, self._key, known))
        partial.replace(self.directory / "ssh_config")

    def wait_ssh(self, seconds: float | None = None) -> float:
        """Wait until a command runs by ssh and return the seconds it took.

        Raises `KosmosError` at once for a panic, emergency mode or an ended QEMU, else after `seconds` of wall clock.
        `StalledError` means that the emulation hangs.
        """
        state = self.state
        limit = seconds if seconds is not None else _BOOT_SECONDS[state.accelerator["name"]]
        began = time.monotonic()
        while time.monotonic() - began < limit:
            self._must_live()
            if speaks(state.ssh_port, 12) and self._answers():
                return time.monotonic() - began
            time.sleep(0.5)
        raise self._trouble(f"{self.alias} did not answer by ssh in {limit:.0f} seconds")

    def _answers(self) -> bool:
        try:
            return self.ssh.run("true", timeout_seconds=60).returncode == 0
        except KosmosError:
            return False

    def _must_live(self) -> None:
        said = self.console_bytes()
        for sign, meaning in _FATAL.items():
            if sign in said:
                raise self._trouble(f"{self.alias}: {meaning}")
        if said.count(_STALL) >= _STALL_LINES:
            raise StalledError(**vars(self._trouble(f"{self.alias}: an emulated processor has stalled")))
        if not self.running():
            raise self._trouble(f"{self.alias}: QEMU ended")

    def console_bytes(self) -> bytes:
        """Return what the console said since the last start."""
        if not self.places.console.exists():
            return b""
        with self.places.console.open("rb") as handle:
            handle.seek(self.state.console_from)
            return handle.read()

    def _trouble(self, what: str) -> KosmosError:
        said = self.console_bytes().decode(errors="replace").strip().splitlines()[-6:]
        log = self.directory / "qemu.log"
        words = log.read_text(errors="replace").splitlines()[-6:] if log.exists() else []
        return KosmosError(
            what,
            where=str(self.places.console),
            why="\n".join(said or words or ["the console is silent"]),
            cure="read the console; 'kosmos-install lab reset' returns to the fresh machine",
        )

    def qmp(self) -> Qmp:
        """Open QEMU's control socket."""
        return Qmp(self.places.qmp)

    def set_clock(self, now: float) -> None:
        """Set the machine's clock to `now` (seconds since 1970): a restored machine lives in the past."""
        done = self.ssh.run(f"date --utc --set=@{now:.0f}", root=True)
        if done.returncode != 0:
            raise KosmosError(f"{self.alias}: the clock could not be set", why=done.stderr.strip())

    def settle(self, seconds: float = 900.0) -> None:
        """Wait until systemd has finished starting; raise when a unit has failed."""
        done = self.ssh.run("systemctl is-system-running --wait", timeout_seconds=seconds)
        if done.stdout.strip() != "running":
            failed = self.ssh.run("systemctl list-units --failed --no-legend --plain").stdout.strip()
            raise self._trouble(f"{self.alias} is '{done.stdout.strip()}', not running: {failed or done.stderr}")

    def power_off(self, seconds: float = 400.0) -> None:
        """Shut the machine down in order and wait until QEMU has ended."""
        self.ssh.run("systemctl poweroff", root=True)
        deadline = time.monotonic() + seconds
        while self.running():
            if time.monotonic() > deadline:
                raise self._trouble(f"{self.alias} did not power off in {seconds:.0f} seconds")
            time.sleep(0.2)
        self.stop()

    def stop(self) -> None:
        """End whatever is recorded (QEMU first) and remove the sockets; right for a crashed machine too."""
        stop_all(self.state_file)


def overlay(tools: Tools, below: Path, target: Path) -> None:
    """Make `target` a copy-on-write overlay on `below`, replacing what was there."""
    target.unlink(missing_ok=True)
    tools.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", below, target)


def empty_disk(tools: Tools, target: Path, mib: int) -> None:
    """Make `target` an empty disk of `mib` MiB, replacing what was there."""
    target.unlink(missing_ok=True)
    tools.run("qemu-img", "create", "-q", "-f", "qcow2", target, f"{mib}M")
