"""The support bundle and the knock at the door, against real archives and sockets."""

from __future__ import annotations

import socket
import tarfile
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kosmos_installer import support
from kosmos_installer.record import Record
from kosmos_installer.redact import MASK, Redactor
from kosmos_installer.situation import knock
from kosmos_installer.targets import Target

NOW = datetime(2026, 11, 22, 7, 15, 7, tzinfo=UTC)


@pytest.fixture
def source(tmp_path: Path) -> support.Source:
    inventory = tmp_path / "inventories/lab"
    (inventory / "group_vars/all").mkdir(parents=True)
    (inventory / "hosts.yml").write_text("appliance:\n  hosts:\n    box: {ansible_connection: local}\n")
    (inventory / "group_vars/all/kosmos.yml").write_text("# mine\nkosmos:\n  name: lab\ndb_password: canary-1\n")
    (inventory / "id_key").write_text("no YAML, stays out")
    for day in range(1, 8):
        with Record.create(tmp_path / "runs", "apply", "lab", NOW.replace(day=day), {}) as record:
            record.event({"event": "verbose", "stdout": "said canary-2 aloud"})
    environment = {"PATH": "/nonexistent"}
    return support.Source("lab", tmp_path / "runs", inventory, environment, Redactor.knowing(["canary-2"]))


def test_bundle_holds_everything_but_secrets(source: support.Source, tmp_path: Path) -> None:
    target = tmp_path / "bundle.tar.gz"
    names = support.write(source, target, NOW)
    assert target.stat().st_mode & 0o777 == 0o600
    with tarfile.open(target) as archive:
        files = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        texts = {name: stream.read().decode() for name, stream in files.items() if stream is not None}
    assert sorted(texts) == sorted(f"kosmos-support-lab/{name}" for name in names)
    assert "versions.json" in names
    assert "inventory/group_vars/all/kosmos.yml" in names
    assert "inventory/id_key" not in names
    assert len({name.split("/")[1] for name in names if name.startswith("runs/")}) == support.NEWEST_RECORDS
    assert not [name for name, text in texts.items() if "canary" in text]
    assert texts["kosmos-support-lab/inventory/group_vars/all/kosmos.yml"] == (
        f"# mine\nkosmos:\n  name: lab\ndb_password: {MASK}\n"
    )
    assert texts["kosmos-support-lab/runs/20261107T071507Z-apply-lab/log.txt"] == f"said {MASK} aloud\n"
    assert texts["kosmos-support-lab/host-facts.txt"].startswith("The facts could not be read: ")


def test_versions_name_every_package() -> None:
    found = support.versions()
    assert found["packages"]["ansible-runner"] == "2.4.3"
    assert "not installed" not in found["packages"].values()


def server(answer: bytes) -> Target:
    """A TCP server on loopback that says `answer` once."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, listener:
            connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return Target("box", "127.0.0.1", listener.getsockname()[1])


@pytest.mark.parametrize(
    ("answer", "heard"),
    [(b"SSH-2.0-OpenSSH_10.0p2\r\n", "SSH-2.0-OpenSSH_10.0p2"), (b"HTTP/1.1 400\r\n", ""), (b"", "")],
)
def test_only_an_ssh_server_counts_as_an_answer(answer: bytes, heard: str) -> None:
    assert knock(server(answer)) == heard


def test_nobody_is_at_home() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert knock(Target("box", "127.0.0.1", port)) == ""
