"""A power cut, as far as a process can have one: a child ends before the n-th call that changes the disk.

No handler, no `finally` and no buffer of the program survives it. What the disk itself may lose is not modelled.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

FINISHED, CUT, FAILED = 0, 17, 18
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}


def run_until(call: int, action: Callable[[], object]) -> bool:
    """Run `action` in a child that dies before its change number `call`; return whether it reached its end.

    A call counts as a change when it creates, renames, removes or flushes. An exception in the child is an error here.
    """
    child = os.fork()
    if child == 0:
        try:
            _arm(call)
            action()
            os._exit(FINISHED)
        except BaseException:
            traceback.print_exc()
            os._exit(FAILED)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (FINISHED, CUT), f"the child failed with {code}"
    return code == FINISHED


def _arm(call: int) -> None:
    left = call

    def count() -> None:
        nonlocal left
        if left == 0:
            os._exit(CUT)
        left -= 1

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        creates = event == "open" and isinstance(arguments[2], int) and bool(arguments[2] & os.O_CREAT)
        if creates or event in CHANGES:
            count()

    def fsync(descriptor: int) -> None:
        count()

    os.fsync = fsync  # a process that dies loses no page, so there is nothing to flush
    sys.addaudithook(hook)
