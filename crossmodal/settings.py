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
    """Sentinel's name for the master, if CELERY_BROKER_URL is sentinel://…."""
    sentinel_password: SecretStr | None = None
    """The password of the Sentinels; the master's is in the URL."""
    result_backend: SecretStr | None = Field(None, validation_alias="CELERY_RESULT_BACKEND")
    """Celery's result backend, for callers of plain Celery. Off when unset."""
    storage_url: str = Field(default_factory=lambda: (data_dir() / "storage").as_uri())
    """Object store: file:///folder, s3://bucket/prefix, gs://…, az://…."""
    bundle: Path = SHIPPED_BUNDLE
    """Folder of the default model: a bundle, or one of diffusers or transformers."""
    models: Path | None = None
    """A folder of model folders, served in addition to CROSSMODAL_BUNDLE."""
    device_memory: int | None = Field(None, ge=1)
    """Memory in bytes that all models of a device may use together. None: 95 % of a GPU's memory,
    or 75 % of the machine's or its container's."""
    switch_after_s: float = Field(30.0, ge=0)
    """How long a job may wait for a model that does not fit on the device, before a loaded model
    with waiting jobs is unloaded for it."""
    allow_model_code: str = ""
    """Names of model folders, separated by commas, whose `model.py` may be run."""
    key_prefix: str = Field(DEFAULT_KEY_PREFIX, pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """Prefix of every Redis key, so that deployments may share a server; see docs/redis.md."""
    plain_queue: str = "celery"
    """Default queue of plain Celery, which workers serve too. Empty: none."""

    connect_timeout_s: float = Field(5.0, gt=0)
    """How long a call to Redis may take to fail."""
    max_idle_s: float = Field(30.0, ge=1)
    """How long a connection to Redis may be idle before it is checked (if a call waits on it) or
    replaced (before its next use). Set it below the idle timeout of any NAT or proxy in between."""
    storage_ca_file: Path | None = None
    """PEM file of certificate authorities to trust for the object store."""
    storage_timeout_s: float = Field(15.0, gt=0)
    """How long a call to the object store may take to fail, retries included."""
    storage_fsync: bool = True
    """Whether a file:// store flushes a file to disk (fsync) before a record refers to it."""
    paused_queues_accept: bool = True
    """Whether jobs may be submitted to a queue that is paused. They wait until it is resumed."""
    retention_s: int = Field(7 * 86_400, ge=60)
    """How long the record of an ended job is kept."""
    max_queue_length: int = Field(10_000, ge=1)
    """Max waiting jobs of a queue; beyond it, submit raises `QueueFull`. It may also hold as many
    messages of canceled or expired jobs, and a hundred more, until a worker takes them."""
    max_message_bytes: int = Field(1_000_000, ge=4_096)
    """Largest message that is taken from a queue; a larger one becomes a dead letter."""
    max_memory_ratio: float = Field(0.9, gt=0, le=1)
    """Fraction of Redis's `maxmemory` at which submit raises `BrokerFull`."""
    max_attempts: int = Field(3, ge=1)
    """Max attempts at a job before it fails for good."""

    max_image_bytes: int = Field(20_000_000, ge=1)
    """Largest picture that is accepted, as a file."""
    max_image_pixels: int = Field(200_000_000, ge=1)
    """Largest picture that is decoded: width × height from its header."""

    decode_memory: int = Field(512_000_000, ge=64_000_000)
    """Memory in bytes for decoding pictures: files, pictures and decoder processes (as many as
    cores, at most one per 128 MB). Further pictures wait. A picture that needs more than all of it
    is decoded alone, and refused beyond four times as much: a JPEG of 108 megapixels takes 0.1 GB
    or, if it is progressive, 0.4, a PNG 0.5, an AVIF 2."""
    decode_timeout_s: float = Field(30.0, gt=0)
    """How long decoding a picture may take before its process is killed."""

    max_batch: int = Field(16, ge=1, le=256)
    """Max pictures or captions that the model host runs at once; producers and workers also derive
    from it how many messages of one API key may be in a queue."""
    bulk_concurrency: int | None = Field(None, ge=1)
    """Bulk messages that a worker processes at once, in addition to its `--concurrency`, unless
    `--bulk-concurrency` is given. None: 4, or 8 on a GPU."""
    bulk_batch: int = Field(32, ge=1, le=256)
    """Max items of bulk messages that the model host runs at once."""
    max_wait_s: float = Field(0.0, ge=0)
    """How long a free device waits for a fuller batch."""
    inference_timeout_s: float = Field(120.0, gt=0)
    """How long a batch may make no progress before its model host is killed as hung."""
    load_timeout_s: float = Field(600.0, gt=0)
    """How long a model may take to load and warm up before its model host is killed as hung."""
    host_wait_s: float = Field(30.0, ge=0)
    """How long a task waits for a model host that is starting."""
    host_socket: Path | None = None
    """The model host's unix socket; the supervisor sets it for the workers it starts."""
    ready_file: Path | None = None
    """Touched by a Celery worker once it takes jobs; the supervisor sets and watches it."""
    turn_file: Path | None = None
    """The lock file by which model hosts share a GPU, batch by batch; the supervisor sets it."""
    model_name: str = ""
    """The name of a model host's model; the supervisor sets it."""
    models_file: Path | None = None
    """The list of the models that a Celery worker may serve; the supervisor sets it."""
    heartbeat_file: Path | None = None
    """Touched by a Celery worker while it consumes; the supervisor sets and watches it."""
    run_time_limit_s: float = Field(600.0, gt=0)
    """How long one attempt may run before it is ended as `timed_out`. Its wait for the device does
    not count."""
    txt2img_run_time_limit_s: float | None = Field(None, gt=0)
    """The same for txt2img jobs alone."""
    img2txt_run_time_limit_s: float | None = Field(None, gt=0)
    """The same for img2txt jobs alone."""
    lease_s: float = Field(15.0, ge=2)
    """How long a silent worker keeps its jobs before others run them."""
    sweep_s: float = Field(2.0, gt=0)
    """Interval of lease renewal and of the sweep for expired leases. At most a third of the
    lease."""
    heartbeat_s: float = Field(15.0, ge=5)
    """How long a worker's consumer loop may miss its heartbeat before it counts as dead."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Log level of workers and model hosts; from `WARNING` on, no lines about succeeded jobs."""
    log_format: Literal["auto", "json", "human"] = "auto"
    """Log lines as `json`, or as text for a `human`; `auto`: `human` on a terminal, else `json`."""
    public_url: str = ""
    """The gateway's public URL, such as https://pictures.example.com."""
    keep_alive_s: int = Field(75, ge=1)
    """Idle timeout of connections to the gateway or `crossmodal mcp`. Set it above the keep-alive
    of a proxy in front, else the proxy uses closed connections (502)."""
    signed_urls: bool = True
    """Whether the gateway redirects callers to signed URLs of the object store. Turn it off if they
    cannot reach the store."""
    max_batch_bytes: int = Field(100_000_000, ge=1_024)
    """Largest file of batch requests that the gateway accepts, in bytes."""
    max_bodies_bytes: int = Field(500_000_000, ge=1_024)
    """Max bytes of request bodies that a gateway or an MCP server holds at once, in memory or in
    TMPDIR; one API key may use a quarter of it, or one body."""
    body_timeout_s: float = Field(600.0, gt=0)
    """How long a request's body may take to arrive; after 30 s it must also arrive at 5,000 bytes
    per second or faster."""
    allow_image_urls: bool = False
    """Whether the gateway fetches pictures from URLs in requests."""
    allow_private_urls: bool = False
    """Whether webhooks and pictures may be at private addresses. Not safe with untrusted users."""
    fetch_timeout_s: float = Field(10.0, gt=0)
    """How long fetching a picture from its URL may take, in all."""
    webhook_timeout_s: float = Field(10.0, gt=0, le=30)
    """How long a webhook's receiver may take to answer."""
    cors_origins: str = ""
    """Origins, separated by commas, whose pages may call the gateway (CORS). Empty: none."""
    run_dir: Path = Field(default_factory=lambda: runtime_dir())
    """Where running workers keep sockets, heartbeats and ready marks."""
    drain_s: float = Field(60.0, gt=0)
    """How long a stopping worker may take to finish its running jobs."""
    metrics_port: int = Field(0, ge=0, le=65_535)
    """Port on which a worker's supervisor serves Prometheus metrics of all its processes. 0:
    off."""
    metrics_address: str = "127.0.0.1"
    """The listen address of the metrics; `0.0.0.0` for a Prometheus on another machine."""

    @model_validator(mode="after")
    def _sweeps_within_a_lease(self) -> "Settings":
        if self.lease_s < 3 * self.sweep_s:
            raise ValueError(
                f"CROSSMODAL_LEASE_S is {self.lease_s:g}: it must be at least three times "
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
            raise ValueError(
                "it must not contain credentials: use environment variables such as AWS_…"
            )
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
