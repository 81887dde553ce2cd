"""The modules sysctl and file_modes against a fixture root: check, real, second run, and the way back."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from ansible_collections.kosmos.appliance.plugins.module_utils.host.sysctl import KernelSettings, expand
from ansible_collections.kosmos.appliance.plugins.modules import file_modes, sysctl

Run = Callable[..., dict[str, Any]]
FILE = "/etc/sysctl.d/99-zz-kosmos-hardening.conf"
SETTINGS = {"kernel.dmesg_restrict": 1, "net.ipv4.conf.*.send_redirects": 0, "kernel.not_there": 1}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a module's main with arguments; return its answer."""

    def _run(module: Any, check: bool = False, **arguments: Any) -> dict[str, Any]:
        # The serialisation profile is what Ansible itself hands to a module.
        basic._PARSED_MODULE_ARGS = None
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            module.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    return _run


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    values = {"kernel/dmesg_restrict": "0"}
    values |= {f"net/ipv4/conf/{name}/send_redirects": "1" for name in ("all", "default", "enp0s7.100")}
    for name, value in values.items():
        path = tmp_path / "proc/sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return tmp_path


def read(root: Path, name: str) -> str:
    return (root / "proc/sys" / name).read_text().strip()


def test_sysctl_checks_sets_keeps_and_gives_back(run: Run, kernel: Path) -> None:
    arguments = {"path": FILE, "settings": SETTINGS, "root": str(kernel)}
    told = run(sysctl, check=True, **arguments)
    assert told["changed"]
    assert read(kernel, "kernel/dmesg_restrict") == "0"
    assert not (kernel / FILE.lstrip("/")).exists()

    done = run(sysctl, **arguments)
    assert done["changed"]
    assert done["keys"] == told["keys"]
    assert done["unknown"] == ["kernel.not_there"]
    # A dot in the name of an interface is no separator.
    assert read(kernel, "net/ipv4/conf/enp0s7.100/send_redirects") == "0"
    assert "net.ipv4.conf.*.send_redirects = 0\n" in (kernel / FILE.lstrip("/")).read_text()

    assert not run(sysctl, **arguments)["changed"]
    (kernel / "proc/sys/kernel/dmesg_restrict").write_text("7\n")
    assert run(sysctl, **arguments)["keys"] == ["kernel.dmesg_restrict"], "drift of the running kernel is mended"

    back = run(sysctl, **{**arguments, "settings": {}, "state": "absent"})
    assert back["changed"]
    assert read(kernel, "kernel/dmesg_restrict") == "0", "the value before the first run, not the drifted one"
    assert read(kernel, "net/ipv4/conf/all/send_redirects") == "1"
    assert not list((kernel / "var/lib/kosmos/sysctl").iterdir())
    assert not run(sysctl, **{**arguments, "settings": {}, "state": "absent"})["changed"]


def test_sysctl_remembers_before_it_writes(kernel: Path) -> None:
    """A cut between the two leaves what reset needs."""
    (kernel / "etc").write_text("in the way of /etc/sysctl.d")
    settings = KernelSettings(FILE, kernel)
    with pytest.raises(OSError):
        settings.apply(settings.declare(SETTINGS))
    assert json.loads(settings.memory.read_text())["kernel/dmesg_restrict"] == "0"


def test_sysctl_leaves_a_foreign_kernel_alone(run: Run, kernel: Path) -> None:
    done = run(sysctl, path=FILE, settings=SETTINGS, root=str(kernel), live=False)
    assert done["changed"]
    assert done["keys"] == []
    assert read(kernel, "kernel/dmesg_restrict") == "0"


def test_sysctl_names_what_the_kernel_refuses(run: Run, kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"path": FILE, "settings": {"kernel.dmesg_restrict": 1}, "root": str(kernel)}
    assert run(sysctl, **arguments)["keys"] == ["kernel.dmesg_restrict"]
    write = Path.write_text

    def one_way(path: Path, text: str, **options: Any) -> int:
        if path.name == "dmesg_restrict":
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(path))
        return write(path, text, **options)

    monkeypatch.setattr(Path, "write_text", one_way)
    failed = run(sysctl, **{**arguments, "settings": {"kernel.dmesg_restrict": 2}})
    assert failed["failed"]
    assert "kernel.dmesg_restrict: the kernel refuses '2' (it has '1'): Operation not permitted" in failed["msg"]
    assert failed["cure"] in failed["msg"]

    back = run(sysctl, **{**arguments, "settings": {}, "state": "absent"})
    assert back["changed"], "the file went"
    assert back["until_reboot"] == ["kernel.dmesg_restrict"]
    assert not run(sysctl, **{**arguments, "settings": {}, "state": "absent"})["changed"]


@pytest.mark.parametrize(
    ("patterns_first", "expected"), [({"net.*.x": 1, "net.a.x": 2}, "2"), ({"net.a.x": 2, "net.*.x": 1}, "2")]
)
def test_a_plain_key_wins_over_a_pattern(tmp_path: Path, patterns_first: dict[str, object], expected: str) -> None:
    (tmp_path / "proc/sys/net/a").mkdir(parents=True)
    (tmp_path / "proc/sys/net/a/x").write_text("0")
    assert expand(tmp_path, patterns_first) == ({"net/a/x": expected}, [])


def test_file_modes_only_takes_away_and_gives_back(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "etc/cron.d"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    key = tmp_path / "etc/ssh_host_key"
    key.touch()
    key.chmod(0o400)
    (tmp_path / "etc/link").symlink_to("cron.d")
    rules = [{"paths": ["/etc/cron.d", "/etc/link", "/etc/none"], "mode_max": "0700"}]
    rules += [{"paths": ["/etc/ssh_*"], "mode_max": "0600"}]
    arguments = {"name": "test", "rules": rules, "root": str(tmp_path)}

    assert run(file_modes, check=True, **arguments)["paths"] == ["/etc/cron.d"]
    assert folder.stat().st_mode & 0o7777 == 0o755
    assert run(file_modes, **arguments)["paths"] == ["/etc/cron.d"]
    assert folder.stat().st_mode & 0o7777 == 0o700
    assert key.stat().st_mode & 0o7777 == 0o400, "a bit that is missing is never added"
    assert not run(file_modes, **arguments)["changed"]

    assert run(file_modes, **{**arguments, "rules": [], "state": "absent"})["paths"] == ["/etc/cron.d"]
    assert folder.stat().st_mode & 0o7777 == 0o755
    assert not run(file_modes, **{**arguments, "rules": [], "state": "absent"})["changed"]
