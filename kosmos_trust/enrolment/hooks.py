"""The programs of the service that uses a certificate: one judges its configuration, one makes it read anew."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import InstallError
from .openssl import last_words


@dataclass(frozen=True)
class Hooks:
    """Argument lists, never shell; an empty one is not run. `nginx -t` and `systemctl reload nginx`, for example."""

    validate: Sequence[str] = ()
    reload: Sequence[str] = ()
    timeout_seconds: float = 60.0

    def take_over(self) -> None:
        """Validate, then reload. Raises InstallError with the program's last words."""
        self._run("validate", self.validate)
        self._run("reload", self.reload)

    def reload_only(self) -> None:
        """Reload. Raises InstallError."""
        self._run("reload", self.reload)

    def _run(self, what: str, command: Sequence[str]) -> None:
        if not command:
            return
        try:
            done = subprocess.run(
                list(command),
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=self.timeout_seconds,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InstallError(f"{what} command '{command[0]}' did not run: {type(error).__name__}") from error
        if done.returncode != 0:
            said = last_words(done.stdout + done.stderr)
            raise InstallError(f"{what} command '{command[0]}' failed ({done.returncode}): {said}")
