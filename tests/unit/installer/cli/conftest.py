from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cli_support import FLAGS, Answer, Command

from kosmos_installer import cli


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and a state folder beside it."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    return folder


@pytest.fixture
def command(home: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `kosmos-install ...` in this process, in an empty folder."""

    def run(*arguments: str) -> Answer:
        code = cli.main(list(arguments))
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run


@pytest.fixture
def flags() -> Callable[..., list[str]]:
    """The flags that `init` cannot do without, changed by keyword."""

    def made(**changed: str) -> list[str]:
        given = FLAGS | {"--" + key.replace("_", "-"): value for key, value in changed.items()}
        return [word for pair in given.items() for word in pair]

    return made
