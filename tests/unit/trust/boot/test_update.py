"""From a kernel to a published image, on a host in a folder, by the programs that Debian 13 has."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from boot_bed import CMDLINE, Bench
from cuts import run_until
from host_bed import VERSION, Machine

from kosmos_trust.boot import __main__ as program
from kosmos_trust.boot import gate, health, pe, prediction, signing
from kosmos_trust.boot.commands import Done
from kosmos_trust.boot.errors import BootError, CommandError, SignatureError
from kosmos_trust.boot.esp import Esp
from kosmos_trust.boot.host import Host
from kosmos_trust.boot.roles import Role
from kosmos_trust.boot.update import Outcome

NEXT = "6.12.57+deb13-amd64"


pytestmark = pytest.mark.usefixtures("no_flush")


@pytest.fixture
def machine(bench: Bench, request: pytest.FixtureRequest) -> Machine:
    return Machine(bench, bench.folder / request.node.name.replace("[", "-").replace("]", ""))


def broken(result_or_verdict: object) -> set[str]:
    verdict = getattr(result_or_verdict, "verdict", result_or_verdict)
    return {one.id for one in verdict.failures}  # type: ignore[union-attr]


def test_the_first_image_and_the_loader_s_settings(machine: Machine) -> None:
    result = machine.updater.update(machine.parts())
    assert result.outcome is Outcome.PUBLISHED, result.verdict and "\n".join(result.verdict.lines())
    assert machine.names() == ["kosmos-000001-6.12.48.deb13-amd64+3.efi"]
    assert (machine.esp / "loader/loader.conf").exists()
    assert not machine.state.staging.exists()
    assert [one["event"] for one in machine.state.history()] == ["published"]
    argv = next(words for words in machine.ran if words[0] == "ukify")
    assert not any("private" in word for word in argv), "ukify gets no private key"


def test_the_second_run_publishes_nothing(machine: Machine) -> None:
    machine.updater.update(machine.parts())
    before = machine.names()
    assert not machine.updater.needed()
    assert machine.updater.update(machine.parts()).outcome is Outcome.UNCHANGED
    assert machine.names() == before


def test_a_new_kernel_a_new_initrd_and_a_new_command_line_are_published(machine: Machine) -> None:
    machine.updater.update(machine.parts())
    machine.initrd += b"a package has changed it"
    assert machine.updater.update(machine.parts()).outcome is Outcome.PUBLISHED
    machine.install(NEXT)
    assert machine.updater.needed()
    assert machine.updater.update(machine.parts(NEXT)).outcome is Outcome.PUBLISHED
    machine.settings["cmdline"] = CMDLINE + " panic=30"
    assert machine.updater.needed()
    assert machine.updater.update(machine.parts(NEXT)).outcome is Outcome.PUBLISHED
    assert len(machine.names()) == 3, "the newest and two previous ones"
    texts = {pe.read(one.path).text(".cmdline") for one in machine.host.esp.entries()}
    assert texts == {CMDLINE, CMDLINE + " panic=30"}


def test_a_bad_default_is_built_again(machine: Machine) -> None:
    machine.updater.update(machine.parts())
    entry = machine.host.esp.entries()[0]
    entry.path.rename(entry.path.with_name(entry.id.replace(".efi", "+0-3.efi")))
    assert machine.updater.needed()
    assert machine.updater.update(machine.parts()).outcome is Outcome.PUBLISHED


def test_a_refused_image_leaves_the_old_default_and_a_loud_status(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.updater.update(machine.parts())
    monkeypatch.setattr(gate, "MAX_BYTES", 1 << 20)
    machine.initrd = bytes(1 << 20)
    result = machine.updater.update(machine.parts())
    assert result.outcome is Outcome.REFUSED
    assert broken(result) == {"boot.image.size"}
    assert machine.names() == ["kosmos-000001-6.12.48.deb13-amd64+3.efi"]
    assert machine.state.history()[-1]["rules"] == ["boot.image.size"]
    status = health.status(machine.host, machine.state)
    assert "boot.status.update" in broken(status)
    told = next(one.found for one in status.failures if one.id == "boot.status.update")
    assert told == "boot.image.size"


@pytest.mark.parametrize("name", ["dracut", "ukify"])
def test_a_program_that_fails_changes_nothing(machine: Machine, name: str) -> None:
    machine.updater.update(machine.parts())
    before = machine.names()
    machine.said[name] = Done(1, "", "first\nsecond\nthere is no space left")
    with pytest.raises(CommandError, match="there is no space left"):
        machine.updater.update(machine.parts())
    assert machine.names() == before


def test_an_initrd_with_a_hole_is_not_taken_though_dracut_says_well(machine: Machine) -> None:
    """As Debian's dracut 106-6 does it, when systemd-sysv is missing."""
    told = "dracut-install: ERROR: installing 'poweroff'\ndracut[E]: FAILED: /usr/lib/dracut/dracut-install -D /x"
    machine.said["dracut"] = Done(0, "", told)
    with pytest.raises(CommandError, match="installing 'poweroff'"):
        machine.updater.update(machine.parts())
    assert machine.names() == []


