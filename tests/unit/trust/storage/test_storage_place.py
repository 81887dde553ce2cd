"""From an opened volume to a finished install. dm-crypt is the one thing that is stood in for: the kernel of a test
machine may not have it. The mapping is a loop device; mkfs, blkid, mount, cp and all proofs are real."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from storage_bed import Bed, PowerCut, SoftwareTpm, memory, need, need_tpm

from kosmos_trust.storage import place, recovery, report
from kosmos_trust.storage.errors import StorageError, WaitingError
from kosmos_trust.storage.plan import Plan
from kosmos_trust.storage.programs import Command, Done
from kosmos_trust.storage.volume import Volume

pytestmark = pytest.mark.timeout(240)
LUKS_DATA_AT = 16 << 20


class LoopBed(Bed):
    """`cryptsetup open` attaches a loop device where dm-crypt would map: what lies there is then not encrypted."""

    loop = ""

    def volume(self, **changes: object) -> Volume:
        volume = super().volume(**changes)
        volume.plan = Mapped(**{**vars(volume.plan), **changes, "loop": self.loop})  # type: ignore[arg-type]
        return volume

    def _real(self, command: Command, stdin: bytes | None = None) -> Done:
        if command.argv[:2] == ("cryptsetup", "open") and "--test-passphrase" not in command.argv:
            self.attach()
            return Done(0, "", "")
        return super()._real(command, stdin)

    def attach(self) -> None:
        command = ["losetup", "--find", "--show", "--offset", str(LUKS_DATA_AT), str(self.image)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        subprocess.run(["ln", "-sf", done.stdout.strip(), self.loop], check=True)

    def detach(self) -> None:
        subprocess.run(
            ["umount", "--quiet", "--recursive", str(self.plan.mountpoint)], check=False, capture_output=True
        )
        if self.loop and Path(self.loop).exists():
            subprocess.run(["losetup", "--detach", str(Path(self.loop).resolve())], check=True)
        Path(self.loop).unlink(missing_ok=True)


class Mapped(Plan):
    """A plan whose mapping is the loop device."""

    def __init__(self, loop: str, **fields: object) -> None:
        super().__init__(**fields)  # type: ignore[arg-type]
        object.__setattr__(self, "loop", loop)

    @property
    def mapping(self) -> Path:
        return Path(vars(self)["loop"])


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bed, bytes]]:
    """A volume that only the TPM and the operator open; each test gets a copy."""
    need_tpm()
    need("cryptsetup", "wipefs", "blkid", "unshare", "mkfs.ext4", "losetup")
    probe = subprocess.run(["losetup", "--find"], capture_output=True, check=False)
    if probe.returncode != 0 or os.geteuid() != 0:
        pytest.skip("loop devices take root and a kernel that has them")
    with memory() as folder:
        bed = Bed(tmp_path_factory.mktemp("sealed"), folder, SoftwareTpm(tmp_path_factory.mktemp("tpm")))
        assert bed.tpm is not None
        bed.tpm.sign_policy(bed.plan.seal.signature)
        bed.volume().prepare()
        key = bed.volume().new_recovery_key()
        bed.volume().drill(key)
        bed.volume().enrol_tpm()
        bed.volume().prove_tpm()
        yield bed, key


@pytest.fixture
def bed(sealed: tuple[Bed, bytes], tmp_path: Path) -> Iterator[LoopBed]:
    model, _ = sealed
    with memory() as folder:
        made = LoopBed(tmp_path, folder, model.tpm)
        shutil.copy(model.image, made.image)
        shutil.copytree(model.plan.state, made.plan.state)
        made.plan.seal.signature.write_text(model.plan.seal.signature.read_text())
        made.plan.seal.public_key.write_bytes(model.plan.seal.public_key.read_bytes())
        data = tmp_path / "var/lib/kosmos"
        data.mkdir(parents=True)
        (data / "ledger").write_text("entry")
        made.plan = replace(made.plan, folders=(str(data), str(tmp_path / "var/lib/rancher")))
        made.loop = str(tmp_path / "mapping")
        try:
            yield made
        finally:
            made.detach()


def test_an_install_goes_to_its_end_and_says_so(bed: LoopBed) -> None:
    with pytest.raises(WaitingError, match="acknowledge --by NAME"):
        place.advance(bed.volume())
    assert bed.volume().state == "moved"
    recovery.acknowledge(bed.volume(), "Ada Lovelace")
    assert place.advance(bed.volume()) == "finished"
    moved = bed.plan.mountpoint / bed.plan.folders[0].lstrip("/") / "ledger"
    assert moved.read_text() == "entry"
    told = report.collect(bed.volume())
    assert json.loads(json.dumps(told))["state"] == "finished"
    assert [folder["on_volume"] for folder in told["folders"]] == [True, True]
    assert [folder["old_copy_in_clear"] for folder in told["folders"]] == [True, False]
    text = "\n".join(report.lines(told))
    assert "kept by Ada Lovelace" in text
    assert "OLD COPY IN CLEAR" in text
    assert "never seen" in text
    commands = len(bed.commands)
    assert place.advance(bed.volume()) == "finished"
    assert not [one for one in bed.commands[commands:] if one.argv[0] in ("mkfs.ext4", "mount", "cp")]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_cut_at_any_command_of_the_second_half_converges(bed: LoopBed, when: str) -> None:
    """Run, stop at a command that was not stopped at yet, run again, until nothing is left to stop at."""
    recovery.acknowledge(bed.volume(), "Ada")
    seen: set[str] = set()
    while _next_changing(bed, seen, when) is not None:
        pass
    assert {one.split()[0] for one in seen} == {"cryptsetup", "systemd-cryptenroll", "mkfs.ext4", "mount", "cp", "sync"}
    assert bed.volume().state == "finished"
    moved = bed.plan.mountpoint / bed.plan.folders[0].lstrip("/") / "ledger"
    assert moved.read_text() == "entry"
    assert sum(command.argv[0] == "mkfs.ext4" for command in bed.commands) <= 2


def _next_changing(bed: LoopBed, seen: set[str], when: str) -> str | None:
    """Run until a kind of command that was not cut yet, and cut there; None when the run came to its end."""
    real = bed.run

    def cutting(command: Command, stdin: bytes | None = None) -> Done:
        kind = f"{command.argv[0]} {command.argv[1]}"
        if kind in seen or command.argv[0] in ("blkid", "wipefs") or "luksDump" in command.argv:
            return real(command, stdin)
        seen.add(kind)
        if when == "after":
            real(command, stdin)
        raise PowerCut(kind)

    volume = bed.volume()
    volume.run = cutting
    try:
        place.advance(volume)
    except PowerCut as cut:
        return str(cut)
    return None


def test_a_file_system_is_never_made_twice(bed: LoopBed) -> None:
    volume = bed.volume()
    volume.wipe_temporary()
    place.make_filesystem(volume)
    with bed.image.open("r+b") as stream:
        stream.seek(LUKS_DATA_AT)
        stream.write(bytes(1 << 20))
    subprocess.run(["blockdev", "--flushbufs", bed.loop], check=False)
    bed.detach()
    with pytest.raises(StorageError, match="the file system of the volume is gone"):
        place.make_filesystem(bed.volume())


def test_something_on_the_new_volume_is_not_formatted_over(bed: LoopBed) -> None:
    volume = bed.volume()
    volume.wipe_temporary()
    bed.attach()
    subprocess.run(["mkfs.ext4", "-q", "-L", "other", bed.loop], check=True)
    with pytest.raises(StorageError, match="something on the new volume already"):
        place.make_filesystem(volume)


def test_an_open_volume_that_the_tpm_refuses_raises_suspicion(bed: LoopBed) -> None:
    recovery.acknowledge(bed.volume(), "Ada")
    place.advance(bed.volume())
    assert not recovery.status(bed.volume()).used
    assert bed.tpm is not None
    bed.tpm.extended[12] = b"x" * 32
    try:
        told = recovery.status(bed.volume())
    finally:
        del bed.tpm.extended[12]
    assert told.used
    assert "the TPM refuses" in told.suspicion


def test_opening_with_the_recovery_key_is_recorded(bed: LoopBed, sealed: tuple[Bed, bytes]) -> None:
    with pytest.raises(StorageError, match="not the recovery key"):
        recovery.open_volume(bed.volume(), sealed[1][::-1])
    assert not recovery.status(bed.volume(), ask_tpm=False).used
    recovery.open_volume(bed.volume(), sealed[1])
    with pytest.raises(StorageError, match="open already"):
        recovery.open_volume(bed.volume(), sealed[1])
    told = recovery.status(bed.volume(), ask_tpm=False)
    assert told.used
    assert [use.what for use in told.uses] == ["open"]
