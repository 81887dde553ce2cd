"""Images on the ESP: names, order, what stays, and every way in which a write may end early."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from cuts import run_until

from kosmos_trust.boot.errors import EspError
from kosmos_trust.boot.esp import RESERVE_BYTES, TEMPORARY, TRIES, Esp

IMAGE = b"MZ" + bytes(1000)


@pytest.fixture
def esp(tmp_path: Path) -> Esp:
    (tmp_path / "EFI/Linux").mkdir(parents=True)
    return Esp(tmp_path)


def put(esp: Esp, *names: str) -> None:
    for name in names:
        (esp.folder / name).write_bytes(IMAGE)


def names(esp: Esp) -> list[str]:
    return sorted(path.name for path in esp.folder.iterdir())


def test_names_and_states(esp: Esp) -> None:
    put(
        esp, "kosmos-000001-6.12.43.deb13-amd64.efi", "kosmos-000002-6.12.48.deb13-amd64+3.efi",
        "kosmos-000003-6.12.48.deb13-amd64+2-1.efi", "kosmos-000004-6.12.48.deb13-amd64+0-3.efi", "debian.efi",
        "kosmos-rescue.efi", "kosmos-000005-6.12+x.efi", ".kosmos-000006-6.12.efi",
    )  # fmt: skip
    assert [(one.serial, one.state) for one in esp.entries()] == [
        (4, "bad"), (3, "trying"), (2, "trying"), (1, "good"),
    ]  # fmt: skip
    assert esp.entries()[1].id == "kosmos-000003-6.12.48.deb13-amd64.efi"


def test_the_newest_that_is_not_bad_starts(esp: Esp) -> None:
    assert esp.default() is None
    put(esp, "kosmos-000004-k+0-3.efi")
    assert esp.default() == esp.entries()[0], "a bad image is still better than none"
    put(esp, "kosmos-000002-k.efi", "kosmos-000003-k+1-2.efi")
    default = esp.default()
    assert default is not None
    assert default.serial == 3


def test_publishing_counts_up_and_keeps_two_previous(esp: Esp) -> None:
    for turn in range(1, 7):
        entry = esp.publish(IMAGE + bytes([turn]), "6.12.48+deb13-amd64", None)
        assert entry.path.name == f"kosmos-{turn:06d}-6.12.48.deb13-amd64+{TRIES}.efi"
        entry.path.rename(entry.path.with_name(entry.id))  # blessed
    assert [one.serial for one in esp.entries()] == [6, 5, 4]
    assert esp.entries()[0].path.read_bytes() == IMAGE + b"\6"


def test_the_running_and_the_last_good_image_are_never_removed(esp: Esp) -> None:
    put(esp, "kosmos-000001-k+2-1.efi", "kosmos-000002-k.efi")
    for _ in range(6):
        esp.publish(IMAGE, "k", "kosmos-000001-k.efi")
    kept = [one.serial for one in esp.entries()]
    assert kept[:3] == [8, 7, 6]
    assert {1, 2} <= set(kept)
    assert len(kept) == 5


def test_bad_images_go_but_not_a_running_one(esp: Esp) -> None:
    put(esp, "kosmos-000001-k.efi", "kosmos-000002-k+0-3.efi", "kosmos-000003-k+0-3.efi")
    esp.publish(IMAGE, "k", "kosmos-000003-k.efi")
    assert [one.serial for one in esp.entries()] == [4, 3, 1]


def test_other_people_s_files_stay(esp: Esp) -> None:
    put(esp, "debian.efi", "kosmos-rescue.efi")
    for _ in range(5):
        esp.publish(IMAGE, "k", None)
    assert {"debian.efi", "kosmos-rescue.efi"} <= set(names(esp))


def test_the_loader_is_configured_once(esp: Esp) -> None:
    assert esp.configure()
    assert not esp.configure()
    text = (esp.root / "loader/loader.conf").read_text()
    assert "default kosmos-*\n" in text
    assert "editor no\n" in text


def test_a_leftover_is_swept(esp: Esp) -> None:
    put(esp, "kosmos-000001-k.efi")
    assert not esp.sweep()
    put(esp, TEMPORARY)
    assert esp.sweep()
    assert names(esp) == ["kosmos-000001-k.efi"]
    put(esp, TEMPORARY)
    esp.publish(IMAGE, "k", None)
    assert TEMPORARY not in names(esp)


def test_a_leftover_that_shares_its_blocks_is_not_touched(esp: Esp) -> None:
    put(esp, TEMPORARY)
    with (esp.folder / TEMPORARY).open("r+b") as stream:
        stream.write(bytes(1 << 20))
        os.fsync(stream.fileno())
    os.link(esp.folder / TEMPORARY, esp.folder / "kosmos-000001-k.efi")
    if os.geteuid() != 0 or _no_blocks(esp.folder):
        pytest.skip("the kernel names the blocks of a file to root only, and not on this file system")
    with pytest.raises(EspError, match="two names share one image"):
        esp.publish(IMAGE, "k", None)
    assert names(esp) == [TEMPORARY, "kosmos-000001-k.efi"]


def _no_blocks(folder: Path) -> bool:
    from kosmos_trust.boot.esp import _first_block

    return _first_block(folder / TEMPORARY) == 0


def test_a_cut_at_every_call_leaves_whole_images_only(tmp_path: Path) -> None:
    """What stands there after a cut must start, and the next run must end."""
    new, call, finished = b"MZ" + bytes(3000), 0, False
    while not finished:
        esp = Esp(tmp_path / str(call))
        esp.folder.mkdir(parents=True)
        put(esp, "kosmos-000001-k.efi", "kosmos-000002-k.efi", "kosmos-000003-k+3.efi", "kosmos-000004-k+0-3.efi")
        finished = run_until(call, partial(esp.publish, new, "k", None))
        assert all(one.path.read_bytes() in (IMAGE, new) for one in esp.entries())
        ids = [one.id for one in esp.entries() if one.state != "bad"]
        assert {"kosmos-000002-k.efi", "kosmos-000003-k.efi"} <= set(ids)
        assert ids[0] in ("kosmos-000003-k.efi", "kosmos-000005-k.efi")
        default = esp.default()
        assert default is not None
        assert default.state != "bad"
        assert esp.publish(new, "k", None).path.read_bytes() == new
        assert TEMPORARY not in names(esp)
        call += 1
    assert call >= 7, "create, flush, rename, flush, then two removals with a flush each"


FULL = """
import sys
from pathlib import Path
from kosmos_trust.boot.errors import EspError
from kosmos_trust.boot.esp import Esp, RESERVE_BYTES, Room
esp = Esp(Path(sys.argv[1]))
(esp.root / "EFI").mkdir()
image = b"MZ" + bytes(2 << 20)
esp.publish(image, "k", None)
esp.publish(image, "k", None)
before = sorted(path.name for path in esp.folder.iterdir())
try:
    esp.publish(image + bytes(4 << 20), "k", None)
    sys.exit("it was published")