def test_a_ukify_that_makes_nonsense_changes_nothing(machine: Machine) -> None:
    machine.said["ukify"] = Done(0, "", "")
    with pytest.raises(BootError, match="cannot be read"):
        machine.updater.update(machine.parts())
    assert machine.names() == []


def test_keys_that_do_not_belong_together_sign_nothing(machine: Machine) -> None:
    (machine.private / "all.key").write_bytes((machine.private / "initrd.key").read_bytes())
    with pytest.raises(SignatureError, match="does not belong to its public key"):
        machine.updater.update(machine.parts())
    (machine.private / "all.key").unlink()
    with pytest.raises(SignatureError, match="open the sealed volume first"):
        machine.updater.update(machine.parts())
    assert machine.names() == []


def test_secure_boot_with_the_owner_s_own_key(bench: Bench) -> None:
    machine = Machine(bench, bench.folder / "secure", secure_boot=True)
    result = machine.updater.update(machine.parts())
    assert result.outcome is Outcome.PUBLISHED
    assert result.verdict is not None
    assert "boot.image.secure_boot" in {one.id for one in result.verdict.findings}
    entry = machine.host.esp.entries()[0]
    assert pe.read(entry.path).signed
    stripped = pe.without_signature(pe.read(entry.path))
    assert gate.judge(stripped.data, "stripped", machine.host.expectation(None)).failures[0].id.endswith("secure_boot")
    assert prediction.measure(stripped) == prediction.measure(pe.read(entry.path))
    assert machine.updater.update(machine.parts()).outcome is Outcome.UNCHANGED


def test_secure_boot_whose_key_is_elsewhere(bench: Bench) -> None:
    machine = Machine(bench, bench.folder / "secure-elsewhere", secure_boot=True)
    key = machine.settings["secure_boot"].pop("key")
    result = machine.updater.update(machine.parts())
    assert result.outcome is Outcome.WAITING
    assert result.to_sign is not None
    assert machine.names() == []
    assert "boot.status.waiting" in broken(health.status(machine.host, machine.state))
    refused = machine.updater.take(result.to_sign.read_bytes())
    assert broken(refused) == {"boot.image.secure_boot"}, "it was brought back as it was"
    result = machine.updater.update(machine.parts())
    signed = machine.folder / "signed.efi"
    certificate = machine.settings["secure_boot"]["certificate"]
    assert result.to_sign is not None
    bench.tools.run("sbsign", f"--key={key}", f"--cert={certificate}", f"--output={signed}", result.to_sign)
    assert machine.updater.take(signed.read_bytes()).outcome is Outcome.PUBLISHED
    assert machine.state.waiting() == []


def test_a_cut_anywhere_leaves_an_image_that_starts(bench: Bench) -> None:
    template = Machine(bench, bench.folder / "template")
    template.updater.update(template.parts())
    template.updater.update(template.parts())  # unchanged
    built = bench.folder / "cut-unsigned.efi"
    bench.tools.run(
        "ukify", "build", f"--stub={template.stub}", f"--linux={template.boot}/vmlinuz-{VERSION}",
        f"--initrd={bench.initrd}", f"--cmdline={CMDLINE}", f"--os-release=@{template.folder}/etc/os-release",
        f"--uname={VERSION}", f"--pcrpkey={template.public}/all.pub", f"--output={built}",
    )  # fmt: skip
    old = [b"MZ first", b"MZ second", b"MZ third"]
    template.built = built
    call, finished = 0, False
    while not finished:
        template.settings["esp"] = str(bench.folder / f"cut-{call}" / "esp")
        template.settings["state"] = str(bench.folder / f"cut-{call}" / "state")
        template.esp = Path(template.settings["esp"])
        folder = template.esp / "EFI/Linux"
        folder.mkdir(parents=True)
        for number, data in enumerate(old, start=1):
            (folder / f"kosmos-{number:06d}-k.efi").write_bytes(data)
        finished = run_until(call, partial(template.updater.update, template.parts()))
        esp = Esp(template.esp)
        assert {"kosmos-000002-k.efi", "kosmos-000003-k.efi"} <= {one.id for one in esp.entries()}
        for one in esp.entries():
            whole = one.path.read_bytes()
            assert whole in old or gate.judge(whole, one.id, template.host.expectation(None)).passed
        result = template.updater.update(template.parts())
        assert result.outcome in (Outcome.PUBLISHED, Outcome.UNCHANGED)
        newest = esp.entries()[0]
        assert newest.serial >= 4
        assert len(template.names()) <= 4
        call += 1
    assert call > 15


