"""Bring the running system in line with its configuration: kernel modules, AppArmor profiles, units.

Files decide what happens at the next boot; this decides what is true now. Everything is compared first, so check mode
and the real run share one decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.kosmos.appliance.plugins.module_utils.host.system import (
    HostError,
    Run,
    read_text,
    run,
)

ENABLED = frozenset({"enabled", "enabled-runtime", "static", "indirect", "generated", "alias", "linked"})


@dataclass(frozen=True)
class Step:
    """One difference and the command that ends it; `argv` is empty when a file of the kernel is written instead."""

    what: str
    before: str
    after: str
    argv: tuple[str, ...] = ()
    write: tuple[str, str] | None = None


@dataclass
class LiveState:
    """The declared state.

    `units`: name, enabled (bool or None = leave), active (bool or None = leave). `profiles`: name, path, state
    (loaded = enforced now, or absent).
    """

    units: Sequence[Mapping[str, Any]] = ()
    modules: Sequence[str] = ()
    profiles: Sequence[Mapping[str, str]] = ()
    root: Path = Path("/")
    release: str = ""
    run: Run = run

    def differences(self) -> list[Step]:
        """Return what has to be done, in the order in which it is done."""
        return [*self._modules(), *self._profiles(), *self._units()]

    def apply(self, steps: Sequence[Step]) -> None:
        """Do the steps. Raises HostError at the first that fails, naming the program's own words."""
        for step in steps:
            if step.write:
                self._write(step)
                continue
            done = self.run(step.argv, timeout_seconds=120)
            if done.rc != 0:
                unit = step.argv[0] == "systemctl"
                raise HostError(
                    f"{step.what}: `{' '.join(step.argv)}` ended with {done.rc}: {done.text}",
                    reason="live_state",
                    cure=f"Read `journalctl -b -u {step.argv[-1]}`." if unit else "Read `dmesg` on the host.",
                )

    def _write(self, step: Step) -> None:
        path, value = step.write or ("", "")
        try:
            (self.root / path).write_text(value)
        except OSError as exc:
            raise HostError(
                f"{step.what}: the kernel refused {value!r}: {exc.strerror}",
                reason="live_state",
                cure=f"Check that this kernel knows {step.what}.",
            ) from exc

    def _modules(self) -> list[Step]:
        builtin = self.root / "lib/modules" / self.release / "modules.builtin"
        inside = set()
        if builtin.is_file():
            inside = {Path(line).name.partition(".")[0].replace("-", "_") for line in builtin.read_text().splitlines()}
        absent = [
            name
            for name in self.modules
            if not (self.root / "sys/module" / name.replace("-", "_")).is_dir() and name.replace("-", "_") not in inside
        ]
        return [Step(f"kernel module {name}", "absent", "loaded", ("modprobe", "--", name)) for name in absent]

    def _profiles(self) -> list[Step]:
        """securityfs of AppArmor: `profiles` lists "name (mode)"; a name written to `.remove` unloads it."""
        security = "sys/kernel/security/apparmor"
        text = read_text(self.root / security / "profiles") or ""
        modes = {name: mode.rstrip(")") for name, _, mode in (line.rpartition(" (") for line in text.splitlines())}
        steps = []
        for profile in self.profiles:
            name, found = profile["name"], modes.get(profile["name"], "absent")
            if profile["state"] == "absent" and found != "absent":
                steps.append(Step(f"profile {name}", found, "absent", write=(f"{security}/.remove", name)))
            if profile["state"] == "loaded" and found != "enforce":
                argv = ("apparmor_parser", "--replace", "--write-cache", profile["path"])
                steps.append(Step(f"profile {name}", found, "enforce", argv))
        return steps

    def _units(self) -> list[Step]:
        if not self.units:
            return []
        names = [str(unit["name"]) for unit in self.units]
        done = self.run(["systemctl", "show", "-p", "Id,LoadState,ActiveState,UnitFileState", "--", *names])
        blocks = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in done.stdout.split("\n\n")]
        if done.rc != 0 or len(blocks) != len(names):
            raise HostError(
                f"systemctl show failed: {done.text}", reason="live_state", cure="Check that systemd runs on the host."
            )
        steps: list[Step] = []
        for unit, found in zip(self.units, blocks, strict=True):
            steps += self._unit(unit, found)
        return steps

    def _unit(self, unit: Mapping[str, Any], found: Mapping[str, str]) -> list[Step]:
        name, file_state, active = str(unit["name"]), found.get("UnitFileState", ""), found.get("ActiveState", "")
        steps = []
        if found.get("LoadState") == "masked" and (unit.get("enabled") or unit.get("active")):
            steps.append(Step(f"unit {name}", "masked", "unmasked", ("systemctl", "unmask", name)))
        enabled = file_state in ENABLED
        if unit.get("enabled") is not None and bool(unit["enabled"]) != enabled and file_state != "static":
            verb = "enable" if unit["enabled"] else "disable"
            steps.append(Step(f"unit {name}", file_state or "absent", f"{verb}d", ("systemctl", verb, name)))
        running = active in {"active", "activating", "reloading"}
        if unit.get("active") is not None and bool(unit["active"]) != running:
            verb, after = ("start", "active") if unit["active"] else ("stop", "inactive")
            steps.append(Step(f"unit {name}", active or "absent", after, ("systemctl", verb, name)))
        return steps
