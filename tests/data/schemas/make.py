"""Writes the schemas beside it: kinds that Kubernetes itself does not define, from models on PyPI.

    python -m venv v && v/bin/pip install cloudcoil-models-keda==2.16.1.0 \
        cloudcoil-models-prometheus-operator==0.80.1.0 && v/bin/python tests/data/schemas/make.py

These are generated from the projects' own CRDs. A field that is not in a schema is an error in
it, as in a strict API server.
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

KINDS = {
    "ScaledObject": "cloudcoil.models.keda.v1alpha1",
    "TriggerAuthentication": "cloudcoil.models.keda.v1alpha1",
    "PodMonitor": "cloudcoil.models.prometheus_operator.v1",
}


def strict(schema: Any) -> Any:
    """The schema without its prose, closed for fields that it does not have."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in ("title", "description")}
    found = {
        key: {name: strict(part) for name, part in value.items()}
        if key in ("properties", "$defs")
        else strict(value)
        for key, value in kept.items()
    }
    if "properties" in found:
        found.setdefault("additionalProperties", False)
    return found


def main() -> None:
    for kind, module in KINDS.items():
        model = getattr(import_module(module), kind)
        schema = strict(model.model_json_schema(by_alias=True))
        schema["properties"].pop("status", None)
        target = Path(__file__).with_name(f"{kind}.json")
        target.write_text(json.dumps(schema, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
