"""gVisor on the finished appliance: what runs in it, what bounds it, and what is left when it is disturbed."""

from __future__ import annotations

import json
import shlex
import subprocess
from typing import Any

import pytest

from .conftest import Suite

pytestmark = pytest.mark.vm

SMOKE = "/opt/kosmos/bin/kosmos-gvisor-smoke"
OURS = "/opt/kosmos/bin/kosmos-runsc"
MEMORY, PIDS = 201326592, 400


def smoke(suite: Suite, *options: str, runtime: str = OURS) -> tuple[int, dict[str, Any]]:
    """Run the smoke container; return its exit code and what it found."""
    words = [
        SMOKE,
        "--runtime",
        runtime,
        "--memory-bytes",
        str(MEMORY),
        "--pids",
        str(PIDS),
        "--systemd-cgroup",
        *options,
    ]
    done = suite.lab.run(shlex.join(words), root=True)
    return done.returncode, json.loads(done.stdout)


def containers(suite: Suite) -> list[str]:
    """Return the containers of the smoke namespace, running or not."""
    return suite.lab.run(
        "ctr -n kosmos-smoke containers list -q; ctr -n kosmos-smoke tasks list -q", root=True
    ).stdout.split()


def test_the_kernel_inside_is_gvisor_and_the_limits_are_the_cgroups(applied_module: Suite) -> None:
    code, found = smoke(applied_module)
    assert (code, found["faults"]) == (0, []), found
    assert found["gvisor"] is True
    assert found["kernel_host"] not in found["kernel_inside"]
    assert (found["memory_max"], found["pids_max"]) == (MEMORY, PIDS)
    assert containers(applied_module) == []


def test_another_runtime_is_told_from_gvisor(applied_module: Suite) -> None:
    code, found = smoke(applied_module, runtime="/usr/sbin/runc")
    assert code == 1
    assert "the container does not run in gVisor" in found["faults"]


def test_gvisor_without_limits_is_noticed(applied_module: Suite) -> None:
    wrapper = "/opt/kosmos/unlimited"
    text = f'#!/bin/sh\nexec {OURS} --ignore-cgroups "$@"\n'
    applied_module.lab.run(f"printf %s {shlex.quote(text)} > {wrapper}; chmod 0755 {wrapper}", root=True)
    code, found = smoke(applied_module, runtime=wrapper)
    applied_module.lab.run(f"rm {wrapper}", root=True)
    assert code == 1
    assert found["gvisor"] is True
    assert len(found["faults"]) == 2, found


def test_what_an_interrupted_run_leaves_is_cleared_by_the_next(applied_module: Suite) -> None:
    words = shlex.join(
        [SMOKE, "--runtime", OURS, "--memory-bytes", str(MEMORY), "--pids", str(PIDS), "--systemd-cgroup"]
    )
    wait = 'until [ -n "$(ctr -n kosmos-smoke tasks list -q)" ]; do sleep 0.2; done'
    argv = applied_module.lab.ssh.argv(f"{words} > /dev/null & smoke=$!; {wait}; kill -KILL $smoke", root=True)
    subprocess.run(argv, capture_output=True, timeout=120, check=False)
    code, found = smoke(applied_module)
    assert code == 0, found
    assert containers(applied_module) == []


def test_the_distributions_configuration_is_as_it_was_packaged(applied_module: Suite) -> None:
    assert applied_module.lab.run("dpkg --verify containerd", root=True).stdout == ""


def test_a_run_that_changes_nothing_still_says_that_this_is_a_lab(applied: Suite) -> None:
    ran = applied.playbook("playbooks/cluster.yml", fast=False)
    assert ran.code == 0, ran.told
    assert "changed=0" in ran.out
    assert "LAB ONLY" in ran.out


def test_an_appliance_is_refused_with_the_cure(applied: Suite) -> None:
    ran = applied.playbook("playbooks/cluster.yml", "-e", "cluster_gvisor_profile=appliance", fast=False)
    assert ran.code == 2, ran.told
    assert "verified bundle" in ran.out
