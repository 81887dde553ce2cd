"""Folders that move onto the volume: nothing lost, nothing overwritten, cut anywhere; units and swap."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from storage_bed import PowerCut, need

from kosmos_trust.storage import move as moving
from kosmos_trust.storage import programs, swap, units
from kosmos_trust.storage.errors import StorageError
from kosmos_trust.storage.luks import Seal
from kosmos_trust.storage.plan import Plan

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and attributes of all kinds take root")


def fill(folder: Path) -> None:
    (folder / "sub/empty").mkdir(parents=True)
    (folder / "file").write_bytes(os.urandom(5000))
    (folder / "sub/secret").write_text("s")
    (folder / "sub/secret").chmod(0o600)
    os.chown(folder / "sub/secret", 1234, 4321)
    (folder / "link").symlink_to("sub/secret")
    os.link(folder / "file", folder / "sub/twin")
    os.mkfifo(folder / "pipe")
    with (folder / "sparse").open("wb") as stream:
        stream.truncate(1 << 20)
    os.utime(folder / "file", ns=(1, 1_000_000_007))
    folder.chmod(0o750)
    os.chown(folder, 0, 77)


def facts(folder: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        link = path.readlink() if path.is_symlink() else None
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_uid, status.st_gid, content, link)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "var/lib/kosmos"
    folder.mkdir(parents=True)
    fill(folder)
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "volume").mkdir()
    return tmp_path / "volume/kosmos"


def test_a_folder_moves_with_everything(folder: Path, target: Path) -> None:
    before, times = facts(folder), (folder / "file").stat().st_mtime_ns
    moving.move(folder, target)
    assert facts(target) == before
    assert (target / "file").stat().st_mtime_ns == times
    assert (target / "sub/twin").stat().st_ino == (target / "file").stat().st_ino
    assert facts(moving.old_copy(folder)) == before
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o7777 == 0o750
    assert folder.stat().st_gid == 77
    assert moving.is_moved(folder, target)
    moving.move(folder, target)
    assert facts(target) == before


def test_a_folder_that_is_not_there_becomes_an_empty_one(tmp_path: Path, target: Path) -> None:
    moving.move(tmp_path / "var/lib/rancher", target)
    assert target.is_dir()
    assert (tmp_path / "var/lib/rancher").is_dir()


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("when", ["before", "torn", "after"])
def test_a_cut_while_copying_begins_again(folder: Path, target: Path, number: int, when: str) -> None:
    before, calls = facts(folder), 0

    def cutting(command: programs.Command, stdin: bytes | None = None) -> programs.Done:
        nonlocal calls
        calls += 1
        if calls - 1 != number:
            return programs.run(command, stdin)
        if when != "before":
            programs.run(command, stdin)
        if when == "torn":
            partial = target.with_name("kosmos.partial")
            (partial / "file").write_bytes(b"half")
            shutil.rmtree(partial / "sub")
        raise PowerCut

    with pytest.raises(PowerCut):
        moving.move(folder, target, cutting)
    assert facts(folder) == before
    assert not target.exists()
    moving.move(folder, target)
    assert facts(target) == before
    assert not target.with_name("kosmos.partial").exists()


@pytest.mark.parametrize("renames", [1, 2])
def test_a_cut_between_the_renames_goes_on(
    folder: Path, target: Path, renames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, calls, real = facts(folder), 0, Path.rename

    def cutting(self: Path, to: Path) -> Path:
        nonlocal calls
        done = real(self, to)
        calls += 1
        if calls == renames:
            raise PowerCut
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", cutting)
        with pytest.raises(PowerCut):
            moving.move(folder, target)
    moving.move(folder, target)
    assert facts(target) == before
    assert moving.is_moved(folder, target)


CHANGES = {
    "a file grows": lambda top: (top / "file").open("ab").write(b"x"),
    "a file appears": lambda top: (top / "new").write_text("x"),
    "a file goes": lambda top: (top / "sub/secret").unlink(),
    "a mode": lambda top: (top / "file").chmod(0o666),
    "an owner": lambda top: os.chown(top / "file", 5, 5),
    "a link": lambda top: ((top / "link").unlink(), (top / "link").symlink_to("elsewhere")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_writer_that_was_not_stopped_is_noticed(folder: Path, target: Path, name: str) -> None:
    def run(command: programs.Command, stdin: bytes | None = None) -> programs.Done:
        done = programs.run(command, stdin)
        if command.argv[0] == "sync":
            CHANGES[name](folder)
        return done

    with pytest.raises(StorageError, match="stop whatever writes"):
        moving.move(folder, target, run)
    assert not target.exists()
    assert not moving.old_copy(folder).exists()


def test_a_writer_in_the_last_moment_is_noticed(folder: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the copy was compared and renamed, before the old folder makes way."""
    real = Path.rename

    def writing(self: Path, to: Path) -> Path:
        done = real(self, to)
        (folder / "late").write_text("x")
        return done

    monkeypatch.setattr(Path, "rename", writing)
    with pytest.raises(StorageError, match="stop whatever writes"):
        moving.move(folder, target)
    assert (folder / "late").exists()
    assert not moving.old_copy(folder).exists()


