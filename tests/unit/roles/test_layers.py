"""What a layer does when this release cannot build it: said in the summary, and nothing of it is touched or claimed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def cluster_of_an_appliance(playbook: str) -> subprocess.CompletedProcess[str]:
    """Run the cluster part of a playbook for the example appliance, which takes gVisor from the bundle."""
    return subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"), "-i", "inventories/example", "--tags", "cluster",
            "-e", "ansible_connection=local", "-e", "ansible_become=false", f"playbooks/{playbook}.yml",
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_SHOW_CUSTOM_STATS": "true", "ANSIBLE_NOCOLOR": "true"},
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_without_a_bundle_the_cluster_layer_is_left_out_and_said_so() -> None:
    ran = cluster_of_an_appliance("cluster")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "The cluster layer was left out" in ran.stdout
    assert "changed=0" in ran.stdout


def test_verify_claims_nothing_for_a_layer_that_was_left_out() -> None:
    ran = cluster_of_an_appliance("verify")
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert "nothing is proved" in ran.stdout
    assert "cluster.gvisor" not in ran.stdout
