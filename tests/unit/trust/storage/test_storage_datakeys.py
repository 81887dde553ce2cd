"""Sealed files: what comes back, what is refused, rotation cut at every write, a root key that is gone, a full disk."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kosmos_trust.storage import agentkey, datakeys, rootkey, sealedfile
from kosmos_trust.storage.datakeys import DataKeys
from kosmos_trust.storage.errors import KeyFileError
from kosmos_trust.storage.temporary import is_sealed

DAY = 24 * 3600
CHUNK = 1 << sealedfile.CHUNK_LOG2
ON_DISK = CHUNK + sealedfile.TAG_BYTES
SIZES = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5)
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class PowerCut(BaseException):
    pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(tmp_path: Path, clock: Clock) -> DataKeys:
    return DataKeys(tmp_path / "base", clock, sealed_only=False)


def put(keys: DataKeys, content: bytes, name: str = "notes", agent: str = "ada") -> Path:
    path = keys.folder(agent) / f"{name}.sealed"
    assert keys.seal(agent, io.BytesIO(content), path) == len(content)
    return path


@pytest.mark.parametrize("size", SIZES)
def test_what_goes_in_comes_out(keys: DataKeys, size: int) -> None:
    content = os.urandom(size)
    path = put(keys, content)
    assert keys.read("ada", path) == content
    raw = path.read_bytes()
    assert size < 32 or content[:32] not in raw
    assert len(raw) == sealedfile.BODY_AT + size + max(1, -(-size // CHUNK)) * sealedfile.TAG_BYTES


@quick
@given(content=st.binary(max_size=300), log2=st.sampled_from([12, 16]), cuts=st.lists(st.integers(1, 50), max_size=20))
def test_any_content_through_any_pipe(content: bytes, log2: int, cuts: list[int]) -> None:
    """A pipe gives as little at a time as it likes; the chunks on the disk stay the same."""

    class Pipe(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, cuts.pop()) if cuts else size)

    root = rootkey.Root.of(os.urandom(32))
    header = sealedfile.Header("ada", root.identifier, agentkey.next_epoch(None, 0), os.urandom(16), 1, log2)
    body, key = io.BytesIO(), os.urandom(32)
    sealedfile.seal_body(Pipe(content * 40), body, header, key)
    body.seek(0)
    assert b"".join(sealedfile.open_body(body, header, key, "body")) == content * 40


@quick
@given(data=st.data())
def test_a_changed_bit_is_refused_or_lies_where_nothing_is_stored(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    keys = DataKeys(tmp_path_factory.mktemp("flip"), sealed_only=False)
    content = os.urandom(CHUNK + 100)
    path = put(keys, content)
    raw = bytearray(path.read_bytes())
    used = sealedfile._FIXED.size + sealedfile.NONCE_BYTES + sealedfile._WRAPPED
    places = st.one_of(
        st.integers(0, used - 1), st.integers(sealedfile.BODY_AT, len(raw) - 1), st.integers(0, len(raw) - 1)
    )
    place = data.draw(places)
    raw[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    if place < sealedfile.SLOT_BYTES or place >= sealedfile.BODY_AT:
        with pytest.raises(KeyFileError):
            keys.read("ada", path)
    else:
        assert keys.read("ada", path) == content


def body_of(raw: bytes) -> list[bytes]:
    body = raw[sealedfile.BODY_AT :]
    return [body[at : at + ON_DISK] for at in range(0, len(body), ON_DISK)]


def swapped(parts: list[bytes]) -> list[bytes]:
    return [parts[1], parts[0], *parts[2:]]


CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "last chunk cut off": lambda parts: parts[:-1],
    "all but one cut off": lambda parts: parts[:1],
    "everything cut off": lambda _: [],
    "two chunks exchanged": swapped,
    "a chunk left out": lambda parts: parts[1:],
    "a chunk repeated": lambda parts: [parts[0], *parts],
    "the last chunk repeated": lambda parts: [*parts, parts[-1]],
    "bytes appended": lambda parts: [*parts, b"more"],
    "one byte cut off": lambda parts: [*parts[:-1], parts[-1][:-1]],
}


@pytest.mark.parametrize("size", [2 * CHUNK, 2 * CHUNK + 9], ids=["whole chunks", "a part at the end"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_body_that_was_rearranged_is_refused(keys: DataKeys, name: str, size: int) -> None:
    path = put(keys, os.urandom(size))
    raw = path.read_bytes()
    path.write_bytes(raw[: sealedfile.BODY_AT] + b"".join(CHANGES[name](body_of(raw))))
    with pytest.raises(KeyFileError, match="chunk"):
        keys.read("ada", path)


def test_a_header_on_another_body_is_refused(keys: DataKeys) -> None:
    one, two = put(keys, b"one" * 100, "one"), put(keys, b"two" * 100, "two")
    at = sealedfile.BODY_AT
    one.write_bytes(two.read_bytes()[:at] + one.read_bytes()[at:])
    with pytest.raises(KeyFileError, match="chunk 0"):
        keys.read("ada", one)


def test_a_file_may_move_but_not_to_another_agent(keys: DataKeys) -> None:
    path = put(keys, b"ada's")
    moved = path.rename(path.with_name("elsewhere.sealed"))
    assert keys.read("ada", moved) == b"ada's"
    put(keys, b"bob's", agent="bob")
    with pytest.raises(KeyFileError, match="belongs to 'ada', not to 'bob'"):
        keys.read("bob", moved)


@pytest.mark.parametrize("agent", ["", "../ada", "a/b", "Ada", "-a", "a" * 65, "a\0", "ada.sealed"])
def test_a_name_that_is_no_label_is_refused(keys: DataKeys, agent: str) -> None:
    with pytest.raises(KeyFileError, match="not an agent's name"):
        keys.rotate(agent)


@pytest.mark.parametrize("name", ["../bob/x.sealed", "../../x.sealed", "x.txt"])
def test_a_place_outside_the_agents_folder_is_refused(keys: DataKeys, name: str) -> None:
    with pytest.raises(KeyFileError, match="not a place"):
        keys.seal("ada", io.BytesIO(b"x"), keys.folder("ada") / name)


def test_keys_of_agents_and_epochs_differ() -> None:
    root = rootkey.Root.of(bytes(32))
    first, second = agentkey.next_epoch(None, 0), agentkey.next_epoch(None, 0)
    made = {agentkey.wrapping_key(root, agent, epoch) for agent in ("ada", "bob") for epoch in (first, second)}
    assert len(made) == 4


def test_the_derivation_is_that_of_the_rfc() -> None:
    """RFC 5869 by its own two steps, with hmac: a file has to be readable by somebody without this library."""
    import hmac

    root = rootkey.Root.of(bytes(range(32)))
    epoch = agentkey.Epoch(1, 0, bytes(range(32, 64)))
    extracted = hmac.digest(epoch.salt, root.key, "sha256")
    expanded = hmac.digest(extracted, b"kosmos/agent/ada/file-key/v1\x01", "sha256")
    assert agentkey.wrapping_key(root, "ada", epoch) == expanded


def test_rotation_is_due_after_thirty_days(keys: DataKeys, clock: Clock) -> None:
    put(keys, b"x")
    assert keys.due() == []
    clock.now += 30 * DAY - 1
    assert keys.due() == []
    clock.now += 1
    assert keys.due() == ["ada"]
    keys.rotate("ada")
    assert keys.due() == []
    clock.now -= 5 * DAY
    assert keys.due() == ["ada"], "a clock that went back: the age is not known"


def test_rotation_rewraps_headers_and_leaves_bodies(keys: DataKeys, clock: Clock) -> None:
    content = {name: os.urandom(size) for name, size in (("a", 10), ("b", CHUNK + 1), ("sub/c", 0))}
    paths = {name: put(keys, body, name) for name, body in content.items()}
    other = put(keys, b"bob's", agent="bob")
    untouched = other.read_bytes()
    bodies = {name: path.read_bytes()[sealedfile.BODY_AT :] for name, path in paths.items()}
    inodes = {name: path.stat().st_ino for name, path in paths.items()}
    before = {name: path.read_bytes() for name, path in paths.items()}
    for number in (2, 3):
        clock.now += 30 * DAY
        assert keys.rotate("ada") == 3
        age = keys.age("ada")
        assert age is not None
        assert (age.epoch, age.behind, age.files, age.rewrapping) == (number, 0, 3, False)
    for name, path in paths.items():
        assert keys.read("ada", path) == content[name]
        assert path.read_bytes()[sealedfile.BODY_AT :] == bodies[name]
        assert path.stat().st_ino == inodes[name]
        with path.open("rb") as stream:
            assert [slot.header.epoch.number for slot in sealedfile.read_slots(stream)] == [3], "the old slot is gone"
        wrapped = before[name][sealedfile._FIXED.size : sealedfile.SLOT_BYTES - 50]
        assert wrapped not in path.read_bytes()
    assert other.read_bytes() == untouched


def test_a_rotation_cut_at_any_write_goes_on(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write of a slot and of a record is cut: not begun, torn in the middle, or done but nothing after it."""
    real_put, real_write = datakeys._put, agentkey.write
    content = {name: os.urandom(100) for name in ("a", "b")}

    def run(folder: Path, cut: tuple[int, str] | None) -> int:
        keys = DataKeys(folder, clock, sealed_only=False)
        calls = 0

        def cutting(whole: Callable[[], None], torn: Callable[[], None]) -> None:
            nonlocal calls
            calls += 1
            if cut and calls == cut[0]:
                {"before": lambda: None, "torn": torn, "after": whole}[cut[1]]()
                raise PowerCut
            whole()

        def put_slot(stream: Any, offset: int, raw: bytes) -> None:
            cutting(lambda: real_put(stream, offset, raw), lambda: real_put(stream, offset, raw[:200]))

        def write_record(path: Path, record: agentkey.Record) -> None:
            cutting(lambda: real_write(path, record), lambda: None)

        with monkeypatch.context() as patch:
            patch.setattr(datakeys, "_put", put_slot)
            patch.setattr(agentkey, "write", write_record)
            with suppress(PowerCut):
                keys.rotate("ada")
        return calls

    def fresh(name: str) -> Path:
        folder = tmp_path / name
        for file, body in content.items():
            put(DataKeys(folder, clock, sealed_only=False), body, file)
        return folder

    writes = run(fresh("whole"), None)
    assert writes == 6, "the record, two slots for each file, the record"
    for number in range(1, writes + 1):
        for when in ("before", "torn", "after"):
            folder = fresh(f"{number}-{when}")
            run(folder, (number, when))
            keys = DataKeys(folder, clock, sealed_only=False)
            for name, body in content.items():
                assert keys.read("ada", keys.folder("ada") / f"{name}.sealed") == body
            keys.rotate("ada")
            age = keys.age("ada")
            assert age is not None
            assert (age.behind, age.rewrapping) == (0, False)
            for name, body in content.items():
                path = keys.folder("ada") / f"{name}.sealed"
                assert keys.read("ada", path) == body
                with path.open("rb") as stream:
                    assert len(sealedfile.read_slots(stream)) == 1


