"""Submit text-to-image and image-to-text jobs, and find what became of them.

from producer import Client

with Client() as client:
    job = client.txt2img("a large red circle on a white background", seed=7)
    png = client.read(job.result(timeout_s=60).images[0])
"""

from crossmodal.errors import (
    BlobNotFound,
    BrokerFull,
    BrokerUnavailable,
    CrossmodalError,
    IdempotencyConflict,
    InvalidImage,
    InvalidParams,
    InvalidPrompt,
    JobCanceled,
    JobExpired,
    JobFailed,
    JobNotFound,
    QueueFull,
    ResultTimeout,
    StorageUnavailable,
)
from crossmodal.jobs.params import BlobRef, Img2TxtParams, Txt2ImgParams
from crossmodal.jobs.record import (
    BatchStatus,
    ImageRef,
    ItemResult,
    JobEvent,
    JobResult,
    JobState,
    JobStatus,
)
from producer.aio import AsyncClient, AsyncJobHandle
from producer.client import Client
from producer.handle import JobHandle

__all__ = [
    "AsyncClient",
    "AsyncJobHandle",
    "BatchStatus",
    "BlobNotFound",
    "BlobRef",
    "BrokerFull",
    "BrokerUnavailable",
    "Client",
    "CrossmodalError",
    "IdempotencyConflict",
    "ImageRef",
    "Img2TxtParams",
    "InvalidImage",
    "InvalidParams",
    "InvalidPrompt",
    "ItemResult",
    "JobCanceled",
    "JobEvent",
    "JobExpired",
    "JobFailed",
    "JobHandle",
    "JobNotFound",
    "JobResult",
    "JobState",
    "JobStatus",
    "QueueFull",
    "ResultTimeout",
    "StorageUnavailable",
    "Txt2ImgParams",
]
