"""One whole operation as a process of its own: `run_driver.py CASE STATE_FOLDER WORK_FOLDER MODE`."""

from __future__ import annotations

import sys
from pathlib import Path

import record_events

from kosmos_installer.errors import KosmosError
from kosmos_installer.operation import Operation
from kosmos_installer.targets import Target, Targets
from kosmos_installer.view import Mode, make_view


def main(name: str, state: str, work: str, mode: str) -> int:
    """Run a recorded case through lock, record and view; the exit code is that of the product."""
    folder = Path(work)
    operation = Operation(
        spec=record_events.spec(record_events.CASES[name], folder),
        targets=Targets((Target("box", "local"),), ()),
        environment=record_events.environment(folder),
        cwd=record_events.PROJECT,
        state_dir=Path(state),
        view=make_view(Mode(mode), sys.stdout, sys.stderr),
    )
    try:
        return int(operation.execute().exit_code)
    except KosmosError as error:
        sys.stderr.write(error.text() + "\n")
        return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
