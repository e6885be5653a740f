"""Submit text-to-image and image-to-text jobs, and follow them to their results.

from crossmodal import Client

with Client() as client:
    job = client.txt2img("a large red circle on a white background", seed=7)
    png = client.read(job.result(timeout_s=60).images[0])
"""

from crossmodal.errors import (
    ApiKeyNotFound,
    BlobDamaged,
    BlobNotFound,
    BrokerFull,
    BrokerNotTrusted,
    BrokerRefused,
    BrokerUnavailable,
    CrossmodalError,
    DeadLetterNotFound,
    DeliveryNotFound,
    IdempotencyConflict,
    ImageTooLarge,
    InvalidImage,
    InvalidParams,
    InvalidPrompt,
    InvalidSetting,
    JobCanceled,
    JobExpired,
    JobFailed,
    JobNotFound,
    ModelBroken,
    ModelNotFound,
    QueueFull,
    QueueNotFound,
    QueuePaused,
    RateLimited,
    ResultTimeout,
    StorageNotWritable,
    StorageUnavailable,
    TooManyQueued,
    Unauthorized,
    UnknownWords,
    WrongState,
)
from crossmodal.jobs.access import ApiKey
from crossmodal.jobs.bulk import BulkItem
from crossmodal.jobs.listing import Page
from crossmodal.jobs.models import KnownModels
from crossmodal.jobs.origin import Origin, Webhook
from crossmodal.jobs.params import BulkParams
from crossmodal.jobs.record import (
    BatchStatus,
    DeadLetter,
    Delivery,
    Failure,
    GeneratedCaption,
    ImageRef,
    ItemResult,
    Job,
    JobEvent,
    JobResult,
    JobState,
    JobStatus,
    ModelInfo,
    ModelState,
    Progress,
    QueueStatus,
    ServedKind,
    Timings,
    WorkerInfo,
)
from crossmodal.kinds.base import ItemParams, Kind
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.img2txt import Img2TxtParams
from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.settings import Settings
from producer.aio import AsyncClient, AsyncJobHandle
from producer.client import Client
from producer.handle import Handle, JobHandle
from producer.pictures.files import Picture

__all__ = [
    "ApiKey",
    "ApiKeyNotFound",
    "AsyncClient",
    "AsyncJobHandle",
    "BatchStatus",
    "BlobDamaged",
    "BlobNotFound",
    "BlobRef",
    "BrokerFull",
    "BrokerNotTrusted",
    "BrokerRefused",
    "BrokerUnavailable",
    "BulkItem",
    "BulkParams",
    "Client",
    "CrossmodalError",
    "DeadLetter",
    "DeadLetterNotFound",
    "Delivery",
    "DeliveryNotFound",
    "Failure",
    "GeneratedCaption",
    "Handle",
    "IdempotencyConflict",
    "ImageRef",
    "ImageTooLarge",
    "Img2TxtParams",
    "InvalidImage",
    "InvalidParams",
    "InvalidPrompt",
    "InvalidSetting",
    "ItemParams",
    "ItemResult",
    "Job",
    "JobCanceled",
    "JobEvent",
    "JobExpired",
    "JobFailed",
    "JobHandle",
    "JobNotFound",
    "JobResult",
    "JobState",
    "JobStatus",
    "Kind",
    "KnownModels",
    "ModelBroken",
    "ModelInfo",
    "ModelNotFound",
    "ModelState",
    "Origin",
    "Page",
    "Picture",
    "Progress",
    "QueueFull",
    "QueueNotFound",
    "QueuePaused",
    "QueueStatus",
    "RateLimited",
    "ResultTimeout",
    "ServedKind",
    "Settings",
    "StorageNotWritable",
    "StorageUnavailable",
    "Task",
    "Timings",
    "TooManyQueued",
    "Txt2ImgParams",
    "Unauthorized",
    "UnknownWords",
    "Webhook",
    "WorkerInfo",
    "WrongState",
]