def test_a_lost_record_of_an_agent_costs_nothing(keys: DataKeys) -> None:
    path = put(keys, b"x")
    keys.rotate("ada")
    (keys.keys / "agents/ada.json").unlink()
    assert keys.read("ada", path) == b"x"
    assert keys.rotate("ada") == 1
    age = keys.age("ada")
    assert age is not None
    assert age.epoch == 3


def test_the_root_key_is_made_once_and_kept_private(keys: DataKeys) -> None:
    put(keys, b"x")
    path = keys.keys / "root.key"
    key = path.read_bytes()
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    put(keys, b"y", "other")
    assert path.read_bytes() == key


@pytest.mark.parametrize("left", ["record and data", "record", "data"])
def test_a_lost_root_key_is_never_replaced(keys: DataKeys, left: str) -> None:
    path = put(keys, b"x")
    (keys.keys / "root.key").unlink()
    if left == "data":
        (keys.keys / "root.json").unlink()
    if left == "record":
        path.unlink()
    with pytest.raises(KeyFileError, match=r"restore root\.key from the backup"):
        put(keys, b"y", "other")
    assert not (keys.keys / "root.key").exists()


def test_a_key_made_right_before_a_cut_is_taken_up(keys: DataKeys) -> None:
    put(keys, b"x")
    (keys.keys / "root.json").unlink()
    path = put(keys, b"y", "other")
    assert keys.read("ada", path) == b"y"
    assert (keys.keys / "root.json").exists()


