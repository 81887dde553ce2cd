"""The command line, as a process: exit codes, keys by standard input only, no traceback, no key where none belongs."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_bed import IMAGE_BYTES, memory, need

from kosmos_trust.storage import plan
from kosmos_trust.storage.errors import StorageError


@pytest.fixture
def declaration(tmp_path: Path) -> Iterator[Path]:
    need("cryptsetup", "systemd-cryptenroll", "wipefs", "blkid")
    image = tmp_path / "disk.img"
    with image.open("wb") as stream:
        stream.truncate(IMAGE_BYTES)
    with memory() as folder:
        path = tmp_path / "storage.json"
        path.write_text(json.dumps({
            "device": str(image), "state": str(tmp_path / "state"), "memory": str(folder / "keys"), "folders": [],
            "mountpoint": str(tmp_path / "mnt"), "kdf": {"memory_kib": 64, "lanes": 1, "passes": 4},
        }))  # fmt: skip
        yield path


def call(declaration: Path, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "kosmos_trust.storage", "--declaration", str(declaration), *words]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=120)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


def watch_arguments(stop: threading.Event, seen: set[bytes]) -> None:
    """Collect the arguments and the environment of every process, as anybody on the host could."""
    while not stop.is_set():
        for folder in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                try:
                    seen.add((folder / name).read_bytes())
                except OSError:
                    continue
        time.sleep(0.005)


def test_from_an_empty_disk_to_an_acknowledged_key(declaration: Path) -> None:
    stop, seen = threading.Event(), set[bytes]()
    watcher = threading.Thread(target=watch_arguments, args=(stop, seen))
    watcher.start()
    try:
        assert call(declaration, "prepare").stdout == b"formatted\n"
        made = call(declaration, "recovery-key", "new")
        key = made.stdout.strip()
        assert len(key) == 71
        assert made.stderr == b""
        drilled = call(declaration, "recovery-key", "drill", stdin=key + b"\n")
        assert drilled.stdout.startswith(b"the recovery key opens slot ")
        assert json.loads(call(declaration, "recovery-key", "acknowledge", "--by", "Ada").stdout)["by"] == "Ada"
        memory_folder = Path(json.loads(declaration.read_text())["memory"])
        temporary = (memory_folder / "temporary.key").read_bytes()
        status = json.loads(call(declaration, "status", "--json", "--no-tpm").stdout)
        assert (status["state"], status["disk"]["verdict"]) == ("recovery_proved", "ours")
        people = call(declaration, "status", "--no-tpm").stdout
    finally:
        stop.set()
        watcher.join()
    assert any(b"cryptsetup" in one for one in seen), "the watcher has to have seen the tools at work"
    assert any(b"systemd-cryptenroll" in one for one in seen)
    rest = [one.read_bytes() for one in (declaration.parent / "state").rglob("*") if one.is_file()]
    for secret in (key, temporary, temporary.hex().encode()):
        assert not any(secret in one for one in (*seen, *rest, drilled.stdout, people, json.dumps(status).encode()))


def test_exit_codes_tell_refused_from_waiting(declaration: Path) -> None:
    waiting = call(declaration, "enrol-tpm")
    assert (waiting.returncode, waiting.stderr[:9]) == (3, b"waiting: ")
    assert call(declaration, "prepare").returncode == 0
    call(declaration, "recovery-key", "new")
    wrong = call(declaration, "recovery-key", "drill", stdin=b"cccccccc-" * 7 + b"cccccccc")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith(b"refused: ")
    assert b"cccccccc" not in wrong.stderr
    assert call(declaration, "recovery-key", "drill").returncode == 1
    assert call(declaration, "frobnicate").returncode == 2


def test_a_foreign_disk_is_named_and_left_alone(declaration: Path) -> None:
    need("mkfs.ext4")
    image = Path(json.loads(declaration.read_text())["device"])
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-L", "photos", str(image)], check=True)
    before = image.read_bytes()
    refused = call(declaration, "prepare")
    assert refused.returncode == 1
    assert b'label "photos"' in refused.stderr
    assert image.read_bytes() == before
    told = call(declaration, "status", "--no-tpm")
    assert b"foreign" in told.stdout


def test_two_runs_do_not_change_the_volume_at_once(declaration: Path) -> None:
    state = Path(json.loads(declaration.read_text())["state"])
    state.mkdir()
    with (state / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused = call(declaration, "prepare")
        assert refused.returncode == 1
        assert b"another run is under way" in refused.stderr
        assert call(declaration, "status", "--no-tpm").returncode == 0
    assert call(declaration, "prepare").returncode == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "no device"),
        ("[", "not usable"),
        ("[]", "not usable"),
        ('{"device": "/dev/x", "devise": 1}', "unknown: devise"),
        ('{"device": "/dev/x", "seal": {"pcr": 7}}', "unknown: seal.pcr"),
        ('{"device": "/dev/x", "kdf": {"rounds": 7}}', "unknown: kdf.rounds"),
        ('{"device": "/dev/x", "seal": {"literal_zero": []}}', "PCR 12 is not bound"),
        ('{"device": "/dev/x", "seal": {"literal_zero": ["x"]}}', "not usable"),
    ],
)
def test_a_declaration_with_a_mistake_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "storage.json"
    path.write_text(text)
    with pytest.raises(StorageError, match=words):
        plan.load(path)


def test_a_declaration_that_is_not_there(tmp_path: Path) -> None:
    done = call(tmp_path / "none.json", "status")
    assert done.returncode == 1
    assert b"cannot be read" in done.stderr


def test_the_mount_plan_names_the_volume(declaration: Path) -> None:
    call(declaration, "prepare")
    told = json.loads(call(declaration, "mount-plan", "--json").stdout)
    device = json.loads(declaration.read_text())["device"]
    uuid = subprocess.run(["/usr/sbin/cryptsetup", "luksUUID", device], capture_output=True, text=True, check=True)
    assert told["crypttab"].startswith(f"kosmos-data UUID={uuid.stdout.strip()} none luks,")
    assert "[Mount]" in call(declaration, "mount-plan").stdout.decode()


def test_data_keys_and_deletion(tmp_path: Path) -> None:
    base = tmp_path / "base"
    path = base / "data/ada/x.sealed"
    words = ("datakey", "seal", "--base", str(base), "--allow-unsealed", "--agent", "ada", str(path))
    content = os.urandom(100_000)
    refused = call(tmp_path, *(word for word in words if word != "--allow-unsealed"), stdin=content)
    assert refused.returncode == 1
    assert b"on a disk in clear" in refused.stderr
    assert call(tmp_path, *words, stdin=content).returncode == 0
    assert call(tmp_path, "datakey", "open", "--base", str(base), "--agent", "ada", str(path)).stdout == content
    refused = call(tmp_path, "datakey", "open", "--base", str(base), "--agent", "bob", str(path))
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert json.loads(call(tmp_path, "datakey", "rotate", "--base", str(base)).stdout) == {}
    assert json.loads(call(tmp_path, "datakey", "rotate", "--base", str(base), "--agent", "ada").stdout) == {"ada": 1}
    (age,) = json.loads(call(tmp_path, "datakey", "status", "--base", str(base)).stdout)
    assert (age["agent"], age["epoch"], age["behind"]) == ("ada", 2, 0)
    told = json.loads(call(tmp_path, "shred", "--json", "--no-trim", str(path)).stdout)
    assert told["key_destroyed"]
    assert not path.exists()
