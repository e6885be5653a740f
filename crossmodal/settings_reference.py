"""`crossmodal settings`: every setting, its current value and its meaning."""

import ast
import inspect
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from crossmodal.console import Json, errors_to_exit_status, note, print_json, print_table, say
from crossmodal.settings import Settings, load_settings, redacted

GROUPS: dict[str, tuple[str, ...]] = {
    "All processes: apps, gateways and workers": (
        "broker_url",
        "sentinel_master",
        "sentinel_password",
        "storage_url",
        "key_prefix",
        "connect_timeout_s",
        "max_idle_s",
        "storage_timeout_s",
        "storage_ca_file",
        "storage_fsync",
        "log_level",
        "log_format",
    ),
    "Producers: apps and gateways": (
        "max_queue_length",
        "paused_queues_accept",
        "max_memory_ratio",
        "max_image_bytes",
        "max_image_pixels",
    ),
    "The gateway, and webhooks": (
        "public_url",
        "keep_alive_s",
        "signed_urls",
        "cors_origins",
        "max_batch_bytes",
        "max_bodies_bytes",
        "body_timeout_s",
        "allow_image_urls",
        "allow_private_urls",
        "fetch_timeout_s",
        "webhook_timeout_s",
    ),
    "Workers": (
        "bundle",
        "models",
        "allow_model_code",
        "device_memory",
        "switch_after_s",
        "result_backend",
        "plain_queue",
        "bulk_concurrency",
        "bulk_batch",
        "max_wait_s",
        "load_timeout_s",
        "host_wait_s",
        "decode_memory",
        "decode_timeout_s",
        "drain_s",
        "metrics_port",
        "metrics_address",
    ),
    "Limits and leases: the same for all processes that share a queue": (
        "max_batch",
        "retention_s",
        "max_attempts",
        "max_message_bytes",
        "run_time_limit_s",
        "txt2img_run_time_limit_s",
        "img2txt_run_time_limit_s",
        "inference_timeout_s",
        "lease_s",
        "sweep_s",
        "heartbeat_s",
    ),
    "Paths of a worker's processes": (
        "run_dir",
        "host_socket",
        "models_file",
        "model_name",
        "turn_file",
        "ready_file",
        "heartbeat_file",
    ),
}
OTHERS = "Other settings"

FOREIGN: dict[str, str] = {
    "CROSSMODAL_GATEWAY_ADDRESS": "Listen address of `crossmodal gateway`, unless "
    "`--address` is given: `127.0.0.1`.",
    "CROSSMODAL_GATEWAY_PORT": "Listen port of `crossmodal gateway`, with `up` too, unless "
    "`--port` is given: `8000`.",
    "AWS_*": "Credentials, region and endpoint of S3 and compatible stores. `AZURE_*` and "
    "`GOOGLE_*` for the others.",
    "FLOWER_*": "Flower's own options. `FLOWER_BASIC_AUTH=user:password` requires a login; it "
    "listens at `FLOWER_ADDRESS` and `FLOWER_PORT`: `127.0.0.1`, `5555`.",
    "CUDA_VISIBLE_DEVICES": "The GPUs that `--devices auto` finds.",
    "OTEL_*": "OpenTelemetry's own options; traces are exported if "
    "`OTEL_EXPORTER_OTLP_ENDPOINT` is set.",
    "SSL_CERT_FILE": "Trusted certificates for fetching pictures and posting webhooks.",
    "XDG_RUNTIME_DIR, XDG_DATA_HOME": "The user runtime directory and the user data "
    "directory of the tables above.",
    "NO_COLOR": "Commands print without colors.",
}
"""Variables of other programs that are read too."""

PLACES = {
    "storage_url": "a folder under the user data directory",
    "bundle": "the shipped one",
    "run_dir": "under the user runtime directory",
}
"""Defaults that depend on the machine."""

BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}  # by annotated_types' names
WORDS: dict[Any, str] = {
    int: "integer",
    float: "number",
    bool: "true or false",
    str: "text",
    SecretStr: "URL",
}


@dataclass(frozen=True)
class Setting:
    """A row: a variable, its current value, its source and its meaning."""

    variable: str
    value: str
    source: str
    about: str


