"""Forward-secure sealing of the journal: the host keeps a sealing key that it can only roll forward, and nothing else.

journalctl(1) --setup-keys prints the verification key once. It must reach the operator and must not stay on the host,
or whoever takes the host over could seal a forged journal. So a receipt follows its delivery:

    (nothing)   -> write receipt "pending" -> make keys -> key travels to the operator -> receipt "delivered"

A cut anywhere before "delivered" leaves "pending": the key that nobody holds is replaced on the next run. A sealing
key without a receipt was made by somebody else and stays untouched.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.kosmos.appliance.plugins.module_utils.host.durable import (
    make_folders,
    sync_folder,
    write_synced,
)
from ansible_collections.kosmos.appliance.plugins.module_utils.host.system import (
    HostError,
    Run,
    read_text,
    run,
)

#: Seed in four hexadecimal groups, a slash, start and interval: journalctl-authenticate.c, format_key().
KEY = re.compile(r"^[0-9a-f]{6}(?:-[0-9a-f]{6}){3}/[0-9a-f]+-[0-9a-f]+$", re.MULTILINE)


@dataclass
class Sealing:
    """The sealing of the journal of the system below `root`."""

    root: Path = Path("/")
    run: Run = run

    @property
    def receipt_path(self) -> Path:
        """Where the receipt lies; it holds a hash of the verification key, never the key."""
        return self.root / "var/lib/kosmos/host_base/journal-sealing.json"

    @property
    def key_path(self) -> Path:
        """Where journald looks for its sealing key."""
        return self.root / "var/log/journal" / self._machine() / "fss"

    def receipt(self) -> dict[str, Any]:
        """Return the receipt, empty when there is none."""
        text = read_text(self.receipt_path)
        return json.loads(text) if text else {}

    def state(self) -> str:
        """Return delivered, foreign (somebody else's keys) or due (keys have to be made)."""
        receipt, sealed = self.receipt(), self.key_path.exists()
        if sealed and not receipt:
            return "foreign"
        if sealed and receipt.get("state") == "delivered" and receipt.get("machine") == self._machine():
            return "delivered"
        return "due"

    def generate(self, interval_seconds: int) -> str:
        """Make new keys and return the verification key. Raises HostError when journald keeps no journal on disk."""
        self.run(["journalctl", "--flush"], timeout_seconds=120)
        if not self.key_path.parent.is_dir():
            raise HostError(
                f"{self.key_path.parent} does not exist: the journal is not persistent",
                reason="journal",
                cure="Set Storage=persistent (host_base does) and restart systemd-journald.",
            )
        make_folders(self.receipt_path.parent)
        self._write({"state": "pending", "machine": self._machine()})
        argv = ["journalctl", "--setup-keys", "--force", f"--interval={interval_seconds}s"]
        done = self.run(argv, timeout_seconds=900)
        match = KEY.search(done.stdout)
        if done.rc != 0 or not match:
            # The streams may hold the key: only the exit code travels.
            raise HostError(
                f"journalctl --setup-keys ended with {done.rc} and printed no verification key",
                reason="journal",
                cure="Run `journalctl --setup-keys --force` on the host by hand to read why.",
            )
        return match[0]

    def confirm(self, key_sha256: str) -> None:
        """Note that the operator holds the key, and start a journal file that is sealed from its first entry."""
        done = self.run(["journalctl", "--rotate"], timeout_seconds=120)
        if done.rc != 0:
            raise HostError(
                f"journalctl --rotate failed: {done.text}", reason="journal", cure="Check systemd-journald, run again."
            )
        self._write({"state": "delivered", "machine": self._machine(), "key_sha256": key_sha256})

    def remove(self) -> bool:
        """Remove keys that we made; return whether there was anything of ours."""
        if not self.receipt():
            return False
        self.key_path.unlink(missing_ok=True)
        self.run(["journalctl", "--rotate"], timeout_seconds=120)
        self.receipt_path.unlink(missing_ok=True)
        if not any(self.receipt_path.parent.iterdir()):
            self.receipt_path.parent.rmdir()
            sync_folder(self.receipt_path.parent.parent)
        return True

    def _machine(self) -> str:
        return (read_text(self.root / "etc/machine-id") or "").strip() or "unknown"

    def _write(self, receipt: dict[str, Any]) -> None:
        write_synced(self.receipt_path, json.dumps(receipt) + "\n", 0o600)
