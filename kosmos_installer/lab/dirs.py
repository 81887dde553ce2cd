"""Where a lab keeps its things on the operator's machine (XDG base directories)."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kosmos_installer.errors import ExitCode, KosmosError
from kosmos_installer.paths import cache_dir, state_dir

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?")


@dataclass(frozen=True)
class Dirs:
    """State (labs, locks), cache (tools, images, golden machines) and a short-lived directory for sockets."""

    state: Path
    cache: Path
    sockets: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Dirs:
        """Read the XDG variables; the socket directory must be short, since a socket path ends at 107 bytes."""
        env = os.environ if environ is None else environ
        runtime = Path(env.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
        return cls(
            state=state_dir(env),
            cache=cache_dir(env),
            sockets=runtime.absolute() if runtime.is_dir() else Path(tempfile.gettempdir()).absolute(),
        )

    def lab(self, name: str) -> Path:
        """Return the directory of one lab; raise `KosmosError` (exit code 2) for a name that is no host name label."""
        if not _NAME.fullmatch(name):
            raise KosmosError(
                f"'{name}' cannot name a lab",
                why="the name becomes a host name: lower-case letters, digits and hyphens, 1 to 32, a letter first",
                cure="choose a name such as 'lab' or 'lab-two'",
                exit_code=ExitCode.USAGE,
            )
        return self.state / "labs" / name

    def locks(self) -> Path:
        """Return the directory of the lock files, which are never removed (removing one would break its exclusion)."""
        return self.state / "locks"
