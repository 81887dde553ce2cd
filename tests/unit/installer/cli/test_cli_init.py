"""`init`: asks or takes flags, writes whole or not at all, never overwrites."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cli_support import FLAGS, Command

from kosmos_installer import config, initialise, verbs_local
from kosmos_installer.errors import FileError, KosmosError
from kosmos_installer.init_files import EXAMPLE_ANSWERS, appliance_text, hosts_text

ROOT = Path(__file__).parents[4]
Flags = Callable[..., list[str]]


def test_flags_make_an_inventory_that_is_valid(command: Command, home: Path, flags: Flags) -> None:
    answer = command("init", *flags(name="box"))
    assert answer.code == 0
    assert answer.out == (
        "Written: inventories/box/group_vars/all/kosmos.yml and inventories/box/hosts.yml\n"
        "Next:    kosmos-install preflight -i inventories/box\n"
    )
    assert (home / "inventories/box/hosts.yml").read_text() == (
        "---\n"
        "# How Ansible reaches the host; any of Ansible's connection variables may stand here.\n"
        "appliance:\n"
        "  hosts:\n"
        "    box:\n"
        "      ansible_host: 192.0.2.10\n"
        "      ansible_user: operator\n"
    )
    appliance = config.load(home / "inventories/box/group_vars/all/kosmos.yml")
    assert (appliance.name, appliance.hostname, appliance.profile) == ("box", "box", "appliance")
    assert [str(network) for network in appliance.management.allowed_cidrs] == ["192.0.2.0/24", "2001:db8::/48"]
    assert [path.name for path in (home / "inventories").iterdir()] == ["box"], "nothing unfinished stays behind"
    assert (home / "inventories/box").stat().st_mode & 0o777 == 0o755


def test_json_names_the_folder_and_the_next_command(command: Command, flags: Flags) -> None:
    assert command("init", "--json", *flags()).json == {
        "inventory": "inventories/kosmos-1",
        "next": "kosmos-install preflight -i inventories/kosmos-1",
    }


def test_the_box_itself_and_a_lab_without_time_servers(command: Command, home: Path, flags: Flags) -> None:
    assert command("init", *flags(profile="lab", host="localhost", ntp="offline")).code == 0
    folder = home / "inventories/kosmos-1"
    assert "      ansible_connection: local\n" in (folder / "hosts.yml").read_text()
    appliance = config.load(folder / "group_vars/all/kosmos.yml")
    assert appliance.time.offline and appliance.time.servers == []
    assert appliance.gvisor.source == "debian"


def test_without_a_terminal_the_missing_flags_are_named(command: Command, home: Path) -> None:
    answer = command("init", "--trunk", "eno2")
    assert answer.code == 2
    assert "why:   --host --ntp --management-interface --allowed-cidrs --data-disk\n" in answer.err
    assert not (home / "inventories").exists()


def test_nothing_is_overwritten(command: Command, home: Path, flags: Flags) -> None:
    assert command("init", *flags()).code == 0
    before = (home / "inventories/kosmos-1/hosts.yml").read_bytes()
    for name in ([], ["--name", "kosmos-1"]):
        answer = command("init", *name, *flags(host="198.51.100.1"))
        assert answer.code == 2
        assert "error: There is already an inventory kosmos-1" in answer.err
    assert (home / "inventories/kosmos-1/hosts.yml").read_bytes() == before


def test_even_a_dangling_link_is_not_overwritten(command: Command, home: Path, flags: Flags) -> None:
    (home / "inventories").mkdir()
    (home / "inventories/kosmos-1").symlink_to("nowhere")
    assert command("init", *flags()).code == 2


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("trunk", "eno1", "is inside the trunk eno1"),
        ("name", "../../etc", "It does not have the right form."),
        ("name", "x: y", "It does not have the right form."),
        ("host", "-oProxyCommand=x", "This is no host name and no IP address."),
        ("host", "a b", "This is no host name and no IP address."),
        ("allowed_cidrs", "0.0.0.0/0", "This is everybody"),
        ("allowed_cidrs", ",", "The list is empty."),
        ("user", "root", "root may not log in"),
        ("domain", "{{ x }}", "Templates are not rendered"),
        ("timezone", "#comment", "It does not have the right form."),
    ],
)
def test_a_wrong_flag_writes_nothing(flag: str, value: str, words: str, command: Command, flags: Flags) -> None:
    answer = command("init", *flags(**{flag: value}))
    assert answer.code == 2
    assert words in answer.err
    assert not Path("inventories").exists()


def test_a_folder_that_cannot_be_written_is_told(command: Command, home: Path, flags: Flags) -> None:
    (home / "inventories").write_text("a file")
    answer = command("init", *flags())
    assert answer.code == 1
    assert "error: The inventory cannot be written" in answer.err


def test_a_failure_halfway_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(KosmosError) as caught:
        initialise.write(home / "inventories/x", {Path("a/b.yml"): "text"})
    assert caught.value.why == "No space left on device"
    assert list((home / "inventories").iterdir()) == []


# --- asked in a terminal ----------------------------------------------------------------------------------------------


class Terminal:
    """Answers the questions from a list, and keeps what was said."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []
        self.said: list[str] = []

    def prompt(self, text: str, default: str) -> str:
        self.asked.append((text, default))
        return self.answers.pop(0) or default


