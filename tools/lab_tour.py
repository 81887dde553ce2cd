#!/usr/bin/env python3
"""From nothing to a proven appliance in a VM: lab up, apply, reboot, verify. Prints each command before it runs.

The first command that fails ends the tour with its own exit code; its message says what to do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kosmos_installer.errors import KosmosError  # noqa: E402 - the line above makes it importable
from kosmos_installer.lab.lab import Lab  # noqa: E402
from kosmos_installer.lab.progress import Progress  # noqa: E402

LAB = "lab"
INVENTORY = f"inventories/{LAB}"
INSTALLER = str(Path(sys.executable).with_name("kosmos-install"))


def command(*words: str) -> None:
    """Run one verb of kosmos-install. Raises CalledProcessError."""
    print(f"\n$ kosmos-install {' '.join(words)}", flush=True)
    subprocess.run([INSTALLER, *words], cwd=ROOT, check=True)


def reboot() -> None:
    """Restart the machine in order, so that what follows proves what survives."""
    print("\n$ (inside the lab) systemctl reboot", flush=True)
    seconds = Lab(LAB, progress=Progress()).reboot()
    print(f"The machine answers again after {seconds:.0f} s.")


def main() -> int:
    """Walk; return the exit code of the step that failed, else 0."""
    steps: dict[str, Callable[[], None]] = {
        "up": lambda: command("lab", "up", "--name", LAB),
        "apply": lambda: command("apply", "-i", INVENTORY),
        "reboot": reboot,
        "verify": lambda: command("verify", "-i", INVENTORY),
    }
    times = []
    for name, step in steps.items():
        start = time.monotonic()
        try:
            step()
        except subprocess.CalledProcessError as error:
            return error.returncode
        except KosmosError as error:
            print(error, file=sys.stderr)
            return int(error.exit_code)
        times.append(f"{name} {time.monotonic() - start:.0f} s")
    print(f"\nProven after a reboot. {', '.join(times)}.")
    print(f"Go on with: kosmos-install lab ssh | kosmos-install apply -i {INVENTORY} (changes nothing) | make bench")
    print("End it with: kosmos-install lab down")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
