"""What host_preflight finds on a machine that is spoiled on purpose, and on one that has no TPM."""

from __future__ import annotations

INTRUDER = """\
import fcntl, pathlib, socket, time
listening = socket.create_server(("", 443))
lock = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
pathlib.Path("/run/ready").touch()
time.sleep(600)
"""
SPOIL = f"""
touch /usr/local/bin/dockerd /var/lib/dpkg/updates/0001
setsid python3 -c '{INTRUDER}' </dev/null >/dev/null 2>&1 &
echo $! > /run/intruder
for n in $(seq 100); do test -e /run/ready && exit 0; sleep 0.1; done; exit 1
"""
MEND = "kill $(cat /run/intruder); rm /usr/local/bin/dockerd /var/lib/dpkg/updates/0001 /run/intruder /run/ready"
FOUND = {
    "host.engine.foreign": "docker",
    "host.apt.interrupted": "/var/lib/dpkg/updates/0001",
    "host.port.https": "python3",
    "host.apt.lock": "holds /var/lib/dpkg/lock-frontend",
}


def test_everything_is_found_at_once_each_with_its_cure(host, preflight) -> None:
    with host.sudo():
        host.run_expect([0], "sh -c %s", SPOIL)
        ran = preflight()
        host.run_expect([0], "sh -c %s", MEND)
    assert ran.returncode == 2, ran.stdout
    message = ran.stdout[ran.stdout.index(f"{len(FOUND)} of ") :]
    for name, what in FOUND.items():
        finding = message[message.index(f"{name} [") :]
        finding = finding[: finding.index("cure: ") + 30]
        assert what in finding, finding
    assert preflight().returncode == 0


def test_a_machine_without_tpm_is_refused_with_the_cure(preflight) -> None:
    ran = preflight(bed_waivers=[])
    assert ran.returncode == 2, ran.stdout
    assert "host.tpm.present [critical] A TPM answers" in ran.stdout
    assert "no TPM: neither /dev/tpmrm0 nor /dev/tpm0 exists" in ran.stdout
    assert "cure: Enable the TPM (also called PTT or fTPM) in the firmware" in ran.stdout
    assert "host.machine.real [critical]" in ran.stdout
    # What only follows from the missing TPM is no finding of its own.
    assert "host.tpm.version" not in ran.stdout
    assert "host.eventlog" not in ran.stdout


def test_an_expired_waiver_no_longer_covers(preflight) -> None:
    ran = preflight(bed_waiver={"reason": "moving soon", "expires": "2020-01-31"})
    assert ran.returncode == 2, ran.stdout
    assert "its waiver expired on 2020-01-31: moving soon" in ran.stdout


def test_a_lab_says_that_it_is_one(preflight) -> None:
    assert "Do not give this host real agents" in " ".join(preflight().stdout.split())
