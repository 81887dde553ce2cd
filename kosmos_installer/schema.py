"""The JSON schema of the appliance file, for editors: made from the model, never written by hand."""

from __future__ import annotations

import json
from typing import Any

from kosmos_installer.model import API_VERSION, ApplianceFile


def document() -> dict[str, Any]:
    """The schema (JSON Schema draft 2020-12). Rules over more than one value are beyond it: see rules.py."""
    schema = ApplianceFile.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:kosmos:appliance-file:{API_VERSION.partition('/')[2]}",
        **schema,
        "title": f"KOSMOS appliance file ({API_VERSION})",
    }


def text() -> str:
    """The schema as it stands in docs/reference/kosmos.schema.json."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"
