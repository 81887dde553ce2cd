"""Controller half of `kosmos.appliance.journal_seal`: receives the verification key, stores it in the operator's file.

The key crosses the connection once. While it does, the connection's own verbose output is silenced, and the key never
enters the task's result, so no event, record or log of a run can hold it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

MODULE = "kosmos.appliance.journal_seal"


class ActionModule(ActionBase):
    """inspect; if keys are due: generate, store here, confirm there."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Seal the journal.

        :raises AnsibleActionFail: there is no folder for the key; it is said before any key is made.
        """
        task_vars = task_vars or {}
        result = super().run(tmp, task_vars)
        if self._task.args.get("state") == "absent":
            return result | self._step("remove", task_vars)
        found = self._step("inspect", task_vars)
        if found.get("failed") or found["sealing"] != "due":
            return result | found
        folder = self._folder()
        if self._task.check_mode:
            return result | found | {"changed": True}
        self._prepare(folder)
        with self._silenced():
            made = self._step("generate", task_vars)
        if made.get("failed"):
            return result | made
        key = str(made.pop("verification_key"))
        digest = hashlib.sha256(key.encode()).hexdigest()
        name = self._task.args.get("key_name") or task_vars["inventory_hostname"]
        path = folder / f"{name}-journal-{digest[:12]}.key"
        self._store(path, key)
        confirmed = self._step("confirm", task_vars, key_sha256=digest)
        if confirmed.get("failed"):
            return result | confirmed
        message = f"The journal's verification key is in {path} on this machine. Keep it off the appliance."
        result |= confirmed | {"changed": True, "key_path": str(path), "key_sha256": digest, "msg": message}
        if self._connection.transport == "local":
            result["warnings"] = [f"{path} lies on the appliance itself: move it to another machine."]
        return result

    def _step(self, step: str, task_vars: dict[str, Any], **more: str) -> dict[str, Any]:
        arguments = {key: value for key, value in self._task.args.items() if key != "key_dir"}
        done = self._execute_module(MODULE, module_args=arguments | {"step": step} | more, task_vars=task_vars)
        done.pop("invocation", None)
        return dict(done)

    def _folder(self) -> Path:
        given = self._task.args.get("key_dir")
        if not given:
            raise AnsibleActionFail("journal_seal: 'key_dir' is missing: the verification key needs a place to go")
        return Path(str(given)).expanduser().absolute()

    def _prepare(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise AnsibleActionFail(f"journal_seal: {exc.filename} cannot be made: {exc.strerror}") from exc
        if not os.access(folder, os.W_OK | os.X_OK):
            raise AnsibleActionFail(f"journal_seal: {folder} is not writable")

    def _store(self, path: Path, key: str) -> None:
        """Write the key durably; an existing key is never overwritten (its name carries its hash)."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(f"{key}\n")
            stream.flush()
            os.fsync(stream.fileno())
        parent = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)

    @contextmanager
    def _silenced(self) -> Iterator[None]:
        """Keep the connection plugin from printing the streams at -vvv."""
        contexts = {id(context): context for context in (self._play_context, self._connection._play_context)}
        before = {key: context.no_log for key, context in contexts.items()}
        for context in contexts.values():
            context.no_log = True
        try:
            yield
        finally:
            for key, context in contexts.items():
                context.no_log = before[key]
