"""Breaks, looks and repairs inside the machine: one process there, one JSON line per request.

The engine travels as a zip with exactly the files that the module host_check carries. The process that runs there is
this file again (`__main__` of the zip); it knows two requests: {"shell": text} and {"evaluate": batch}.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

REPOSITORY = Path(__file__).parents[2]
UTILS = "ansible_collections/kosmos/appliance/plugins/module_utils"
CARRIED = (
    "checks/*.py", "checks/probes/*.py", "host/__init__.py", "host/system.py",
    "trust/__init__.py", "trust/eventlog.py", "trust/tpm.py",
)  # fmt: skip
REMOTE = "/run/kosmos-check-driver.zip"
SHELL_SECONDS = 120


class Way(Protocol):
    """What starts a command in the machine: `kosmos_installer.lab.ssh.Ssh`."""

    def argv(self, *words: str, root: bool = False) -> list[str]:
        """Return the command line that runs `words` there."""


def archive() -> bytes:
    """Return the zip that Python can run."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write(__file__, "__main__.py")
        for parent in (UTILS, *map(str, Path(UTILS).parents[:-1])):
            packed.writestr(f"{parent}/__init__.py", "")
        for pattern in CARRIED:
            for path in sorted((REPOSITORY / "plugins/module_utils").glob(pattern)):
                packed.write(path, f"{UTILS}/{path.relative_to(REPOSITORY / 'plugins/module_utils')}")
    return buffer.getvalue()


class Driver:
    """The near end. A context manager: leaving it ends the process in the machine."""

    def __init__(self, way: Way) -> None:
        sent = subprocess.run(
            way.argv(f"base64 -d > {REMOTE}", root=True),
            input=base64.b64encode(archive()).decode(), text=True, capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        assert sent.returncode == 0, sent.stderr
        self.process = subprocess.Popen(
            way.argv(f"exec python3 {REMOTE}", root=True),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)

    def _ask(self, request: Mapping[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"the driver in the machine ended with {self.process.poll()}"
        return json.loads(answer)

    def shell(self, text: str) -> tuple[int, str]:
        """Run shell text as root; return its exit code and its output."""
        code, output = self._ask({"shell": text})
        return int(code), str(output)

    def evaluate(self, batch: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return one result per check of the batch."""
        results: list[dict[str, Any]] = self._ask({"evaluate": list(batch), "reference_time": time.time()})
        return results


def _run_shell(text: str) -> tuple[int, str]:
    # A file and not a pipe: what a break leaves running in the background must not keep us waiting.
    with tempfile.TemporaryFile("w+") as output:
        command = ["sh", "-euc", text]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=SHELL_SECONDS, check=False
        )
        output.seek(0)
        return done.returncode, output.read()


def serve() -> None:
    """Answer requests until the input ends."""
    from ansible_collections.kosmos.appliance.plugins.module_utils.checks import engine, model

    for line in sys.stdin:
        request = json.loads(line)
        if "shell" in request:
            answer: Any = _run_shell(request["shell"])
        else:
            host = model.Host(root=Path("/"), now=time.time, reference_time=request["reference_time"])
            answer = engine.evaluate(request["evaluate"], host)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