def test_another_root_key_is_named(keys: DataKeys) -> None:
    path = put(keys, b"x")
    (keys.keys / "root.key").write_bytes(os.urandom(32))
    with pytest.raises(KeyFileError, match="another root key"):
        keys.read("ada", path)
    (keys.keys / "root.json").unlink()
    with pytest.raises(KeyFileError, match="it hangs on the root key"):
        keys.read("ada", path)


def test_a_root_key_that_others_may_read_is_refused(keys: DataKeys) -> None:
    put(keys, b"x")
    (keys.keys / "root.key").chmod(0o640)
    with pytest.raises(KeyFileError, match="others may read"):
        keys.root()


def test_a_link_is_not_followed(keys: DataKeys, tmp_path: Path) -> None:
    path = put(keys, b"x")
    link = keys.folder("ada") / "link.sealed"
    link.symlink_to(path)
    with pytest.raises(KeyFileError, match="cannot be opened"):
        keys.read("ada", link)
    keys.rotate("ada")


def test_a_replaced_file_loses_its_key(keys: DataKeys, tmp_path: Path) -> None:
    path = put(keys, b"old content")
    kept = tmp_path / "kept"
    os.link(path, kept)
    put(keys, b"new content")
    assert keys.read("ada", path) == b"new content"
    with pytest.raises(KeyFileError, match="its key was destroyed"):
        keys.read("ada", kept)


