"""Everything that can go wrong, as one tree.

    CrossmodalError
    ├── InvalidParams            the request itself is wrong
    │   ├── InvalidPrompt        ... its text
    │   │   └── UnknownWords     it names nothing that the model can draw
    │   ├── ModelNotFound        ... the model that it names
    │   ├── InvalidImage         ... its picture
    │   │   └── ImageTooLarge
    │   ├── IdempotencyConflict  ... its key, used before with other params
    │   └── UrlRefused           ... a URL in it, or the address that this leads to
    ├── InvalidMessage           what lies in a queue is no message of a job
    │   └── UnknownTask
    ├── FetchFailed              a URL did not answer, or not with what was asked for
    ├── QueueFull
    │   ├── QueuePaused          ... an operator has it refuse what is new
    │   ├── TooManyQueued        ... of this API key's jobs
    │   ├── WaitTooLong          ... so that a caller who holds its connection would wait in vain
    │   └── RateLimited          too many calls, or bytes of bodies, with this API key
    ├── Overloaded               this process is short of memory, disk, descriptors or threads
    ├── BodyTooLarge             of a request over HTTP
    ├── BodyTooSlow              ... it was not sent in time
    ├── Unauthorized             no API key, or one that is not known
    ├── Forbidden                ... or one that may not do this
    ├── NotSupported             an interface that others speak has it, and this one has not
    ├── WrongState               a job that has not ended, or has, cannot be treated so
    ├── JobNotFound
    ├── QueueNotFound            no kind and no model has such a queue
    ├── DeadLetterNotFound
    ├── DeliveryNotFound         ... of a webhook
    ├── ApiKeyNotFound           ... of the gateway
    ├── JobFailed                the job ended without a result; `code` says why
    │   ├── JobCanceled
    │   └── JobExpired
    ├── ResultTimeout            the caller stopped waiting; the job goes on
    ├── Interrupted              ... by Ctrl-C
    ├── InvalidSetting           the environment or the command line is wrong
    ├── ExtraMissing             what is asked for needs packages that are not installed
    ├── PackageShadowed          something else has the name of one of our packages
    ├── NotFaked                 a client of crossmodal.testing lacks what this needs
    ├── BrokerUnavailable
    │   ├── BrokerFull           Redis is about to run out of memory
    │   ├── BrokerRefused        Redis does not let this user in, or not do this
    │   └── BrokerNotTrusted     TLS with Redis failed: a certificate, a name, a key
    ├── StorageUnavailable
    │   ├── StorageNotWritable
    │   ├── BlobDamaged          the bytes are not those that were stored
    │   └── BlobNotFound
    ├── InvalidBundle
    │   └── BundleNotFound
    ├── InvalidModel             a folder of somebody else's model cannot be served
    ├── ModelHubError            a hub does not hand a model out
    │   ├── ModelHubUnavailable  ... it does not answer, or breaks off
    │   ├── ModelHubRefused      ... to this token, or to none
    │   ├── RepositoryNotFound   ... it has no such repository or revision
    │   └── ModelDamaged         ... a file came with other bytes than it should have
    ├── InvalidData              a data set cannot be trained on
    ├── TrainingError
    │   ├── TrainingDiverged     the loss is no longer a number
    │   ├── TrainingStopped      somebody asked for it; it can be resumed
    │   └── CheckpointMismatch   a checkpoint was made by other options
    ├── ImageDecoderCrashed      the process that opened a picture died, hung or took too much
    ├── OutputNotWritable        the disk is full, or the folder cannot be written to
    └── ModelHostError
        ├── ModelHostUnavailable no host answers at the socket
        ├── ModelBroken          the model cannot be loaded
        ├── ModelHostCrashed     the host died while it had the job
        ├── TimedOut             the host, or the whole attempt, took too long
        ├── GpuOutOfMemory       not even this item alone fits on the device
        └── InferenceFailed      the model raised on this item alone

Each class has a `code` that never changes and a `retryable` flag: whether the
same request may succeed later without being changed.
"""

from collections.abc import Iterator
from typing import ClassVar


class CrossmodalError(Exception):
    """Root of every error this project raises on purpose."""

    code: str = "internal_error"
    retryable: bool = False
    caused_by_request: ClassVar[bool] = False


