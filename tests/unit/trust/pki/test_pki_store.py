"""Files and keys at rest: durable, private, refused when foreign, and telling nobody what is in them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from full_disk_bed import TOLD, limited
from pki_bed import AGENT_NAME, ORGANIZATION, PROFILES, Clock, keeper, openssl, request, whole_pki

from kosmos_trust.pki import store
from kosmos_trust.pki.authority import new_key
from kosmos_trust.pki.errors import KeyUnavailableError, RecoveryNeededError, StoreError
from kosmos_trust.pki.escrow import Escrow
from kosmos_trust.pki.keys import Encrypted, PlainFile, plain_pem
from kosmos_trust.pki.profiles import AGENT, P384

PASSPHRASE = b"canary-passphrase-0123456789-abcdef"


def test_new_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store.write_file(tmp_path / "f", b"x")
        store.append_line(tmp_path / "l", b"x")
        store.make_folder(tmp_path / "a/b")
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "f", tmp_path / "l", tmp_path / "a/b")] == [
        0o600,
        0o600,
        0o700,
    ]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o606])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    store.write_file(tmp_path / "f", b"x")
    (tmp_path / "f").chmod(mode)
    with pytest.raises(StoreError, match=f"mode {mode:04o}, has to be 0600"):
        store.read_file(tmp_path / "f")


def test_links_folders_pipes_and_foreign_files_are_refused(tmp_path: Path) -> None:
    store.write_file(tmp_path / "f", b"x")
    (tmp_path / "link").symlink_to(tmp_path / "f")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("link", "pipe", "gone"):
        with pytest.raises(StoreError, match=name):
            store.read_file(tmp_path / name)
    with pytest.raises(StoreError):
        store.read_file(tmp_path)
    if os.geteuid() == 0:
        os.chown(tmp_path / "f", 65534, 65534)
        with pytest.raises(StoreError, match="owned by 65534"):
            store.read_file(tmp_path / "f")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(StoreError, match="others may write here"):
        store.make_folder(tmp_path / "open")


def test_a_full_disk_leaves_the_old_content(tmp_path: Path) -> None:
    store.write_file(tmp_path / "f", b"old")
    assert limited(lambda: store.write_file(tmp_path / "f", b"new" * 1000), 100, StoreError) == TOLD
    assert store.read_file(tmp_path / "f") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    store.append_line(tmp_path / "l", b"a" * 90)
    assert limited(lambda: store.append_line(tmp_path / "l", b"b" * 90), 100, StoreError) == TOLD
    assert store.read_lines(tmp_path / "l") == [b"a" * 90]
    store.append_line(tmp_path / "l", b"c")
    assert store.read_lines(tmp_path / "l") == [b"a" * 90, b"c"]


def test_a_full_disk_makes_no_half_authority(tmp_path: Path) -> None:
    made = keeper(tmp_path / "pki")
    store.make_folder(made.folder)
    assert limited(lambda: made.ensure(PROFILES["root"], ORGANIZATION), 500, StoreError) == TOLD
    assert not made.exists("root")
    _, new = made.ensure(PROFILES["root"], ORGANIZATION)
    assert new


def test_a_lock_is_waited_for_then_told_and_dies_with_its_holder(tmp_path: Path) -> None:
    code = (
        "import sys,time\nfrom pathlib import Path\nfrom kosmos_trust.pki.store import exclusive\n"
        "with exclusive(Path(sys.argv[1])):\n print(1, flush=True)\n time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, env=environment
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"1\n"
        start = time.monotonic()
        with pytest.raises(StoreError, match="another run holds this lock"), store.exclusive(tmp_path / "lock", 0.3):
            pass
        assert time.monotonic() - start >= 0.3
    finally:
        holder.kill()
        holder.wait(timeout=10)
    with store.exclusive(tmp_path / "lock", 5):
        pass


KILLED_AT = ["unlink", "write", "fsync", "replace", "sync_folder"]


@pytest.mark.parametrize("step", KILLED_AT)
@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_power_cut_while_an_authority_is_made_converges(tmp_path: Path, step: str, count: int) -> None:
    """SIGKILL at the n-th of each kind of system call; then the same call in a new process finishes."""
    code = f"""