except EspError as error:
    assert "does not fit" in str(error), error
# A partition that fills up between the question and the write: the promise of room is made to lie.
Room.fits = property(lambda self: True)
try:
    esp.publish(image + bytes(8 << 20), "k", None)
    sys.exit("it was published")
except EspError as error:
    assert "No space left" in str(error), error
    assert "remove what is not ours" in error.cure, error
assert sorted(path.name for path in esp.folder.iterdir()) == before, "the old images stay, and nothing half-written"
assert all(one.path.read_bytes() == image for one in esp.entries())
"""


def test_a_full_partition_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system of its own")
    script = 'mount -t tmpfs -o size="$3" tmpfs "$2" && exec "$1" -c "$4" "$2"'
    size = str(RESERVE_BYTES + (6 << 20))
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, str(tmp_path), size, FULL],
        cwd=Path(__file__).parents[4], capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_room_counts_what_may_go(esp: Esp) -> None:
    put(esp, *(f"kosmos-{number:06d}-k.efi" for number in range(1, 6)))
    room = esp.room(10, "kosmos-000001-k.efi")
    assert [one.serial for one in room.removable] == [2, 3]
    assert room.fits
    huge = esp.room(1 << 60, None)
    assert not huge.fits
    assert not huge.finding().passed


def test_a_bare_mount_point_is_not_written_to(tmp_path: Path) -> None:
    for action in (partial(Esp(tmp_path).publish, IMAGE, "k", None), Esp(tmp_path).configure):
        with pytest.raises(EspError, match="is not mounted"):
            action()
    assert not list(tmp_path.iterdir())


def test_an_image_that_was_blessed_meanwhile_does_not_come_back_as_two(esp: Esp) -> None:
    entry = esp.publish(IMAGE, "k", None)
    entry.path.rename(entry.path.with_name(entry.id))
    with pytest.raises(EspError, match="another name now"):
        esp.replace(entry, IMAGE)
    esp.replace(esp.entries()[0], IMAGE + b"new")
    assert names(esp) == [entry.id]
    assert (esp.folder / entry.id).read_bytes() == IMAGE + b"new"