def settings(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the reference, as in docs/settings.md.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show every setting in force, without secrets, and variables that are no settings."""
    if markdown:
        say(reference().removesuffix("\n"))
        return
    with errors_to_exit_status():
        rows = list(effective(load_settings()))
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        print_table(("variable", "value", "from"), [(r.variable, r.value, r.source) for r in rows])
        say("\n`crossmodal settings --markdown` explains each.")
    for name in unknown():
        note(f"{name} is set but is not a setting: is it misspelled?")


def effective(found: Settings) -> Iterator[Setting]:
    """Yield all settings with their values, in the order of the reference."""
    given = {name.upper() for name in os.environ}
    for names in grouped().values():
        for name in names:
            variable = variable_of(name)
            source = "environment" if variable in given else "default"
            yield Setting(variable, _shown(getattr(found, name)), source, meanings()[name])


def unknown() -> list[str]:
    """Return environment variables that look like settings and are none."""
    known = {variable_of(name) for name in Settings.model_fields} | set(FOREIGN)
    return sorted(
        n for n in os.environ if n.upper().startswith("CROSSMODAL_") and n.upper() not in known
    )


def variable_of(name: str) -> str:
    """Return the environment variable of a field."""
    alias = Settings.model_fields[name].validation_alias
    return str(alias) if alias else f"CROSSMODAL_{name.upper()}"


@cache
def meanings() -> dict[str, str]:
    """Return the docstring under each field, parsed only here because of the cost."""
    parsed = ast.parse(inspect.getsource(Settings)).body[0]
    body = parsed.body if isinstance(parsed, ast.ClassDef) else []
    return {
        str(field.target.id): " ".join(str(text.value.value).split())
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def grouped() -> dict[str, tuple[str, ...]]:
    """Return the names of all fields by group; those without a group go last."""
    sorted_already = {name for names in GROUPS.values() for name in names}
    rest = tuple(name for name in Settings.model_fields if name not in sorted_already)
    return {**GROUPS, **({OTHERS: rest} if rest else {})}


def reference() -> str:
    """Return the text of docs/settings.md."""
    parts = [HEAD]
    for group, names in grouped().items():
        parts.append(f"## {group}\n\n| variable | value | default | |\n|---|---|---|---|\n")
        parts.extend(f"{_row(name)}\n" for name in names)
        parts.append("\n")
    parts.append("## Variables of other programs\n\n| variable | |\n|---|---|\n")
    for names_, about in FOREIGN.items():
        shown = ", ".join(f"`{n.strip()}`" for n in names_.split(","))
        parts.append(f"| {shown} | {about} |\n")
    return "".join(parts)


HEAD = """# Settings

All settings come from the environment and are read once, when a process starts. A command's option
overrides its variable, and a variable overrides the default. An invalid value ends the command
with status 2 and a line that names the variable. `crossmodal settings` shows the settings in
force, without secrets, and names variables that look like settings but are not.

Durations are seconds. This page is generated from `crossmodal/settings.py`:
`crossmodal settings --markdown`.

"""


def _row(name: str) -> str:
    field = Settings.model_fields[name]
    about = meanings()[name].replace("|", "\\|")
    return f"| `{variable_of(name)}` | {_kind(field)} | {_default(name, field)} | {about} |"


def _kind(field: FieldInfo) -> str:
    kinds = [k for k in get_args(field.annotation) or (field.annotation,) if k is not NoneType]
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    limits = [
        f"{sign} {getattr(m, bound):,}"
        for m in field.metadata
        for bound, sign in BOUNDS.items()
        if hasattr(m, bound)
    ]
    patterns = [f"`{m.pattern}`" for m in field.metadata if getattr(m, "pattern", None)]
    return ", ".join([WORDS.get(kinds[0], "path"), *limits, *patterns])


def _default(name: str, field: FieldInfo) -> str:
    if name in PLACES:
        return PLACES[name]
    value = field.get_default(call_default_factory=True)
    shown = _shown(value)
    return f"`{shown}`" if shown else "none"


def _shown(value: Any) -> str:
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        return redacted(secret) if "://" in secret else "***"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if value is None:
        return ""
    return redacted(str(value)) if "://" in str(value) else str(value)
