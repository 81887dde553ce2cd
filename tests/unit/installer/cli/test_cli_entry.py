"""The entry point: every way a command can end, in words and in an exit code."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from cli_support import Command

from kosmos_installer import __version__, cli, console, paths
from kosmos_installer.errors import ExitCode, KosmosError

ROOT = Path(__file__).parents[4]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> object:
    """Make `kosmos-install version` end with the given exception."""

    def arrange(error: BaseException) -> None:
        def verb() -> None:
            raise error

        app = typer.Typer()
        app.callback()(lambda: None)
        app.command("version")(verb)
        monkeypatch.setattr(cli, "app", app)

    return arrange


def test_no_verb_shows_the_help_and_is_a_usage_error(command: Command) -> None:
    answer = command()
    assert answer.code == 2
    for verb in ("init", "validate", "checks", "schema", "version"):
        assert verb in answer.out + answer.err


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(flag: str, command: Command) -> None:
    answer = command(flag)
    assert answer.code == 0
    assert "Turn one box into" in answer.out


def test_the_version_flag(command: Command) -> None:
    answer = command("--version")
    assert (answer.code, answer.out) == (0, f"kosmos-install {__version__}\n")


USAGE = [
    (("paly",), "error: No such command 'paly'.", "See: kosmos-install --help"),
    (
        ("validate", "--jsn"),
        "error: No such option: --jsn (Possible options: --json)",
        "See: kosmos-install validate --help",
    ),
    (("checks", "show"), "error: Missing argument 'ID'.", "See: kosmos-install checks show --help"),
]


@pytest.mark.parametrize(("words", "what", "cure"), USAGE)
def test_a_wrong_word_names_the_help_that_helps(words: tuple[str, ...], what: str, cure: str, command: Command) -> None:
    answer = command(*words)
    assert answer.code == 2
    assert answer.out == ""
    assert what in " ".join(answer.err.split())
    assert cure in answer.err


def test_a_wrong_word_in_json(command: Command) -> None:
    answer = command("validate", "--json", "--nonsense")
    assert (answer.code, answer.err) == (2, "")
    assert answer.json["error"]["exit_name"] == "usage"


def test_a_known_failure_is_told_with_its_exit_code(failing: object, command: Command) -> None:
    failing(  # type: ignore[operator]
        KosmosError(
            "The disk is full", "kosmos-1:/var", "No space left.\nIt had 4 GiB.", "Free some.", ExitCode.NO_SPACE
        )
    )
    answer = command("version")
    assert answer.code == 7
    assert answer.err == (
        "error: The disk is full\n"
        "  where: kosmos-1:/var\n"
        "  why:   No space left.\n"
        "         It had 4 GiB.\n"
        "  cure:  Free some.\n"
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort(), EOFError()])
def test_an_interrupt_is_130(error: BaseException, failing: object, command: Command) -> None:
    failing(error)  # type: ignore[operator]
    answer = command("version")
    assert answer.code == 130
    assert "Traceback" not in answer.err


def test_a_verb_may_give_an_exit_code(failing: object, command: Command) -> None:
    failing(typer.Exit(5))  # type: ignore[operator]
    assert command("version").code == 5


def test_a_fault_of_ours_is_kept_in_a_private_file_and_named(failing: object, command: Command, home: Path) -> None:
    failing(ZeroDivisionError("x"))  # type: ignore[operator]
    answer = command("version")
    [report] = (home.parent / "state/kosmos/faults").iterdir()
    assert answer.code == 1
    assert "error: kosmos-install met a fault of its own: ZeroDivisionError: x" in answer.err
    assert f"where: {report}" in answer.err
    assert "Traceback" not in answer.err
    assert "ZeroDivisionError: x" in report.read_text() and "arguments: version" in report.read_text()
    assert report.stat().st_mode & 0o777 == 0o600
    assert report.parent.stat().st_mode & 0o777 == 0o700


def test_a_fault_is_kept_elsewhere_when_the_state_folder_cannot_be_written(
    failing: object, command: Command, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home.parent / "state").write_text("a file where a folder should be")
    monkeypatch.setenv("TMPDIR", str(home))
    monkeypatch.setattr("tempfile.tempdir", None)
    failing(RuntimeError("y"))  # type: ignore[operator]
    answer = command("version")
    [report] = home.glob("fault-*.txt")
    assert str(report) in answer.err


def kosmos(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real program."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def test_the_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from kosmos_installer import cli; cli.app; "
        "print(sorted({'pydantic', 'yaml', 'rich', 'ansible', 'ansible_runner', 'jinja2', 'cryptography'} "
        "& set(sys.modules)))"
    )
    assert kosmos("-c", code).stdout == "[]\n"


def test_the_help_answers_at_once() -> None:
    """Within 0.4 s. Processor time is judged, the best of five: other work on the machine is not our slowness."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert kosmos("-m", "kosmos_installer", "--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.4