def test_questions_have_defaults_and_wrong_answers_are_asked_again(home: Path) -> None:
    (home / "inventories/taken").mkdir(parents=True)
    terminal = Terminal(
        "Box!", "taken", "box", "", "host name", "192.0.2.10", "", "", "", "", "", "", "eno1", "0.0.0.0/0", "", "eno1",
        "eno2", "/dev/sdb", "/dev/disk/by-id/data",
    )  # fmt: skip
    answers = initialise.ask({}, home / "inventories", terminal.prompt, terminal.said.append)
    assert not terminal.answers
    assert answers == {
        "name": "box",
        "profile": "appliance",
        "host": "192.0.2.10",
        "user": "operator",
        "hostname": "box",
        "domain": "kosmos.internal",
        "timezone": "Etc/UTC",
        "ntp": "offline",
        "management_interface": "eno1",
        "allowed_cidrs": "192.0.2.0/24",
        "trunk": "eno2",
        "data_disk": "/dev/disk/by-id/data",
    }
    assert terminal.said == [
        "It does not have the right form.",
        "There is an inventory of this name already.",
        "This is no host name and no IP address.",
        "An answer is needed.",
        "This is everybody: SSH would be open to every network that reaches the host.",
        "The management interface is inside the trunk eno1: agents would share the operator's wire.",
        "It does not have the right form.",
    ]
    defaults = dict(terminal.asked)
    assert defaults["Host name without domain"] == "box"
    assert defaults["Networks that may open SSH, by commas"] == "192.0.2.0/24"


@pytest.mark.parametrize("host", ["kosmos.example.org", "2001:db8::10"])
def test_no_network_is_guessed_around_a_name_or_ipv6(host: str) -> None:
    [question] = [question for question in initialise.QUESTIONS if question.key == "allowed_cidrs"]
    assert question.default({"host": host}) == ""


def test_flags_are_not_asked_and_wrong_ones_end_it_before_the_first_question(home: Path) -> None:
    given = {name.removeprefix("--").replace("-", "_"): value for name, value in FLAGS.items()}
    terminal = Terminal("", "", "", "", "", "")
    answers = initialise.ask(given, home, terminal.prompt, terminal.said.append)
    assert answers["trunk"] == "eno2"
    assert terminal.asked[0][0] == "Name of the appliance"
    assert len(terminal.asked) == len(initialise.QUESTIONS) - len(given)
    with pytest.raises(FileError):
        initialise.ask(given | {"trunk": "eno1"}, home, Terminal().prompt, print)


def test_the_command_asks_when_there_is_a_terminal(
    command: Command, home: Path, flags: Flags, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, object]] = []

    def prompt(text: str, default: object = None) -> object:
        asked.append((text, default))
        return default

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(verbs_local.typer, "prompt", prompt)
    assert command("init", *flags(ntp="")).code == 0
    assert ("Name of the appliance", "kosmos-1") in asked
    asked.clear()
    assert command("init", *flags(name="other")).code == 0
    assert asked == [], "nothing is asked when every needed flag is given"
    assert (home / "inventories/kosmos-1/hosts.yml").is_file()


# --- the example ------------------------------------------------------------------------------------------------------


def test_the_shipped_example_is_what_init_writes() -> None:
    example = ROOT / "inventories/example"
    assert (example / "group_vars/all/kosmos.yml").read_text() == appliance_text(EXAMPLE_ANSWERS)
    assert (example / "hosts.yml").read_text() == hosts_text(EXAMPLE_ANSWERS)
    assert set(EXAMPLE_ANSWERS) == {question.key for question in initialise.QUESTIONS}


def test_each_question_has_its_flag() -> None:
    import inspect

    parameters = set(inspect.signature(verbs_local.init).parameters) - {"as_json"}
    assert parameters == {question.key for question in initialise.QUESTIONS}
    assert initialise.QUESTIONS[-1].flag == "--data-disk"
