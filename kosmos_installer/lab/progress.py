"""Progress lines with elapsed seconds, on standard error so that standard output stays data."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO


class Progress:
    """Writes one line per step: `[  12.3 s] Building the base image`."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._began = clock()

    def say(self, text: str) -> None:
        """Write one line at once, so that a pipe sees it while the step still runs."""
        self._stream.write(f"[{self._clock() - self._began:7.1f} s] {text}\n")
        self._stream.flush()


class Silence(Progress):
    """Says nothing; for `--quiet` and for tests."""

    def say(self, text: str) -> None:
        """Swallow the line."""