def test_what_a_cut_sealing_has_left_is_cleaned_by_the_next_rotation(keys: DataKeys) -> None:
    class Cut(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise PowerCut

    path = put(keys, b"old")
    stale = path.with_name(".notes.sealed.0badcafe.new")
    stale.write_bytes(path.read_bytes())
    with pytest.raises(PowerCut):
        keys.seal("ada", Cut(), path)
    assert keys.read("ada", path) == b"old"
    keys.rotate("ada")
    assert not stale.exists()


def test_memory_is_bounded(keys: DataKeys) -> None:
    size = 24 * 1024 * 1024

    class Zeros(io.RawIOBase):
        left = size

        def read(self, count: int = -1, /) -> bytes:
            given = min(count, self.left)
            self.left -= given
            return bytes(given)

    path = keys.folder("ada") / "big.sealed"
    tracemalloc.start()
    try:
        keys.seal("ada", Zeros(), path)  # type: ignore[arg-type]
        read = sum(len(chunk) for chunk in keys.open("ada", path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read == size
    assert peak < 4 * 1024 * 1024


def test_no_key_shows_in_messages_or_representations(keys: DataKeys) -> None:
    content = b"the content is a canary too"
    path = put(keys, content)
    root = keys.root()
    with path.open("rb") as stream:
        slot, file_key = sealedfile.find_key(stream, root, "ada", "x")
    wrapping = agentkey.wrapping_key(root, "ada", slot.header.epoch)
    told = [repr(root), str(root), repr(keys), repr(keys.age("ada")), repr(slot)]
    raw = bytearray(path.read_bytes())
    for place in (10, 100, 300, sealedfile.BODY_AT + 3):
        bad = raw.copy()
        bad[place] ^= 1
        path.write_bytes(bad)
        with pytest.raises(KeyFileError) as caught:
            keys.read("ada", path)
        told += [str(caught.value), repr(caught.value), repr(caught.value.__context__)]
    files = [one.read_bytes() for one in keys.base.rglob("*") if one.is_file() and one.name != "root.key"]
    for secret in (root.key, wrapping, file_key, content):
        assert not any(secret in text.encode() or secret.hex() in text or repr(secret) in text for text in told)
        assert not any(secret in raw or secret.hex().encode() in raw for raw in files)


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("unshare --mount is refused: a small file system cannot be mounted")
    script = f"""
import io, os, pathlib, subprocess
from kosmos_trust.storage.datakeys import DataKeys
base = pathlib.Path({str(tmp_path)!r}) / "small"
base.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(base)], check=True)
keys = DataKeys(base, sealed_only=False)
path = keys.folder("ada") / "x.sealed"
keys.seal("ada", io.BytesIO(b"old"), path)
try:
    keys.seal("ada", io.BytesIO(os.urandom(1 << 20)), path)
except OSError as error:
    print(error.strerror)
print(keys.read("ada", path).decode(), len(list(path.parent.iterdir())))
(base / "full").write_bytes(bytes(1 << 12))
with (base / "full").open("ab", buffering=0) as stream:
    try:
        while stream.write(bytes(1024)):
            pass
    except OSError:
        pass
try:
    keys.rotate("ada")
except OSError as error:
    print("rotation:", error.strerror)
print(keys.read("ada", path).decode())
(base / "full").unlink()
print(keys.rotate("ada"), keys.read("ada", path).decode())
"""
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "No space left on device", "old 1", "rotation: No space left on device", "old", "1 old",
    ]  # fmt: skip


def test_a_file_written_by_version_1_stays_readable(tmp_path: Path) -> None:
    """A fixed file, built here from the documented layout without the library's own writer."""
    import struct

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    key, salt, file_id, file_key = bytes(range(32)), b"s" * 32, b"i" * 16, b"k" * 32
    identifier = rootkey.Root.of(key).identifier
    clear = b"KOSMOSDK" + bytes((1, 16)) + identifier + file_id + struct.pack(">QIQ", 7, 3, 1_800_000_000) + salt
    clear += b"ada".ljust(64, b"\0")
    wrapping = agentkey.wrapping_key(rootkey.Root.of(key), "ada", agentkey.Epoch(3, 1_800_000_000, salt))
    slot = clear + b"n" * 12 + AESGCM(wrapping).encrypt(b"n" * 12, file_key, clear)
    aad = b"KOSMOSDK" + bytes((1, 16)) + file_id + b"ada"
    body = AESGCM(file_key).encrypt(bytes(11) + b"\x01", b"hello", aad)
    keys = DataKeys(tmp_path, sealed_only=False)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/root.key").write_bytes(key)
    (tmp_path / "keys/root.key").chmod(0o600)
    path = keys.folder("ada") / "x.sealed"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(4096) + slot.ljust(4096, b"\0") + body)
    assert keys.read("ada", path) == b"hello"
    assert hashlib.sha256(clear).hexdigest() == hashlib.sha256(path.read_bytes()[4096 : 4096 + len(clear)]).hexdigest()


def test_the_root_key_is_made_on_a_sealed_volume_only(tmp_path: Path) -> None:
    keys = DataKeys(tmp_path)
    with pytest.raises(KeyFileError, match="on a disk in clear"):
        keys.seal("ada", io.BytesIO(b"x"), keys.folder("ada") / "x.sealed")
    assert not (keys.keys / "root.key").exists()


@pytest.mark.parametrize(
    ("uuid", "sealed"), [("CRYPT-LUKS2-x-kosmos-data", True), ("CRYPT-PLAIN-x", False), ("LVM-x", False)]
)
def test_a_sealed_volume_is_known_by_its_mapping(tmp_path: Path, uuid: str, sealed: bool) -> None:
    device = tmp_path.stat().st_dev
    path = tmp_path / "sys/dev/block" / f"{os.major(device)}:{os.minor(device)}" / "dm/uuid"
    path.parent.mkdir(parents=True)
    path.write_text(uuid + "\n")
    assert is_sealed(tmp_path, tmp_path) is sealed