def controller(bench: Bench, name: str) -> Machine:
    return Machine(bench, bench.folder / name, "controller")


def test_the_controller_s_way_from_request_to_image(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    machine = controller(bench, "controlled")
    assert not list(machine.private.iterdir()), "no private key on the host"
    assert machine.updater.update(machine.parts()).outcome is Outcome.WAITING
    assert machine.names() == []
    assert "boot.status.waiting" in broken(health.status(machine.host, machine.state))
    answer = machine.folder / "answer.json"
    code = program.main(
        ["sign", str(machine.state.requests), "--keys", str(machine.folder / "controller"), "--cmdline", CMDLINE,
         "--output", str(answer)]
    )  # fmt: skip
    assert code == 0
    assert "kernel " in capsys.readouterr().out
    result = machine.updater.finish(answer.read_bytes(), "answer")
    assert result.outcome is Outcome.PUBLISHED
    assert gate.judge(result.entry.path.read_bytes(), "i", machine.host.expectation(None)).passed if result.entry else 0
    with pytest.raises(SignatureError, match="no image is waiting"):
        machine.updater.finish(answer.read_bytes(), "answer")


def test_an_answer_to_an_older_request_is_not_used(bench: Bench) -> None:
    machine = controller(bench, "outdated")
    machine.updater.update(machine.parts())
    keys = {role: [key.rsa] for role, key in machine.keys.items()}
    old = signing.answer(signing.parse_requests(machine.state.requests.read_bytes(), "r"), keys, CMDLINE)
    machine.initrd += b"and then a package changed"
    machine.updater.update(machine.parts())
    with pytest.raises(SignatureError, match="not for this image"):
        machine.updater.finish(old, "answer")
    assert machine.names() == []


def test_an_answer_by_a_foreign_key_is_refused_by_the_gate(bench: Bench) -> None:
    machine = controller(bench, "foreign")
    machine.updater.update(machine.parts())
    request = signing.parse_requests(machine.state.requests.read_bytes(), "r")["update"]
    entries = signing.sign(request.sections, {Role.INITRD: [bench.foreign.rsa], Role.ALL: [bench.foreign.rsa]})
    forged = {"apiVersion": signing.API_VERSION, "answers": {"update": json.loads(signing.pcrsig.render(entries))}}
    result = machine.updater.finish(json.dumps(forged).encode(), "answer")
    assert result.outcome is Outcome.REFUSED
    assert machine.names() == []


def test_two_runs_at_once(machine: Machine) -> None:
    with machine.state.locked(), pytest.raises(BootError, match="another run"), machine.state.locked():
        pass


def test_the_history_survives_a_torn_line_and_stays_short(machine: Machine) -> None:
    state = machine.state
    state.note("first")
    with (machine.folder / "state/history.jsonl").open("a") as stream:
        stream.write('{"time": "20')
    state.note("second")
    assert [one["event"] for one in state.history()] == ["first", "second"]
    for number in range(600):
        state.note("event", number=number)
    assert state.history()[-1]["number"] == 599
    assert len(state.history()) <= 500


def test_health_says_what_an_image_that_cannot_unlock_looks_like(machine: Machine) -> None:
    machine.settings["volumes"] = [{"device": "/dev/data", "role": "all", "unlock_key": "/k"}]
    machine.said |= {
        "dmesg": Done(0, "Initramfs unpacking failed: invalid magic at start of compressed archive\n", ""),
        "systemctl": Done(1, "maintenance\n", ""), "lsblk": Done(0, "part\n", ""),
    }  # fmt: skip
    assert broken(health.health(machine.host)) == {
        "boot.health.initrd", "boot.health.signature", "boot.health.volumes", "boot.health.system",
    }  # fmt: skip
    machine.said |= {
        "dmesg": Done(0, "", ""), "systemctl": Done(0, "running\n", ""), "lsblk": Done(0, "part\ncrypt\n", ""),
    }  # fmt: skip
    for name in health.HANDED:
        (machine.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (machine.folder / name).touch()
    assert broken(health.health(machine.host)) == set()


def test_status_sees_a_fallback(machine: Machine) -> None:
    machine.updater.update(machine.parts())
    first = machine.host.esp.entries()[0]
    first.path.rename(first.path.with_name(first.id))
    machine.started(first.id)
    assert "boot.status.fallback" not in broken(health.status(machine.host, machine.state))
    machine.initrd += b"x"
    second = machine.updater.update(machine.parts()).entry
    assert second is not None
    assert "boot.status.fallback" not in broken(health.status(machine.host, machine.state)), "not yet started"
    second.path.rename(second.path.with_name(second.id.replace(".efi", "+0-3.efi")))
    assert "boot.status.fallback" in broken(health.status(machine.host, machine.state))


def test_the_program_speaks_in_lines_and_exit_codes(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "run", machine.run)
    settings = ["--config", str(machine.write_settings())]
    assert program.main([*settings, "status", "--json"]) == program.BROKEN
    assert json.loads(capsys.readouterr().out)["passed"] is False
    machine.updater.update(machine.parts())
    image = next((machine.esp / "EFI/Linux").iterdir())
    assert program.main([*settings, "check", str(image)]) == program.OK
    assert "boot.signature.policy" in capsys.readouterr().out
    image.write_bytes(image.read_bytes()[:-600])
    assert program.main([*settings, "check", str(image)]) == program.BROKEN
    assert "BROKEN boot.image.readable" in capsys.readouterr().out
    assert program.main([*settings, "history"]) == program.OK
    assert "published image=kosmos-000001" in capsys.readouterr().out
    assert program.main([*settings, "rotate-key"]) == program.BROKEN
    assert "no rotation has begun" in capsys.readouterr().err
    assert program.main(["--config", "/no/such/file", "status"]) == program.BROKEN
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "kosmos-boot: /no/such/file: the settings cannot be read" in said


def test_it_runs_on_debian_s_own_python(bench: Bench) -> None:
    """With Debian 13's interpreter and its older `cryptography`, where the host runs it."""
    machine = Machine(bench, bench.folder / "debian-python")
    machine.updater.update(machine.parts())
    image = next((machine.esp / "EFI/Linux").iterdir())
    library = bench.folder / "library"
    shutil.copytree(Path(program.__file__).parents[1], library / "kosmos_trust", dirs_exist_ok=True)
    settings = machine.write_settings()
    argv = ["env", f"PYTHONPATH={library}", "PYTHONDONTWRITEBYTECODE=1", "python3", "-W", "error", "-m",
            "kosmos_trust.boot", "--config", str(settings), "check", "--json", str(image)]  # fmt: skip
    told = json.loads(bench.tools.run(*argv))
    assert told["passed"]
    assert len(told["findings"]) == 11, "every rule but the room, since it lies on the ESP already"


def test_the_program_from_build_to_blessing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(bench, bench.folder / "program")
    monkeypatch.setattr(program, "run", machine.run)
    monkeypatch.setattr(program, "Host", partial(Host, root=machine.folder))

    def main(*words: str) -> int:
        return program.main(["--config", str(machine.write_settings()), *words])

    assert main("build") == program.OK
    assert "built, without signatures" in capsys.readouterr().out
    assert machine.names() == []
    assert main("update") == program.OK
    assert "published: kosmos-000001-6.12.48.deb13-amd64+3.efi" in capsys.readouterr().out
    assert main("update", "--if-needed") == program.OK
    assert capsys.readouterr().out == "unchanged\n"
    assert main("update", "--kernel", "6.13") == program.BROKEN
    assert "vmlinuz-6.13: a part of the image is missing" in capsys.readouterr().err
    machine.initrd += b"x"
    monkeypatch.setattr(gate, "MAX_BYTES", 1000)
    assert main("update") == program.BROKEN
    assert "THE NEW IMAGE WAS REFUSED. The old one stays the default." in capsys.readouterr().out
    assert machine.names() == ["kosmos-000001-6.12.48.deb13-amd64+3.efi"]
    machine.said |= {"dmesg": Done(0, "", ""), "systemctl": Done(0, "running", "")}
    assert main("bless") == program.BROKEN, "the stub has handed nothing over"
    assert [one["event"] for one in machine.state.history()] == ["published", "refused", "not blessed"]
    machine.settings |= {"signing": "controller", "private_keys": None}
    monkeypatch.setattr(gate, "MAX_BYTES", 100_000_000)
    assert main("update") == program.WAIT
    assert "requests.json" in capsys.readouterr().out
