"""The rotation, cut before every change of the disk, in a world that is kept in files and cut in the same places."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cuts import run_until

from kosmos_trust import durable
from kosmos_trust.boot import rotate
from kosmos_trust.boot.errors import RotationError
from kosmos_trust.boot.roles import Role
from kosmos_trust.boot.rotate import Pause, Rotation, Step
from kosmos_trust.boot.token import Token, Volume

pytestmark = pytest.mark.usefixtures("no_flush")
OLD, NEW = {"initrd": "old-i", "all": "old-a"}, {"initrd": "new-i", "all": "new-a"}
DEVICES = {"/dev/vault": "initrd", "/dev/data": "all"}


class FakeToken(Token):
    """A token whose key is its own fingerprint."""

    @property
    def fingerprint(self) -> str | None:
        return self.public_key.decode()


class World:
    """Two volumes, three images and two pairs of keys in one file; each change is one durable write.

    Enrolling is two writes (the slot, then the token that names it) and so is wiping, as with cryptenroll: a cut
    between them leaves what a real one leaves.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def make(self, *, recovery: bool = True) -> None:
        volume = {"slots": [0, 1], "recovery": [0] if recovery else [], "tokens": {}}
        volumes = {device: dict(volume, tokens={"0": [OLD[role], [1]]}) for device, role in DEVICES.items()}
        self.write(
            {
                "volumes": volumes, "images": {str(number): list(OLD.values()) for number in (1, 2, 3)},
                "keys": OLD, "next": {}, "boot": "first", "running": "3", "signed_at_boot": list(OLD.values()),
            }
        )  # fmt: skip

    def read(self) -> dict[str, Any]:
        content = json.loads(self.file.read_text())
        assert isinstance(content, dict)
        return content

    def write(self, content: dict[str, Any]) -> None:
        durable.replace(self.file, json.dumps(content).encode())

    def restart(self) -> None:
        world = self.read()
        world["boot"] += "+"
        world["signed_at_boot"] = world["images"][world["running"]]
        self.write(world)

    def opens(self) -> bool:
        """Tell whether each volume opens when any one of the images is started."""
        world = self.read()
        return all(
            any(mark in signed and slots for mark, slots in volume["tokens"].values())
            for volume in world["volumes"].values()
            for signed in world["images"].values()
        )

    # -- the ports ---------------------------------------------------------------------------------------------------
    def present_keys(self) -> Mapping[Role, str]:
        return {Role(role): mark for role, mark in self.read()["keys"].items()}

    def new_keys(self) -> Mapping[Role, str] | None:
        world = self.read()
        for role, mark in NEW.items():
            if role not in world["next"]:
                world["next"][role] = mark
                self.write(world)
        return {Role(role): mark for role, mark in world["next"].items()}

    def volumes(self) -> Mapping[str, tuple[Role, Volume]]:
        return {
            device: (
                Role(DEVICES[device]),
                Volume(
                    device,
                    tuple(
                        FakeToken(int(number), tuple(slots), (), (11,), "sha256", mark.encode(), b"")
                        for number, (mark, slots) in one["tokens"].items()
                    ),
                    tuple(one["slots"]),
                    tuple(one["recovery"]),
                ),
            )
            for device, one in self.read()["volumes"].items()
        }

    def enrol(self, device: str, role: Role) -> None:
        world = self.read()
        volume = world["volumes"][device]
        slot = max(volume["slots"]) + 1
        volume["slots"].append(slot)
        self.write(world)
        volume["tokens"][str(slot)] = [world["next"][role.value], [slot]]
        self.write(world)

    def wipe(self, device: str, slot: int) -> None:
        world = self.read()
        volume = world["volumes"][device]
        volume["slots"].remove(slot)
        for token in volume["tokens"].values():
            token[1] = [one for one in token[1] if one != slot]
        self.write(world)
        volume["tokens"] = {number: token for number, token in volume["tokens"].items() if token[1]}
        self.write(world)

    def forget(self, device: str, token: int) -> None:
        world = self.read()
        del world["volumes"][device]["tokens"][str(token)]
        self.write(world)

    def sign_images(self) -> str | None:
        world = self.read()
        for number in world["images"]:
            both = [*world["keys"].values(), *world["next"].values()]
            if world["images"][number] != both:
                world["images"][number] = both
                self.write(world)
        return None

    def boot_id(self) -> str:
        boot = self.read()["boot"]
        assert isinstance(boot, str)
        return boot

    def unproven(self) -> str | None:
        world = self.read()
        return None if set(NEW.values()) <= set(world["signed_at_boot"]) else "the running image has only the old key"

    def promote(self) -> None:
        world = self.read()
        for role in NEW:
            if role in world["next"]:
                world["keys"][role] = world["next"].pop(role)
                self.write(world)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path / "world.json")
    made.make()
    return made


def finish(world: World, rotation: Rotation) -> None:
    """Go on, restarting the host when that is asked for."""
    for _ in range(3):
        pause = rotation.advance()
        if pause is None:
            return
        assert pause.step in (Step.RESTART, Step.PROVE), pause
        world.restart()
    raise AssertionError("it does not end")


def is_done(world: World, journal: Path) -> None:
    end = world.read()
    assert not journal.exists()
    assert end["keys"] == NEW
    assert end["next"] == {}
    for device, role in DEVICES.items():
        volume = end["volumes"][device]
        assert [mark for mark, _ in volume["tokens"].values()] == [NEW[role]]
        assert len(volume["slots"]) == 2, "the recovery key and the new one: nothing is left over"
        assert volume["recovery"] == [0]
    assert world.opens()


