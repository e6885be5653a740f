"""Settings: read from the environment once, at the entry point, and passed down."""

import os
import re
import tempfile
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from crossmodal.errors import InvalidSetting
from crossmodal.invalid import words

DEFAULT_KEY_PREFIX = "crossmodal"
SHIPPED_BUNDLE = Path(__file__).parent / "bundles" / "scenes"


def data_dir() -> Path:
    """Return the default folder of this user's queue and pictures.

    Raises `InvalidSetting` for a user without a home.
    """
    try:
        return Path(platformdirs.user_data_dir("crossmodal", appauthor=False))
    except RuntimeError as e:
        raise InvalidSetting(
            f"the user {os.getuid()} has no home: set XDG_DATA_HOME to a folder that it may write "
            "to, or HOME"
        ) from e


def runtime_dir() -> Path:
    """Return the default folder of the sockets of this user's processes."""
    if given := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(given) / "crossmodal"
    try:
        temporary = tempfile.gettempdir()
    except FileNotFoundError:  # no writable one; most commands need none
        temporary = os.environ.get("TMPDIR", "/tmp")  # noqa: S108 - the user's own is below it
    return Path(temporary, f"user-{os.getuid()}", "crossmodal")


class Settings(BaseSettings):
    """All settings, one per field. `CELERY_*` keep Celery's names; others are `CROSSMODAL_*`."""

    model_config = SettingsConfigDict(
        env_prefix="CROSSMODAL_",
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    broker_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), validation_alias="CELERY_BROKER_URL"
    )
    """Redis or Valkey: the queue and the job ledger."""
    sentinel_master: str = Field("mymaster", min_length=1)
    """What Sentinel calls the Redis that it watches, where CELERY_BROKER_URL is sentinel://…."""
    sentinel_password: SecretStr | None = None
    """What Sentinel itself asks for; the master's password is in the URL."""
    result_backend: SecretStr | None = Field(None, validation_alias="CELERY_RESULT_BACKEND")
    """Where Celery stores what tasks return, for callers of plain Celery. Off when unset."""
    storage_url: str = Field(default_factory=lambda: (data_dir() / "storage").as_uri())
    """Object store: file:///folder, s3://bucket/prefix, gs://…, az://…."""
    bundle: Path = SHIPPED_BUNDLE
    """Folder of the default model: a bundle, or one of diffusers or transformers."""
    models: Path | None = None
    """A folder of folders of models, which are served beside that of CROSSMODAL_BUNDLE."""
    device_memory: int | None = Field(None, ge=1)
    """Bytes that the models of a device may use together. None: 95 % of a GPU's memory, or 75 % of
    the machine's, or its container's."""
    switch_after_s: float = Field(30.0, ge=0)
    """How long a job may wait for a model that does not fit beside those that are loaded, before
    one of these is given up for it although it has jobs."""
    allow_model_code: str = ""
    """Names of folders, separated by commas, whose `model.py` may be run."""
    key_prefix: str = Field(DEFAULT_KEY_PREFIX, pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """Goes before every Redis key, so that deployments may share a server; docs/redis.md."""
    plain_queue: str = "celery"
    """Queue that plain Celery sends to when told no other; workers serve it too. Empty: none."""

    connect_timeout_s: float = Field(5.0, gt=0)
    """How long a call to Redis may take to fail."""
    max_idle_s: float = Field(30.0, ge=1)
    """How long a connection to Redis may be silent: then one that waits is asked whether it lives,
    and another is replaced before it is used. Less than what a NAT or proxy in between allows."""
    storage_ca_file: Path | None = None
    """PEM file of authorities that the object store's certificate may come from."""
    storage_timeout_s: float = Field(15.0, gt=0)
    """How long a call to the object store may take to fail, retries included."""
    storage_fsync: bool = True
    """Whether a folder as the store has forced a file to the disk before a record speaks of it."""
    paused_queues_accept: bool = True
    """Whether jobs may be submitted to a queue that is paused. They wait until it is resumed."""
    retention_s: int = Field(7 * 86_400, ge=60)
    """How long the record of an ended job is kept."""
    max_queue_length: int = Field(10_000, ge=1)
    """Waiting jobs a queue may hold before submit raises `QueueFull`; beside them, as many
    messages of canceled or expired ones and a hundred more, until a worker takes these."""
    max_message_bytes: int = Field(1_000_000, ge=4_096)
    """Largest message that is taken from a queue; a larger one is set aside as a dead letter."""
    max_memory_ratio: float = Field(0.9, gt=0, le=1)
    """Part of Redis's `maxmemory` at which submit raises `BrokerFull`."""
    max_attempts: int = Field(3, ge=1)
    """Attempts at a job before it fails for good."""

    max_image_bytes: int = Field(20_000_000, ge=1)
    """Largest picture that is accepted, as a file."""
    max_image_pixels: int = Field(200_000_000, ge=1)
    """Largest picture that is decoded: width × height from its header."""

    decode_memory: int = Field(512_000_000, ge=64_000_000)
    """Bytes that a worker may use for pictures it decodes, with their files and the processes that
    do it: as many as cores, at most one for each 128 MB. Other pictures wait. One that needs more
    than all of it is decoded when no other is, and refused if it needs more than four times of it:
    a JPEG of 108 megapixels takes 0.1 GB or, if it is progressive, 0.4, a PNG 0.5, an AVIF 2."""
    decode_timeout_s: float = Field(30.0, gt=0)
    """How long decoding a picture may take before its process is killed."""

    max_batch: int = Field(16, ge=1, le=256)
    """Most pictures or captions that the model host runs at once; submitters and workers go by it
    for how many messages of one API key lie in a queue, too."""
    bulk_concurrency: int | None = Field(None, ge=1)
    """Bulk messages that a worker has in hand, beside its `--concurrency` of others, where
    `--bulk-concurrency` does not say it. None: 4, and 8 of a GPU."""
    bulk_batch: int = Field(32, ge=1, le=256)
    """Most items of bulk messages that the model host runs at once."""
    max_wait_s: float = Field(0.0, ge=0)
    """How long a request waits for others, for a fuller batch, although the device is free."""
    inference_timeout_s: float = Field(120.0, gt=0)
    """How long a batch may take no step before its model host is taken to hang, and killed."""
    load_timeout_s: float = Field(600.0, gt=0)
    """How long a model may take to be loaded and warmed up before its host is taken to hang."""
    host_wait_s: float = Field(30.0, ge=0)
    """How long a task waits for a model host that is starting."""
    host_socket: Path | None = None
    """The model host's unix socket; the supervisor sets it for the workers it starts."""
    ready_file: Path | None = None
    """Touched by a Celery worker when it takes jobs; the supervisor sets it and watches it."""
    turn_file: Path | None = None
    """What the model hosts of a GPU lock for their batches; the supervisor sets it."""
    model_name: str = ""
    """What the model of a model host is called; the supervisor sets it."""
    models_file: Path | None = None
    """The list of the models that a Celery worker may serve; the supervisor sets it."""
    heartbeat_file: Path | None = None
    """Touched by a Celery worker while it consumes; the supervisor sets it and watches it."""
    run_time_limit_s: float = Field(600.0, gt=0)
    """How long one attempt may run before it is ended as `timed_out`. Its wait for the device does
    not count."""
    txt2img_run_time_limit_s: float | None = Field(None, gt=0)
    """The same for txt2img jobs alone."""
    img2txt_run_time_limit_s: float | None = Field(None, gt=0)
    """The same for img2txt jobs alone."""
    lease_s: float = Field(15.0, ge=2)
    """How long a worker that says nothing keeps its jobs; then others run them."""
    sweep_s: float = Field(2.0, gt=0)
    """How often leases are renewed, and those of dead workers looked for. Well below the lease."""
    heartbeat_s: float = Field(15.0, ge=5)
    """How long a worker's consuming loop may be silent before it counts as dead."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """How much workers and model hosts say; from `WARNING` on, nothing about jobs that succeed."""
    log_format: Literal["auto", "json", "human"] = "auto"
    """Logs as lines of `json`, or for a `human`; `auto`: the latter at a terminal only."""
    public_url: str = ""
    """Where the gateway is reached from outside, as https://pictures.example.com."""
    keep_alive_s: int = Field(75, ge=1)
    """How long a connection to the gateway or to `crossmodal mcp` is kept while nothing is asked
    on it: longer than a proxy before them keeps its own, which else meets closed ones (502)."""
    signed_urls: bool = True
    """Whether the gateway leads callers to the store itself. Off where they cannot reach it."""
    max_batch_bytes: int = Field(100_000_000, ge=1_024)
    """Largest file of requests that the gateway takes."""
    max_bodies_bytes: int = Field(500_000_000, ge=1_024)
    """Bytes of requests' bodies that a gateway or an MCP server holds at once, in memory or in
    TMPDIR; those of one API key a quarter of it, or one body."""
    body_timeout_s: float = Field(600.0, gt=0)
    """How long a request's body may take to arrive; after 30 s also no slower than 5,000 bytes a
    second."""
    allow_image_urls: bool = False
    """Whether the gateway fetches pictures that are named by their URL."""
    allow_private_urls: bool = False
    """Whether webhooks and pictures may be at addresses that are not public. Not for strangers."""
    fetch_timeout_s: float = Field(10.0, gt=0)
    """How long a picture's server may take, in all."""
    webhook_timeout_s: float = Field(10.0, gt=0, le=30)
    """How long a webhook's receiver may take to answer."""
    cors_origins: str = ""
    """Origins whose pages may call the gateway, separated by commas. Empty: none."""
    run_dir: Path = Field(default_factory=lambda: runtime_dir())
    """Where running workers keep sockets, heartbeats and ready marks."""
    drain_s: float = Field(60.0, gt=0)
    """How long a stopping worker may take to finish what runs."""
    metrics_port: int = Field(0, ge=0, le=65_535)
    """Where a worker's supervisor serves Prometheus metrics of all its processes. 0: nowhere."""
    metrics_address: str = "127.0.0.1"
    """The address that goes with it; `0.0.0.0` for a Prometheus on another machine."""

    @model_validator(mode="after")
    def _sweeps_within_a_lease(self) -> "Settings":
        if self.lease_s < 3 * self.sweep_s:
            raise ValueError(
                f"CROSSMODAL_LEASE_S is {self.lease_s:g}: at least three times "
                f"CROSSMODAL_SWEEP_S ({self.sweep_s:g}), or a busy worker would lose its jobs"
            )
        return self

    @property
    def allowed_origins(self) -> list[str]:
        """Return `cors_origins` as a list."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]

    @property
    def allowed_model_code(self) -> tuple[str, ...]:
        """Return `allow_model_code` as a tuple of folder names."""
        return tuple(name.strip() for name in self.allow_model_code.split(",") if name.strip())

    def run_time_limit_of(self, task: str) -> float:
        """Return the time limit of an attempt at a job of this kind, in seconds."""
        own: float | None = getattr(self, f"{task}_run_time_limit_s", None)
        return self.run_time_limit_s if own is None else own

    @field_validator("result_backend", mode="before")
    @classmethod
    def _empty_is_off(cls, value: Any) -> Any:
        return value or None

    @field_validator("storage_url")
    @classmethod
    def _has_no_password(cls, value: str) -> str:
        """Refuse credentials: errors, `doctor` and startup logs show the URL."""
        if not value.startswith("file:") and redacted(value) != value:
            raise ValueError("credentials do not belong into it: give them as AWS_…, for instance")
        return value


def load_settings(**overrides: Any) -> Settings:
    """Load settings from the environment; `overrides` are command-line options, None if not given.

    Raises `InvalidSetting`, naming each bad variable, its value and the limit.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    if unknown := sorted(given.keys() - Settings.model_fields.keys()):
        near = get_close_matches(unknown[0], Settings.model_fields, 1)
        remedy = f"did you mean {near[0]!r}?" if near else "docs/settings.md has them all"
        raise InvalidSetting(f"there is no setting {unknown[0]!r}: {remedy}")
    try:
        return Settings(**given)
    except ValidationError as e:
        raise InvalidSetting("; ".join(_describe(error) for error in e.errors())) from e


def overridden(settings: Settings | None, **overrides: Any) -> Settings:
    """Return `settings`, else the environment's, with some replaced. Raises `InvalidSetting`."""
    if settings is None:
        return load_settings(**overrides)
    named = [name for name, value in overrides.items() if value is not None]
    given = load_settings(**overrides) if named else settings
    return settings.model_copy(update={name: getattr(given, name) for name in named})


def _describe(error: Any) -> str:
    if not error["loc"]:
        return words(error)
    name = str(error["loc"][0])
    variable = name if name.isupper() else f"CROSSMODAL_{name.upper()}"
    shown = "" if "URL" in variable or "BACKEND" in variable else f" (got {error['input']!r})"
    return f"{variable}: {words(error)}{shown}"


_NAMED_SECRET = re.compile(r"((?:password|secret|token|sig)\w*=)[^&;#]*", re.IGNORECASE)
_NO_PORT = re.compile(r"^(\[[^]]*]|[^:/?#\[]*):(?!\d*([/?#]|$)).*")


def redacted(url: str) -> str:
    """Return `url` without its passwords, for a log or an error message."""
    return ";".join(_redacted(part) for part in re.split(r";(?=\w+://)", url))


def _redacted(url: str) -> str:
    """Redact up to the last @: a password may contain characters that are not percent-encoded."""
    scheme, slashes, rest = _NAMED_SECRET.sub(r"\1***", url).partition("://")
    before, at, place = rest.rpartition("@")
    user, colon, _ = before.partition(":")
    shown = f"{user}:***" if colon else before
    place = place if at else _NO_PORT.sub(r"\1:***", place)
    return f"{scheme}{slashes}{shown}{at}{place}"