def test_a_reader_that_goes_away_is_no_fault(tmp_path: Path) -> None:
    pipe = f"{sys.executable} -m kosmos_installer schema | head -c 1"
    result = subprocess.run(
        ["sh", "-c", pipe], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path)},
    )  # fmt: skip
    assert result.stdout == "{"
    assert "fault" not in result.stderr and "Traceback" not in result.stderr


# --- where things lie -------------------------------------------------------------------------------------------------


def test_the_checkout_is_found() -> None:
    tree = paths.ansible_tree()
    assert (tree.root, tree.origin, tree.collections) == (ROOT, "checkout", ROOT / "collections")
    assert (tree.playbooks / "site.yml").is_file()
    assert (tree.collections / "ansible_collections/kosmos/appliance/galaxy.yml").is_file()


def test_the_wheel_comes_before_a_checkout_around_it(tmp_path: Path) -> None:
    inside = tmp_path / "package/_collection/ansible_collections/kosmos/appliance"
    for root in (tmp_path, inside):
        (root / "roles").mkdir(parents=True)
        (root / "galaxy.yml").touch()
    tree = paths.ansible_tree(tmp_path / "package")
    assert (tree.root, tree.origin) == (inside, "wheel")
    assert tree.collections == tmp_path / "package/_collection"


def test_a_damaged_installation_is_told(tmp_path: Path) -> None:
    with pytest.raises(KosmosError, match="playbooks and roles of kosmos-install are missing"):
        paths.ansible_tree(tmp_path)


def test_ansible_runs_from_our_tree_whatever_the_caller_has_set() -> None:
    tree = paths.ansible_tree()
    base = {"PATH": "/usr/bin", "ANSIBLE_CONFIG": "/etc/ansible.cfg", "LC_ALL": "de_DE", "KEPT": "1"}
    made = tree.environment(base)
    assert made["ANSIBLE_CONFIG"] == str(ROOT / "ansible.cfg")
    assert made["ANSIBLE_COLLECTIONS_PATH"] == str(ROOT / "collections")
    assert made["ANSIBLE_ROLES_PATH"] == str(ROOT / "roles")
    assert made["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert (made["LC_ALL"], made["KEPT"]) == ("C.UTF-8", "1")
    assert base["LC_ALL"] == "de_DE"


@pytest.mark.parametrize(
    ("environ", "state"),
    [
        ({"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/kosmos"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/kosmos"),
        ({"XDG_STATE_HOME": "", "HOME": "/h"}, "/h/.local/state/kosmos"),
        ({}, f"{Path.home()}/.local/state/kosmos"),
    ],
)
def test_state_follows_the_xdg_rules(environ: dict[str, str], state: str) -> None:
    assert str(paths.state_dir(environ)) == state


def test_cache_follows_the_xdg_rules() -> None:
    assert str(paths.cache_dir({"XDG_CACHE_HOME": "/c"})) == "/c/kosmos"


def test_private_folders_are_private_all_the_way(tmp_path: Path) -> None:
    folder = paths.ensure_private(tmp_path / "a/b")
    assert paths.ensure_private(folder) == folder
    assert [path.stat().st_mode & 0o777 for path in (folder, folder.parent)] == [0o700, 0o700]


def test_tables_align_and_leave_no_trailing_blanks() -> None:
    text = console.table(("A", "LONGER", "C"), [("1", "2", "3"), ("four", "5", "")])
    assert text == "A     LONGER  C\n1     2       3\nfour  5"
