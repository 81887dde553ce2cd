"""Controller half of `kosmos.appliance.file_set`: finds and renders the role's templates and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

SOURCES = ("template", "src", "content")


class ActionModule(ActionBase):
    """Turn each `template` or `src` into `content`, then run the module once on the host."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Render and execute.

        :raises AnsibleActionFail: an entry names no source, several, or one that does not exist.
        """
        task_vars = task_vars or {}
        result = super().run(tmp, task_vars)
        state = self._task.args.get("state", "present")
        files = self._task.args.get("files")
        if not isinstance(files, list):
            raise AnsibleActionFail("file_set: 'files' has to be a list of files")
        arguments = {"state": state, "files": [self._resolve(dict(item), state, task_vars) for item in files]}
        result.update(self._execute_module("kosmos.appliance.file_set", module_args=arguments, task_vars=task_vars))
        return result

    def _resolve(self, item: dict[str, Any], state: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        item_state = item.get("state", "present")
        if "dest" not in item and "template" in item:
            item["dest"] = "/" + str(item["template"]).removesuffix(".j2")
        if not str(item.get("dest", "")).startswith("/"):
            raise AnsibleActionFail(f"file_set: an absolute 'dest' is missing in {item}")
        if item_state == "directory":
            item.setdefault("mode", "0755")
            return item
        if state != "present" or item_state == "absent":
            return {key: value for key, value in item.items() if key not in SOURCES}
        given = [source for source in SOURCES if item.get(source) is not None]
        if len(given) != 1:
            raise AnsibleActionFail(
                f"file_set: {item['dest']} needs exactly one of template, src, content; it has {given or 'none'}"
            )
        if given == ["template"]:
            item["content"] = self._render(item.pop("template"), item["dest"], task_vars)
        elif given == ["src"]:
            item["content"] = self._loader.get_text_file_contents(self._find("files", item.pop("src")))
        return item

    def _find(self, folder: str, name: str) -> str:
        try:
            return str(self._find_needle(folder, name))
        except AnsibleError as exc:
            raise AnsibleActionFail(f"file_set: {name} is not below the role's {folder}/: {exc}") from exc

    def _render(self, name: str, dest: str, task_vars: dict[str, Any]) -> str:
        source = self._find("templates", name)
        search_path = [str(Path(source).parent), *task_vars.get("ansible_search_path", [])]
        templar = self._templar.copy_with_new_env(searchpath=search_path, available_variables=task_vars)
        try:
            text = templar.template(
                trust_as_template(self._loader.get_text_file_contents(source)),
                escape_backslashes=False,
                overrides={"trim_blocks": True, "lstrip_blocks": False},
            )
        except AnsibleError as exc:
            raise AnsibleActionFail(f"file_set: {source} for {dest} cannot be rendered: {exc}") from exc
        return "" if text is None else str(text)
