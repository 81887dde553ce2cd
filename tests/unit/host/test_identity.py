"""Name, time zone and locale: written, recorded once, restored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.kosmos.appliance.plugins.module_utils.host.identity import IdentityFiles, declared
from ansible_collections.kosmos.appliance.plugins.module_utils.host.system import HostError

HOSTS = "127.0.0.1\tlocalhost\n127.0.1.1\tdebian\n10.0.0.9 printer\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("etc", "usr/share/zoneinfo/Etc", "usr/share/zoneinfo/Europe", "var/lib"):
        (tmp_path / folder).mkdir(parents=True)
    for zone in ("Etc/UTC", "Europe/Berlin"):
        (tmp_path / "usr/share/zoneinfo" / zone).write_text("TZif")
    (tmp_path / "etc/hostname").write_text("debian\n")
    (tmp_path / "etc/hosts").write_text(HOSTS)
    (tmp_path / "etc/locale.conf").write_text("# kept\nLANG=en_US.UTF-8\nLC_TIME=C\n")
    (tmp_path / "etc/localtime").symlink_to("/usr/share/zoneinfo/Etc/UTC")
    return tmp_path


WANTED = declared("kosmos", "example.internal", "Europe/Berlin", "C.UTF-8")


def test_everything_is_written_and_the_second_run_finds_nothing(root: Path) -> None:
    files = IdentityFiles(root=root)
    assert set(files.differs(WANTED)) == {"hostname", "hosts_line", "timezone", "locale"}
    files.apply(WANTED)
    assert files.differs(WANTED) == {}
    assert (root / "etc/hosts").read_text().splitlines() == [
        "127.0.0.1\tlocalhost",
        "127.0.1.1\tkosmos.example.internal kosmos",
        "10.0.0.9 printer",
    ]
    assert (root / "etc/locale.conf").read_text() == "# kept\nLC_TIME=C\nLANG=C.UTF-8\n"
    assert str((root / "etc/localtime").readlink()) == "/usr/share/zoneinfo/Europe/Berlin"


def test_the_origin_is_recorded_once_and_restored_exactly(root: Path) -> None:
    files = IdentityFiles(root=root)
    files.apply(WANTED)
    files.apply(declared("other", "", "Etc/UTC", "C.UTF-8"))
    assert json.loads(files.origin.read_text())["hostname"] == "debian"
    original = files.original()
    assert original is not None
    files.apply(original, restoring=True)
    files.forget()
    assert (root / "etc/hosts").read_text() == HOSTS
    assert (root / "etc/hostname").read_text() == "debian\n"
    assert files.read().locale == "en_US.UTF-8"
    assert not files.origin.parent.exists()


def test_a_missing_hosts_line_is_added_after_localhost_and_removed_again(root: Path) -> None:
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    files = IdentityFiles(root=root)
    files.apply(WANTED)
    assert (root / "etc/hosts").read_text().splitlines()[1].startswith("127.0.1.1")
    original = files.original()
    assert original is not None
    files.apply(original, restoring=True)
    assert (root / "etc/hosts").read_text() == "127.0.0.1 localhost\n::1 localhost\n"


def test_the_kernels_name_follows_and_drift_is_seen(root: Path) -> None:
    names = ["debian"]
    files = IdentityFiles(
        root=root, set_kernel_name=lambda name: names.__setitem__(0, name), kernel_name=lambda: names[0]
    )
    files.apply(WANTED)
    assert names == ["kosmos"]
    names[0] = "drifted"
    assert set(files.differs(WANTED)) == {"hostname"}


def test_an_unknown_time_zone_changes_nothing(root: Path) -> None:
    with pytest.raises(HostError) as caught:
        IdentityFiles(root=root).apply(declared("kosmos", "", "Mars/Olympus", "C.UTF-8"))
    assert caught.value.reason == "timezone"
    assert (root / "etc/hostname").read_text() == "debian\n"