class InvalidParams(CrossmodalError):
    """A parameter is missing, of a wrong type, or outside its limits.

    `field` is the first one that is wrong, where that is known.
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
    """No model of the kind has that name, as far as workers have said."""

    code = "model_not_found"


class InvalidImage(InvalidParams):
    """The bytes are not an image this system can decode completely."""

    code = "invalid_image"


class ImageTooLarge(InvalidImage):
    """The image has more bytes or pixels than the limit; its pixels were never decoded."""

    code = "image_too_large"


class UnknownWords(InvalidPrompt):
    """No object of the prompt is known to the model."""

    code = "unknown_words"


class IdempotencyConflict(InvalidParams):
    """The idempotency key belongs to a job that was submitted with other params."""

    code = "idempotency_conflict"


class UrlRefused(InvalidParams):
    """A URL is not one over http(s) to a public address; nothing was sent to it."""

    code = "url_refused"


class FetchFailed(CrossmodalError):
    """What a URL names did not answer, answered too slowly, or with another status than 200."""

    code = "fetch_failed"
    retryable = True


class InvalidMessage(CrossmodalError):
    """What was taken from a queue has not the form of a job's message."""

    code = "invalid_message"
    caused_by_request = True


class UnknownTask(InvalidMessage):
    """The message names a task that no worker of this version has."""

    code = "unknown_task"


class QueueFull(CrossmodalError):
    """The queue holds as many waiting jobs as it may; `retry_after_s` says when to try again."""

    code = "queue_full"
    retryable = True

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return str(self.args[0])


class QueuePaused(QueueFull):
    """The queue is paused, and the settings say that it then takes nothing new."""

    code = "queue_paused"


class TooManyQueued(QueueFull):
    """As many jobs of the API key wait as may."""

    code = "too_many_queued"


class WaitTooLong(QueueFull):
    """A caller who waits for the end would have gone before the job is likely to be done."""

    code = "wait_too_long"


class RateLimited(QueueFull):
    """The API key makes calls faster than it may, or sends or holds too much at once."""

    code = "rate_limited"


class Overloaded(CrossmodalError):
    """This process is short of what it needs: memory, disk, file descriptors or threads."""

    code = "overloaded"
    retryable = True


class BodyTooLarge(CrossmodalError):
    """The request's body is longer than allowed; it was not read to its end."""

    code = "body_too_large"
    caused_by_request = True


class BodyTooSlow(CrossmodalError):
    """The request's body did not arrive in time."""

    code = "body_too_slow"
    retryable = True


class Unauthorized(CrossmodalError):
    """The request has no API key, or one that is not known here."""

    code = "unauthorized"
    caused_by_request = True


class Forbidden(CrossmodalError):
    """The API key, or a page of another site, may not do this."""

    code = "forbidden"
    caused_by_request = True


class NotSupported(CrossmodalError):
    """Clients of another service's interface may ask for this; here nothing does it."""

    code = "not_supported"
    caused_by_request = True


class WrongState(CrossmodalError):
    """What is asked for cannot be done to a job in the state it is in."""

    code = "wrong_state"
    caused_by_request = True


class DeliveryNotFound(CrossmodalError):
    """No delivery of a webhook has this id."""

    code = "delivery_not_found"
    caused_by_request = True


class QueueNotFound(CrossmodalError):
    """No kind of job and no known model has a queue of that name."""

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
    """The job did not end within the caller's patience; it is still running or queued."""

    code = "result_timeout"
    retryable = True


class Interrupted(CrossmodalError):
    """Whoever waited pressed Ctrl-C; what was submitted goes on."""

    code = "interrupted"
    retryable = True


class InvalidSetting(CrossmodalError):
    """A setting from the environment or the command line cannot be used."""

    code = "invalid_setting"
    caused_by_request = True


class ExtraMissing(CrossmodalError):
    """The extra of the distribution that brings what this needs is not installed."""

    code = "extra_missing"
    caused_by_request = True


class PackageShadowed(CrossmodalError, ImportError):
    """Python finds a file of somebody else's under the name of a package that is needed."""

    code = "package_shadowed"
    caused_by_request = True


class NotFaked(CrossmodalError):
    """A client of `crossmodal.testing` lacks what this needs; a real one has it."""

    code = "not_faked"


class BrokerUnavailable(CrossmodalError):
    """Redis did not answer within the connect timeout."""

    code = "broker_unavailable"
    retryable = True


