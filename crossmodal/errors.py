"""All errors of the project, as one tree.

    CrossmodalError
    ├── InvalidParams            the request itself is wrong
    │   ├── InvalidPrompt        the prompt is empty or too long
    │   │   └── UnknownWords     the prompt names nothing that the model can draw
    │   ├── ModelNotFound        no model has that name
    │   ├── InvalidImage         the picture cannot be decoded
    │   │   └── ImageTooLarge
    │   ├── IdempotencyConflict  the key was used before with other params
    │   └── UrlRefused           a URL, or the address that it resolves to, is not allowed
    ├── InvalidMessage           a message in a queue is malformed
    │   └── UnknownTask
    ├── FetchFailed              a URL did not answer, or not with status 200
    ├── QueueFull
    │   ├── QueuePaused          the queue is paused and refuses new jobs
    │   ├── TooManyQueued        too many jobs of this API key wait
    │   ├── WaitTooLong          the job would not finish before a waiting caller's timeout
    │   └── RateLimited          too many calls, or bytes of bodies, with this API key
    ├── Overloaded               this process is short of memory, disk, descriptors or threads
    ├── BodyTooLarge             the body of an HTTP request is too large
    ├── BodyTooSlow              the body of an HTTP request did not arrive in time
    ├── Unauthorized             no API key, or an unknown one
    ├── Forbidden                the API key lacks the right
    ├── NotSupported             a feature of another service's API that is not implemented here
    ├── WrongState               the operation is not allowed in the job's state
    ├── JobNotFound
    ├── QueueNotFound            no kind and no model has such a queue
    ├── DeadLetterNotFound
    ├── DeliveryNotFound         no webhook delivery has this id
    ├── ApiKeyNotFound
    ├── JobFailed                the job ended without a result; `code` is the reason
    │   ├── JobCanceled
    │   └── JobExpired
    ├── ResultTimeout            the caller stopped waiting; the job goes on
    ├── Interrupted              the caller pressed Ctrl-C; the job goes on
    ├── InvalidSetting           the environment or the command line is wrong
    ├── ExtraMissing             a feature needs packages that are not installed
    ├── PackageShadowed          another module has the name of a package of this project
    ├── NotFaked                 the fake client of crossmodal.testing has no such feature
    ├── BrokerUnavailable
    │   ├── BrokerFull           Redis is about to run out of memory
    │   ├── BrokerRefused        Redis rejects this user, or its command
    │   └── BrokerNotTrusted     TLS with Redis failed: a certificate, a name, a key
    ├── StorageUnavailable
    │   ├── StorageNotWritable
    │   ├── BlobDamaged          the bytes differ from the stored ones
    │   └── BlobNotFound
    ├── InvalidBundle
    │   └── BundleNotFound
    ├── InvalidModel             a model folder cannot be served
    ├── ModelHubError            a model cannot be fetched from a hub
    │   ├── ModelHubUnavailable  the hub does not answer, or the transfer broke off
    │   ├── ModelHubRefused      the hub denies access with this token, or without one
    │   ├── RepositoryNotFound   the hub has no such repository or revision
    │   └── ModelDamaged         a file has a wrong size or digest
    ├── InvalidData              a data set cannot be trained on
    ├── TrainingError
    │   ├── TrainingDiverged     the loss is no longer a number
    │   ├── TrainingStopped      the run was stopped; it can be resumed
    │   └── CheckpointMismatch   the checkpoint was made with other options
    ├── ImageDecoderCrashed      the decoder process died, hung or used too much memory
    ├── OutputNotWritable        the disk is full, or the folder cannot be written to
    └── ModelHostError
        ├── ModelHostUnavailable no host answers at the socket
        ├── ModelBroken          the model cannot be loaded
        ├── ModelHostCrashed     the host died while it had the job
        ├── TimedOut             the host, or the whole attempt, took too long
        ├── GpuOutOfMemory       this item alone does not fit on the device
        └── InferenceFailed      the model raised on this item alone

Each class has a `code` that never changes and a `retryable` flag: whether the
unchanged request may succeed later.
"""

from collections.abc import Iterator
from typing import ClassVar


class CrossmodalError(Exception):
    """The root of every error that this project raises on purpose."""

    code: str = "internal_error"
    retryable: bool = False
    caused_by_request: ClassVar[bool] = False


