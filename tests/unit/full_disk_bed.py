"""A disk that is full, for one action: in a process of its own whose files cannot grow."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable

#: The exit code of an action that was told so: it raised one of the errors that it may raise.
TOLD = 7


def limited(action: Callable[[], object], size: int, *may_raise: type[Exception]) -> int:
    """Run `action` where no file grows beyond `size` bytes; return 0, TOLD, or 9 for any other exception."""
    child = os.fork()
    if child == 0:
        status = 9
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            action()
            status = 0
        except may_raise:
            status = TOLD
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