def test_from_the_old_keys_to_the_new_ones_with_one_restart(world: World, tmp_path: Path) -> None:
    rotation = Rotation(tmp_path / "journal", world)
    rotation.start()
    pause = rotation.advance()
    assert isinstance(pause, Pause)
    assert pause.step is Step.RESTART
    assert rotation.advance() == pause, "without a restart it does not go on"
    for device, role in DEVICES.items():
        marks = {mark for mark, _ in world.read()["volumes"][device]["tokens"].values()}
        assert marks == {OLD[role], NEW[role]}, "the old slot stays until the new one is proven"
    world.restart()
    assert rotation.advance() is None
    is_done(world, tmp_path / "journal")


def test_a_cut_before_every_change_never_locks_out_and_always_ends(tmp_path: Path) -> None:
    call, finished, cuts = 0, False, 0
    while not finished:
        folder = tmp_path / str(call)
        world = World(folder / "world.json")
        world.make()
        rotation = Rotation(folder / "journal", world)

        def whole(world: World = world, rotation: Rotation = rotation) -> None:
            rotation.start()
            finish(world, rotation)

        finished = run_until(call, whole)
        assert world.opens(), f"locked out by a cut before change {call}"
        if not finished:
            cuts += 1
            world.restart()  # power comes back
            if rotate.read(rotation.path) is None and world.read()["keys"] == OLD:
                rotation.start()
            if rotate.read(rotation.path) is not None:
                finish(world, rotation)
        is_done(world, rotation.path)
        call += 1
    assert cuts > 80, "every write of the journal and of the world is a few calls"


def test_two_cuts_in_one_rotation(tmp_path: Path) -> None:
    """The second cut falls into the resumption of the first."""
    for first in range(5, 100, 19):
        for second in range(0, 40, 13):
            folder = tmp_path / f"{first}-{second}"
            world = World(folder / "world.json")
            world.make()
            rotation = Rotation(folder / "journal", world)
            rotation.start()

            def go_on(world: World = world, rotation: Rotation = rotation) -> None:
                finish(world, rotation)

            if not run_until(first, go_on) and not run_until(second, go_on):
                assert world.opens()
                finish(world, rotation)
            is_done(world, rotation.path)


def test_an_image_without_the_new_key_is_not_a_proof(world: World, tmp_path: Path) -> None:
    rotation = Rotation(tmp_path / "journal", world)
    rotation.start()
    rotation.advance()
    changed = world.read()
    changed["boot"] = "second"  # restarted, but what runs was signed before
    world.write(changed)
    pause = rotation.advance()
    assert isinstance(pause, Pause)
    assert pause.step is Step.PROVE
    assert world.opens()
    assert {len(one["tokens"]) for one in world.read()["volumes"].values()} == {2}
    world.restart()
    assert rotation.advance() is None


def test_without_a_recovery_key_it_does_not_begin(world: World, tmp_path: Path) -> None:
    world.make(recovery=False)
    with pytest.raises(RotationError, match="no recovery key"):
        Rotation(tmp_path / "journal", world).start()
    assert not (tmp_path / "journal").exists()


def test_a_recovery_key_that_went_away_stops_the_wiping(world: World, tmp_path: Path) -> None:
    rotation = Rotation(tmp_path / "journal", world)
    rotation.start()
    rotation.advance()
    changed = world.read()
    changed["volumes"]["/dev/data"]["recovery"] = []
    world.write(changed)
    world.restart()
    with pytest.raises(RotationError, match="/dev/data: there is no recovery key"):
        rotation.advance()
    assert {mark for mark, _ in world.read()["volumes"]["/dev/data"]["tokens"].values()} == {"old-a", "new-a"}


def test_a_new_slot_that_went_away_stops_the_wiping(world: World, tmp_path: Path) -> None:
    rotation = Rotation(tmp_path / "journal", world)
    rotation.start()
    rotation.advance()
    changed = world.read()
    changed["volumes"]["/dev/data"]["tokens"].pop("2")
    world.write(changed)
    world.restart()
    with pytest.raises(RotationError, match="/dev/data: the new key is not enrolled any more"):
        rotation.advance()


def test_what_is_wrong_from_the_beginning(world: World, tmp_path: Path) -> None:
    rotation = Rotation(tmp_path / "journal", world)
    with pytest.raises(RotationError, match="no rotation has begun"):
        rotation.advance()
    rotation.start()
    with pytest.raises(RotationError, match="has begun already"):
        rotation.start()
    foreign = world.read()
    foreign["keys"] = {"initrd": "x", "all": "y"}
    world.write(foreign)
    with pytest.raises(RotationError, match="not enrolled"):
        Rotation(tmp_path / "other", world).start()


def test_new_keys_that_are_the_old_ones_are_refused(world: World, tmp_path: Path) -> None:
    changed = world.read()
    changed["next"] = {"initrd": OLD["initrd"]}
    world.write(changed)
    rotation = Rotation(tmp_path / "journal", world)
    rotation.start()
    with pytest.raises(RotationError, match="not new"):
        rotation.advance()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"apiVersion": "kosmos.boot.rotation/v1", "step": "jump"}'])
def test_a_journal_that_cannot_be_understood_is_not_guessed_at(tmp_path: Path, text: str) -> None:
    (tmp_path / "journal").write_text(text)
    with pytest.raises(RotationError, match="cannot be understood"):
        rotate.read(tmp_path / "journal")