class InvalidParams(CrossmodalError):
    """A parameter is missing, of a wrong type, or outside its limits.

    `field` is the first wrong parameter, if known.
    """

    code = "invalid_params"
    caused_by_request = True

    def __init__(self, message: str = "", field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InvalidPrompt(InvalidParams):
    """The prompt is empty after cleaning, or longer than the limit."""

    code = "invalid_prompt"


class ModelNotFound(InvalidParams):
    """No model of the kind that workers have announced has that name."""

    code = "model_not_found"


class InvalidImage(InvalidParams):
    """The bytes are not an image that can be decoded completely."""

    code = "invalid_image"


class ImageTooLarge(InvalidImage):
    """The image exceeds the limit of bytes or pixels; it was not decoded."""

    code = "image_too_large"


class UnknownWords(InvalidPrompt):
    """No object of the prompt is known to the model."""

    code = "unknown_words"


class IdempotencyConflict(InvalidParams):
    """The idempotency key belongs to a job that was submitted with other params."""

    code = "idempotency_conflict"


class UrlRefused(InvalidParams):
    """A URL is not http(s) or its address is not public; nothing was sent."""

    code = "url_refused"


class FetchFailed(CrossmodalError):
    """The server of a URL did not answer, was too slow, or sent a status other than 200."""

    code = "fetch_failed"
    retryable = True


class InvalidMessage(CrossmodalError):
    """A message taken from a queue is malformed."""

    code = "invalid_message"
    caused_by_request = True


class UnknownTask(InvalidMessage):
    """The message names a task that workers of this version lack."""

    code = "unknown_task"


class QueueFull(CrossmodalError):
    """The queue has reached its max length; retry after `retry_after_s` seconds."""

    code = "queue_full"
    retryable = True

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return str(self.args[0])


class QueuePaused(QueueFull):
    """The queue is paused, and the settings make paused queues refuse new jobs."""

    code = "queue_paused"


class TooManyQueued(QueueFull):
    """The API key has reached its max of waiting jobs or unfinished batches."""

    code = "too_many_queued"


class WaitTooLong(QueueFull):
    """A waiting caller would time out before the job is likely to finish."""

    code = "wait_too_long"


class RateLimited(QueueFull):
    """The API key exceeds its rate of calls, or sends or holds too much at once."""

    code = "rate_limited"


class Overloaded(CrossmodalError):
    """This process is short of memory, disk, file descriptors or threads, or is stopping."""

    code = "overloaded"
    retryable = True


class BodyTooLarge(CrossmodalError):
    """The request's body exceeds the limit; it was not read to its end."""

    code = "body_too_large"
    caused_by_request = True


class BodyTooSlow(CrossmodalError):
    """The request's body did not arrive in time."""

    code = "body_too_slow"
    retryable = True


class Unauthorized(CrossmodalError):
    """The request has no API key, or an unknown one."""

    code = "unauthorized"
    caused_by_request = True


class Forbidden(CrossmodalError):
    """The API key, or the page's origin, lacks the right to do this."""

    code = "forbidden"
    caused_by_request = True


class NotSupported(CrossmodalError):
    """The request uses a feature of another service's API that is not implemented here."""

    code = "not_supported"
    caused_by_request = True


class WrongState(CrossmodalError):
    """The operation is not allowed in the job's state."""

    code = "wrong_state"
    caused_by_request = True


class DeliveryNotFound(CrossmodalError):
    """No webhook delivery has this id."""

    code = "delivery_not_found"
    caused_by_request = True


class QueueNotFound(CrossmodalError):
    """No kind and no known model has a queue of that name."""

    code = "queue_not_found"
    caused_by_request = True


class JobNotFound(CrossmodalError):
    """No job has this id: it was never submitted here, or its retention is over."""

    code = "job_not_found"
    caused_by_request = True


class ApiKeyNotFound(CrossmodalError):
    """No API key has this id."""

    code = "api_key_not_found"
    caused_by_request = True


class DeadLetterNotFound(CrossmodalError):
    """No dead letter has this id: it was replayed, dropped, or its retention is over."""

    code = "dead_letter_not_found"
    caused_by_request = True


class JobFailed(CrossmodalError):
    """The job ended as `failed`; `code` and `retryable` are those of its cause."""

    code = "job_failed"

    def __init__(self, message: str, code: str | None = None, retryable: bool = False) -> None:
        super().__init__(message, code, retryable)
        self.code = code or type(self).code
        self.retryable = retryable

    def __str__(self) -> str:
        return str(self.args[0])


class JobCanceled(JobFailed):
    """The job was canceled before it finished."""

    code = "canceled"


class JobExpired(JobFailed):
    """No worker started the job before its `expires_in_s` ran out."""

    code = "expired"


class ResultTimeout(CrossmodalError):
    """The job did not end within the caller's timeout; it is still queued or running."""

    code = "result_timeout"
    retryable = True


class Interrupted(CrossmodalError):
    """The caller pressed Ctrl-C while waiting; submitted jobs go on."""

    code = "interrupted"
    retryable = True


class InvalidSetting(CrossmodalError):
    """A setting in the environment or on the command line is invalid."""

    code = "invalid_setting"
    caused_by_request = True


class ExtraMissing(CrossmodalError):
    """The extra that this needs is not installed."""

    code = "extra_missing"
    caused_by_request = True


class PackageShadowed(CrossmodalError, ImportError):
    """Python finds another module under the name of a package that this needs."""

    code = "package_shadowed"
    caused_by_request = True


class NotFaked(CrossmodalError):
    """The fake client of `crossmodal.testing` lacks a feature of the real one."""

    code = "not_faked"


class BrokerUnavailable(CrossmodalError):
    """Redis did not answer within the connect timeout."""

    code = "broker_unavailable"
    retryable = True


class BrokerFull(BrokerUnavailable):
    """Redis has nearly used up its `maxmemory`; the rest is reserved for the jobs it holds."""

    code = "broker_full"


class BrokerRefused(BrokerUnavailable):
    """Redis rejects the user or password, its ACL denies a command, or the server is no Redis."""

    code = "broker_refused"
    retryable = False


class BrokerNotTrusted(BrokerUnavailable):
    """The TLS connection failed: one side does not accept the other's certificate."""

    code = "broker_not_trusted"
    retryable = False


class StorageUnavailable(CrossmodalError):
    """The object store refused, failed or did not answer."""

    code = "storage_unavailable"
    retryable = True


class StorageNotWritable(StorageUnavailable):
    """The object store answers but refuses writes."""

    code = "storage_not_writable"


class BlobDamaged(StorageUnavailable):
    """The bytes differ from the stored ones: damaged in the object store or in transfer."""

    code = "blob_damaged"


class BlobNotFound(StorageUnavailable):
    """The object store holds nothing under this key."""

    code = "blob_not_found"
    retryable = False


class InvalidBundle(CrossmodalError):
    """A bundle's files do not match its manifest, or its manifest cannot be read."""

    code = "bundle_invalid"


class BundleNotFound(InvalidBundle):
    """There is no bundle in this folder."""

    code = "bundle_not_found"


class InvalidModel(CrossmodalError):
    """A model folder cannot be served, as it is or at all."""

    code = "model_invalid"


class ModelHubError(CrossmodalError):
    """A model cannot be fetched from a hub."""

    code = "model_hub_error"


class ModelHubUnavailable(ModelHubError):
    """The hub does not answer, is overloaded, or broke off; the bytes received are kept."""

    code = "model_hub_unavailable"
    retryable = True


class ModelHubRefused(ModelHubError):
    """The hub denies access to the repository with this token, or without one."""

    code = "model_hub_refused"


class RepositoryNotFound(ModelHubError):
    """The hub has no such repository or revision, or hides it."""

    code = "repository_not_found"


class ModelDamaged(ModelHubError):
    """A fetched file differs in size or digest from the hub's record; it was deleted."""

    code = "model_damaged"
    retryable = True


class InvalidData(CrossmodalError):
    """A data set is empty or cannot be read."""

    code = "data_invalid"
    caused_by_request = True


class TrainingError(CrossmodalError):
    """Training cannot continue; what it saved before is unchanged."""

    code = "training_error"


class TrainingDiverged(TrainingError):
    """The loss or its gradient is no longer a number; the weights from before are kept."""

    code = "training_diverged"


class TrainingStopped(TrainingError):
    """The run was stopped by Ctrl-C or SIGTERM, and has left a checkpoint."""

    code = "training_stopped"
    retryable = True


class CheckpointMismatch(TrainingError):
    """The unfinished run in this folder was started with other options, or cannot be read."""

    code = "checkpoint_mismatch"
    caused_by_request = True


class ImageDecoderCrashed(CrossmodalError):
    """The decoder process died, hung, used too much memory or sent an invalid answer."""

    code = "image_decoder_crashed"
    retryable = True


class OutputNotWritable(CrossmodalError):
    """A file cannot be written: the disk is full, or the folder is read-only."""

    code = "output_not_writable"


class ModelHostError(CrossmodalError):
    """The model host failed."""

    code = "model_host_error"
    retryable = True


class ModelHostUnavailable(ModelHostError):
    """No model host accepted a connection at the socket."""

    code = "model_host_unavailable"


class ModelBroken(ModelHostError):
    """The model could not be loaded, and no other worker has it."""

    code = "model_broken"
    retryable = False


class ModelHostCrashed(ModelHostError):
    """The model host died before it answered; `batch_size` is 0 if the job only waited."""

    code = "model_host_crashed"

    def __init__(self, message: str, batch_size: int = 1) -> None:
        super().__init__(message, batch_size)
        self.batch_size = batch_size

    def __str__(self) -> str:
        return str(self.args[0])


class TimedOut(ModelHostError):
    """The model host did not answer in time, or the attempt exceeded its time limit."""

    code = "timed_out"


class GpuOutOfMemory(ModelHostError):
    """The device has too little memory for this item, even alone in a batch."""

    code = "gpu_out_of_memory"


class InferenceFailed(ModelHostError):
    """The model raised an error on this item; the rest of its batch was not affected."""

    code = "inference_failed"
    retryable = False


def described(error: BaseException) -> str:
    """Return a foreign error as part of a message: the system's message, or class and text.

    It has no full stop, and no bytes literals, as its `repr` would have.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}".rstrip(":. ")


def quoted(text: str) -> str:
    """Return a caller's text quoted for a message: on one line, without doubled backslashes."""
    return repr(text).replace("\\\\", "\\")


def is_callers_fault(code: str) -> bool:
    """Return whether errors with this code are caused by the request."""
    return any(kind.code == code and kind.caused_by_request for kind in _tree(CrossmodalError))


def _tree(root: type[CrossmodalError]) -> Iterator[type[CrossmodalError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _tree(kind)