import os, signal, sys
from pathlib import Path
sys.path[:0] = {sys.path!r}
import pki_bed
from kosmos_trust import durable
left = {count}
def dying(real):
    def call(*a, **k):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*a, **k)
    return call
step = {step!r}
if step == "sync_folder":
    durable.sync_folder = dying(durable.sync_folder)
elif step == "fsync":
    os.fsync = dying(os.fsync)
elif step == "write":
    os.fdopen = dying(os.fdopen)
else:
    setattr(Path, step, dying(getattr(Path, step)))
pki_bed.keeper(Path(sys.argv[1])).ensure(pki_bed.PROFILES["root"], pki_bed.ORGANIZATION)
"""
    folder = tmp_path / "pki"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    made = keeper(folder)
    was_there = made.exists("root")
    authority, new = made.ensure(PROFILES["root"], ORGANIZATION)
    assert new is not was_there
    again, new = made.ensure(PROFILES["root"], ORGANIZATION)
    assert (again.certificate, new) == (authority.certificate, False)


def test_an_authority_is_never_made_again_over_what_needs_it(tmp_path: Path) -> None:
    made = whole_pki(keeper(tmp_path / "pki"), ("root",))
    data = tmp_path / "agent.pem"
    data.write_text("made with it")
    authority, new = made.ensure(PROFILES["root"], ORGANIZATION, needed_by=[data])
    assert not new
    (made.folder / "root").rename(tmp_path / "lost")
    with pytest.raises(RecoveryNeededError, match=r"Restore the PKI from its backup.*agent\.pem"):
        made.ensure(PROFILES["root"], ORGANIZATION, needed_by=[data])
    assert not made.exists("root")
    (tmp_path / "lost").rename(made.folder / "root")
    assert made.load("root").certificate == authority.certificate


def test_a_replaced_intermediate_keeps_the_old_generation(tmp_path: Path) -> None:
    made = whole_pki(keeper(tmp_path / "pki"), ("root", "mesh", "mesh-issuer"))
    old = made.load("mesh-issuer")
    new = made.replace(PROFILES["mesh-issuer"], ORGANIZATION, made.load("mesh"))
    assert made.load("mesh-issuer").certificate == new.certificate != old.certificate
    assert len(list((made.folder / "generations").glob("mesh-issuer-*"))) == 2


# -- keys ----------------------------------------------------------------------------------------------------------
def test_keys_at_rest_are_ordinary_pem_for_openssl(tmp_path: Path) -> None:
    key = new_key(P384)
    for protector, words in ((PlainFile(), ()), (Encrypted(PASSPHRASE), ("-passin", f"pass:{PASSPHRASE.decode()}"))):
        data = protector.wrap("x", key)
        (tmp_path / "key").write_bytes(data)
        assert "secp384r1" in openssl("pkey", "-in", tmp_path / "key", "-noout", "-text", *words)
        assert protector.unwrap("x", data).private_numbers() == key.private_numbers()
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in data
    assert key.private_numbers().private_value.to_bytes(48, "big") not in data


def test_a_wrong_passphrase_and_a_weak_one_are_refused_without_showing_them() -> None:
    data = Encrypted(PASSPHRASE).wrap("x", new_key(P384))
    for protector in (Encrypted(b"another-canary-passphrase-0123456789"), PlainFile()):
        with pytest.raises(KeyUnavailableError, match="restore it from a backup") as caught:
            protector.unwrap("agents", data)
        assert "canary" not in str(caught.value)
    with pytest.raises(KeyUnavailableError, match="openssl rand"):
        Encrypted(b"hunter2")


def test_a_protector_that_was_changed_is_told_by_name(tmp_path: Path) -> None:
    whole_pki(keeper(tmp_path / "pki"), ("root",))
    with pytest.raises(KeyUnavailableError, match="kept by 'plain', but 'encrypted' is configured"):
        keeper(tmp_path / "pki", protector=Encrypted(PASSPHRASE)).load("root")


def test_no_secret_is_in_any_repr_or_message(tmp_path: Path) -> None:
    made = whole_pki(keeper(tmp_path / "pki", protector=Encrypted(PASSPHRASE)), ("root", "agents"))
    agents = made.load("agents")
    made.issue("agents", request(), AGENT_NAME, AGENT)
    escrow = Escrow(tmp_path / "escrow.json", os.urandom, Clock())
    secret, _ = escrow.ensure("database")
    shown = f"{made!r} {agents!r} {made.protector!r} {secret!r} {secret} {escrow!r}"
    private = agents.key.private_numbers().private_value
    for canary in (PASSPHRASE.decode(), str(private), f"{private:x}", secret.text(), repr(secret.reveal())):
        assert canary not in shown
    assert plain_pem(agents.key).decode() not in shown


# -- escrow --------------------------------------------------------------------------------------------------------
@pytest.fixture
def escrow(tmp_path: Path) -> Escrow:
    return Escrow(tmp_path / "e/escrow.json", os.urandom, Clock())


def test_a_secret_is_made_once_and_is_on_disk_before_it_is_given(escrow: Escrow) -> None:
    first, new = escrow.ensure("database", size=16)
    assert new
    assert len(first.reveal()) == 16
    again = Escrow(escrow.path, os.urandom, Clock())
    assert again.ensure("database") == (first, False)
    assert again.ensure("other")[0].reveal() != first.reveal()
    assert again.ensure("database") == (first, False)
    assert again.names() == ["database", "other"]
    assert escrow.path.stat().st_mode & 0o777 == 0o600


def test_a_lost_secret_is_never_made_anew_over_data_that_needs_it(escrow: Escrow, tmp_path: Path) -> None:
    data = tmp_path / "base"
    secret, _ = escrow.ensure("database", [data])  # nothing there yet
    data.mkdir()
    escrow.ensure("other")
    with pytest.raises(RecoveryNeededError, match=r"no entry 'third'.*Restore the escrow from the backup.*base"):
        escrow.ensure("third", [data])
    kept = escrow.path.read_bytes()
    escrow.path.unlink()
    with pytest.raises(RecoveryNeededError, match="is gone"):
        escrow.ensure("database", [data])
    assert not escrow.path.exists()
    escrow.restore(kept)
    assert escrow.ensure("database", [data]) == (secret, False)


def test_every_flipped_bit_of_the_escrow_is_refused_and_repaired_by_nobody(escrow: Escrow) -> None:
    escrow.ensure("database")
    whole = escrow.path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        escrow.path.write_bytes(damaged)
        try:
            _, new = escrow.ensure("database")
        except StoreError:
            assert escrow.path.read_bytes() == damaged
        else:  # blank for another blank: the content is the same
            assert chr(whole[position]).isspace()
            assert not new
    escrow.path.write_bytes(whole[:-20])
    with pytest.raises(StoreError, match="restore it from the backup"):
        escrow.ensure("database")


def test_a_full_disk_gives_no_secret(escrow: Escrow) -> None:
    store.make_folder(escrow.path.parent)
    assert limited(lambda: escrow.ensure("database"), 40, StoreError) == TOLD
    assert not escrow.path.exists()


def test_another_escrow_is_not_overwritten_by_a_restore(escrow: Escrow) -> None:
    escrow.ensure("database")
    kept = escrow.path.read_bytes()
    escrow.path.unlink()
    escrow.ensure("database")
    with pytest.raises(StoreError, match="another escrow is there"):
        escrow.restore(kept)