class BrokerFull(BrokerUnavailable):
    """Redis has nearly used up its `maxmemory`; the rest is for the jobs it holds already."""

    code = "broker_full"


class BrokerRefused(BrokerUnavailable):
    """Redis knows no such user and password, or its ACL forbids what was asked; or it is none."""

    code = "broker_refused"
    retryable = False


class BrokerNotTrusted(BrokerUnavailable):
    """No TLS connection could be made: one side does not accept the other's certificate."""

    code = "broker_not_trusted"
    retryable = False


class StorageUnavailable(CrossmodalError):
    """The object store refused, failed or did not answer."""

    code = "storage_unavailable"
    retryable = True


class StorageNotWritable(StorageUnavailable):
    """The object store answers, and refuses to be written to."""

    code = "storage_not_writable"


class BlobDamaged(StorageUnavailable):
    """The object store holds other bytes than were put there, or they were damaged on the way."""

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
    """A folder holds a model that cannot be served, as it is or at all."""

    code = "model_invalid"


class ModelHubError(CrossmodalError):
    """A hub answers in a way that no model can be fetched from it."""

    code = "model_hub_error"


class ModelHubUnavailable(ModelHubError):
    """The hub does not answer, has too much to do, or breaks off; what has come is kept."""

    code = "model_hub_unavailable"
    retryable = True


class ModelHubRefused(ModelHubError):
    """The hub does not let this token, or nobody without one, have the repository."""

    code = "model_hub_refused"


class RepositoryNotFound(ModelHubError):
    """The hub has no such repository or revision, or does not show it."""

    code = "repository_not_found"


class ModelDamaged(ModelHubError):
    """A file that came has another size or digest than the hub says; it was deleted."""

    code = "model_damaged"
    retryable = True


class InvalidData(CrossmodalError):
    """A data set is empty or cannot be read."""

    code = "data_invalid"
    caused_by_request = True


class TrainingError(CrossmodalError):
    """Training cannot go on; what it had saved before is as it was."""

    code = "training_error"


class TrainingDiverged(TrainingError):
    """The loss or its gradient is no longer a number; the weights from before are kept."""

    code = "training_diverged"


class TrainingStopped(TrainingError):
    """The run was asked to stop, by Ctrl-C or SIGTERM, and has left a checkpoint."""

    code = "training_stopped"
    retryable = True


class CheckpointMismatch(TrainingError):
    """The unfinished run in this folder was started with other options, or cannot be read."""

    code = "checkpoint_mismatch"
    caused_by_request = True


class ImageDecoderCrashed(CrossmodalError):
    """The process that opened a picture died, hung, took too much memory or answered nonsense."""

    code = "image_decoder_crashed"
    retryable = True


class OutputNotWritable(CrossmodalError):
    """A file cannot be written: the disk is full, or the folder is read-only."""

    code = "output_not_writable"


class ModelHostError(CrossmodalError):
    """The process that owns the device could not do its part."""

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
    """The model host died before it answered; `batch_size` is 0 when the job only waited."""

    code = "model_host_crashed"

    def __init__(self, message: str, batch_size: int = 1) -> None:
        super().__init__(message, batch_size)
        self.batch_size = batch_size

    def __str__(self) -> str:
        return str(self.args[0])


class TimedOut(ModelHostError):
    """The model host did not answer in time, or the attempt took longer than it may."""

    code = "timed_out"


class GpuOutOfMemory(ModelHostError):
    """The device has no memory for this item, even in a batch of its own."""

    code = "gpu_out_of_memory"


class InferenceFailed(ModelHostError):
    """The model raised an error on this item; its batch mates were not harmed."""

    code = "inference_failed"
    retryable = False


def described(error: BaseException) -> str:
    """Somebody else's error as part of a message: what the system says, or its kind and its words.

    Without a full stop, and without bytes in Python's notation, as its `repr` would have them.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}".rstrip(":. ")


def quoted(text: str) -> str:
    """What a caller has given, as part of a message: on one line, its backslashes not doubled."""
    return repr(text).replace("\\\\", "\\")


def is_callers_fault(code: str) -> bool:
    """Whether a failure with this code was caused by the request: nobody else can mend it."""
    return any(kind.code == code and kind.caused_by_request for kind in _tree(CrossmodalError))


def _tree(root: type[CrossmodalError]) -> Iterator[type[CrossmodalError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _tree(kind)
