"""What the tests of a whole machine carry there is all that the engine imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.appliance.check_driver import archive


def test_the_archive_evaluates_a_check_without_anything_installed(tmp_path: Path) -> None:
    packed = tmp_path / "driver.zip"
    packed.write_bytes(archive())
    check = {
        "id": "host.demo.here", "title": "A command answers", "severity": "low", "phase": "verify",
        "probe": {"kind": "command", "argv": ["echo", "here"]}, "needed": "here", "cure": "None needed.", "refs": [],
    }  # fmt: skip
    # -I and -S: neither the environment nor site-packages helps.
    done = subprocess.run(
        [sys.executable, "-I", "-S", packed],
        input=json.dumps({"evaluate": [check], "reference_time": 0.0}) + "\n",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert result["pass"], result
