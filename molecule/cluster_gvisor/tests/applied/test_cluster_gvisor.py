"""A container in gVisor under containerd, started and cleared; limits need own cgroups and are proved in the VM."""

from __future__ import annotations

import json

SMOKE = "/opt/kosmos/bin/kosmos-gvisor-smoke --memory-bytes 268435456 --pids 512 --runtime"
OURS = "/opt/kosmos/bin/kosmos-runsc"


def test_the_container_runs_in_gvisor_and_leaves_nothing(host) -> None:
    with host.sudo():
        found = json.loads(host.check_output(f"{SMOKE} {OURS} --report"))
        assert found["gvisor"] is True
        assert found["kernel_host"] not in found["kernel_inside"]
        assert found["sandbox_process"] == "runsc-sandbox"
        assert host.check_output("ctr -n kosmos-smoke containers list -q") == ""
        assert host.check_output("ls -A /var/lib/kosmos/gvisor") == ""


def test_limits_that_are_not_in_force_are_a_fault(host) -> None:
    with host.sudo():
        done = host.run(f"{SMOKE} {OURS}")
    assert done.rc == 1
    assert any("memory_max" in fault for fault in json.loads(done.stdout)["faults"])


def test_a_runtime_that_is_missing_is_told_in_json(host) -> None:
    with host.sudo():
        done = host.run(f"{SMOKE} /nowhere")
    assert done.rc == 2
    assert "/nowhere" in json.loads(done.stdout)["error"]


def test_the_distributions_configuration_is_as_it_was_packaged(host) -> None:
    assert host.check_output("dpkg --verify containerd") == ""
