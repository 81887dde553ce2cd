"""QEMU's control protocol over its socket (QEMU Machine Protocol: one JSON object a line)."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any

from kosmos_installer.errors import KosmosError


class Qmp:
    """A connection, used as a context manager; events are skipped."""

    def __init__(self, path: Path, timeout_seconds: float = 60.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_seconds)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("r", encoding="utf-8")
        self._next()
        self.execute("qmp_capabilities")

    def __enter__(self) -> Qmp:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()

    def _next(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise KosmosError(
                "QEMU closed its control socket", why="the virtual machine has ended", cure="see qemu.log"
            )
        message: dict[str, Any] = json.loads(line)
        return message

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run one command (underscores in argument names become hyphens) and return its result."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._socket.sendall(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
        while True:
            answer = self._next()
            if "error" in answer:
                raise KosmosError(f"QEMU refused '{command}'", why=answer["error"].get("desc", ""))
            if "return" in answer:
                return answer["return"]
