"""The way in, as OpenSSH itself and a real shell read it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from kosmos_installer.errors import KosmosError
from kosmos_installer.lab.ssh import Ssh, config_text, remote_command, speaks


@pytest.mark.skipif(shutil.which("ssh") is None, reason="the OpenSSH client is not installed")
def test_openssh_reads_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "ssh_config"
    file.write_text(config_text("kosmos-two", 40022, tmp_path / "key", tmp_path / "known"))
    text = subprocess.run(
        ["ssh", "-G", "-F", str(file), "kosmos-two"], check=True, capture_output=True, text=True
    ).stdout
    settings = dict(line.split(" ", 1) for line in text.splitlines())
    assert settings["hostname"] == "127.0.0.1"
    assert settings["port"] == "40022"
    assert settings["user"] == "operator"
    assert settings["hostkeyalias"] == "kosmos-two"
    assert settings["stricthostkeychecking"] == "true"
    assert settings["identitiesonly"] == "yes"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["echo $((1+1)); echo b"], "2\nb\n"),
        (["echo", "a b", "$HOME;"], "a b $HOME;\n"),
        (["printf", "%s", "it's"], "it's"),
    ],
    ids=["one word is a shell line", "more words are not expanded", "a quote"],
)
def test_what_the_remote_shell_makes_of_it(words: list[str], expected: str) -> None:
    line = remote_command(words)
    assert subprocess.run(["sh", "-c", line], check=True, capture_output=True, text=True).stdout == expected


def test_as_root_the_whole_line_is_inside_sudo(tmp_path: Path) -> None:
    sudo = tmp_path / "sudo"
    sudo.write_text('#!/bin/sh\n[ "$1" = -n ] && [ "$2" = -- ] && shift 2 && as_root=yes exec "$@"\n')
    sudo.chmod(0o755)
    line = remote_command(['echo $as_root; echo "it\'s" $as_root'], root=True)
    done = subprocess.run(
        ["sh", "-c", line], check=True, capture_output=True, text=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}
    )
    assert done.stdout == "yes\nit's yes\n"


def test_a_login_has_a_terminal_and_a_command_has_none() -> None:
    ssh = Ssh(Path("/c"), "kosmos-lab")
    assert ssh.argv() == ["ssh", "-F", "/c", "kosmos-lab"]
    assert ssh.argv("id", "-u") == ["ssh", "-F", "/c", "-T", "kosmos-lab", "--", "id -u"]


@pytest.mark.parametrize(("greeting", "expected"), [(b"SSH-2.0-x\r\n", True), (b"HTTP/1.1", False), (b"", False)])
def test_only_an_ssh_greeting_counts(greeting: bytes, expected: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            link, _ = server.accept()
            with link:
                link.sendall(greeting)

        thread = threading.Thread(target=greet)
        thread.start()
        assert speaks(server.getsockname()[1], 5) is expected
        thread.join()


def test_a_closed_port_does_not_speak() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert not speaks(port, 1)


def test_a_command_that_does_not_end_is_a_failure_with_a_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "ssh"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(KosmosError, match="did not end in 0 seconds") as caught:
        Ssh(Path("/c"), "kosmos-lab").run("id", timeout_seconds=0.2)
    assert caught.value.where == "id"
    assert caught.value.cure