def test_a_bit_that_the_disk_lost_is_noticed(folder: Path, target: Path) -> None:
    """Same size, same time, another content: only reading shows it."""

    def run(command: programs.Command, stdin: bytes | None = None) -> programs.Done:
        done = programs.run(command, stdin)
        if command.argv[0] == "sync":
            copy = target.with_name("kosmos.partial") / "file"
            status, raw = copy.stat(), bytearray(copy.read_bytes())
            raw[100] ^= 1
            copy.write_bytes(raw)
            os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
        return done

    with pytest.raises(StorageError, match="the content of"):
        moving.move(folder, target, run)


def test_data_on_both_sides_is_never_overwritten(folder: Path, target: Path) -> None:
    target.mkdir()
    (target / "other").write_text("x")
    with pytest.raises(StorageError, match="other data on the volume"):
        moving.move(folder, target)
    assert (target / "other").read_text() == "x"
    shutil.rmtree(target)
    moving.move(folder, target)
    (folder / "written in clear").write_text("x")
    with pytest.raises(StorageError, match="old copy"):
        moving.move(folder, target)


def test_a_link_is_refused(tmp_path: Path, target: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(StorageError, match="not a folder"):
        moving.move(link, target)


def test_the_old_copy_goes_only_when_the_new_one_is_mounted(folder: Path, target: Path) -> None:
    moving.move(folder, target)
    old = moving.old_copy(folder)
    with pytest.raises(StorageError, match="the old copy stays"):
        moving.discard_old(folder, target)
    assert old.exists()
    mounted = subprocess.run(["mount", "--bind", str(target), str(folder)], check=False, capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"mount --bind is refused: {mounted.stderr.decode().strip()}")
    try:
        moving.discard_old(folder, target)
        assert not old.exists()
        assert (folder / "file").exists()
    finally:
        subprocess.run(["umount", str(folder)], check=True)


PLAN = Plan("/dev/disk/by-id/x", folders=("/var/lib/kosmos", "/var/lib/rancher", "/srv/a b-c"))
UUID = "0b9df01c-7c40-4bd1-8d0e-3f1f6f2f6d11"


@pytest.mark.parametrize("text", ["/var/lib/kosmos", "/srv/a b-c", "/", "/srv/.hidden", "/.x", "/srv/ä", "/a/b:c_d.e"])
def test_unit_names_are_those_of_systemd(text: str) -> None:
    need("systemd-escape")
    told = subprocess.run(["systemd-escape", "--path", text], capture_output=True, text=True, check=True).stdout
    assert units.escaped_path(Path(text)) == told.strip()


def test_units_are_accepted_by_systemd(tmp_path: Path) -> None:
    need("systemd-analyze")
    files = [*units.mount_units(PLAN), units.waiting_drop_in("k3s.service", ["/var/lib/kosmos"])]
    (tmp_path / "k3s.service").write_text("[Service]\nExecStart=/bin/true\n")
    for one in files:
        path = tmp_path / Path(one.path).relative_to("/etc/systemd/system")
        path.parent.mkdir(exist_ok=True)
        path.write_text(one.text)
    mounts = [str(tmp_path / Path(one.path).name) for one in files[:-1]]
    command = ["systemd-analyze", "verify", "--man=no", *mounts, str(tmp_path / "k3s.service")]
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "kosmos" in line]
    assert not ours, done.stderr


def test_the_volume_is_opened_headless_and_mounted_without_holding_up_the_boot() -> None:
    line = units.crypttab_line(PLAN, UUID)
    name, source, key, options = line.split(" ")
    assert (name, source, key) == ("kosmos-data", f"UUID={UUID}", "none")
    given = options.split(",")
    assert {"headless=true", "nofail", "tpm2-device=auto", "tpm2-measure-pcr=yes"} <= set(given)
    assert not {"discard", "x-initrd.attach"} & set(given)
    assert units.crypttab_line(PLAN, UUID, discard=True, measure=False).endswith(",discard")
    initrd = Plan("/dev/x", seal=Seal(literal_zero=(12, 15)))
    assert "x-initrd.attach" in units.crypttab_line(initrd, UUID)
    for one in units.mount_units(PLAN):
        assert "local-fs.target" not in one.text
        assert "WantedBy=multi-user.target" in one.text


def test_swap_is_judged_by_where_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/swaps").write_text(
        "Filename Type Size Used Priority\n/dev/zram0 p 1 0 1\n/dev/zram1 p 1 0 1\n/dev/dm-1 p 1 0 1\n"
        "/dev/dm-2 p 1 0 1\n/dev/sda3 p 1 0 1\n/swap\\040file file 1 0 1\n"
    )
    for name, content in {
        "zram0/backing_dev": "none\n", "zram1/backing_dev": "/dev/sda9\n",
        "dm-1/dm/uuid": "CRYPT-PLAIN-swap\n", "dm-2/dm/uuid": "LVM-x\n",
    }.items():  # fmt: skip
        path = tmp_path / "sys/block" / name
        path.parent.mkdir(parents=True)
        path.write_text(content)
    found = {one.path: one.safe for one in swap.active(tmp_path)}
    assert found == {
        "/dev/zram0": True, "/dev/zram1": False, "/dev/dm-1": True, "/dev/dm-2": False, "/dev/sda3": False,
        "/swap file": False,
    }  # fmt: skip
