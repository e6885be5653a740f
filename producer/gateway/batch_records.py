"""Batch jobs of both HTTP interfaces: accept them, find a caller's, count their lines."""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from crossmodal.errors import CrossmodalError, JobNotFound
from crossmodal.jobs.access import ApiKey
from crossmodal.jobs.http_batches import MEDIA_TYPE, HttpBatch, Source, input_of
from crossmodal.jobs.names import new_job_id
from producer.batches.jsonl import BatchFile
from producer.gateway.intake import Line, check_lines
from producer.gateway.ownership import is_visible, may_see, missing
from producer.gateway.responses import batch_counts
from producer.gateway.services import Services, Turns

NOTHING = {"completed": 0, "failed": 0}


async def batch_of(batch_id: str, key: ApiKey, services: Services) -> HttpBatch:
    """Return a caller's batch job. Raises `JobNotFound`."""
    try:
        record = await services.ask(services.batches.get(batch_id))
    except JobNotFound:
        record = None
    if record is None or not may_see(key.id, record.owner):
        raise JobNotFound(missing("batch", batch_id, key.id))
    return record


def keep(
    path: Path,
    key: ApiKey,
    services: Services,
    translated: Callable[[Line], Line],
    source: Source | None = None,
) -> Turns[HttpBatch]:
    """Store the file, then open the batch job, so that an accepted one has its input."""
    batch_id = new_job_id()
    checked = path.with_name("checked.jsonl")
    may_name = cache(lambda k: is_visible(k, key.id, services.sync))
    is_mixed = yield from check_lines(path, checked, may_name, key.id, translated)
    most = services.settings.max_image_bytes
    file = BatchFile(checked, None, batch_id, most, services.sync.models, is_ours=False)
    record = HttpBatch(
        id=batch_id,
        owner=key.id,
        max_queued=key.max_queued if key.id else None,
        task=file.task,
        is_mixed=is_mixed,
        total=file.total,
        created_at=time.time(),
        source=source,
    )
    services.sync.storage.put_file(input_of(batch_id), checked, MEDIA_TYPE)
    try:
        services.sync.run(services.batches.open(record))
    except CrossmodalError:
        with suppress(CrossmodalError):
            services.sync.storage.delete(input_of(batch_id))
        raise
    return record


async def counts_of(record: HttpBatch, services: Services) -> dict[str, int]:
    """Return how many lines of a batch job have completed and how many failed."""
    if record.is_done:
        return {"completed": record.completed, "failed": record.failed}
    try:
        sent = batch_counts(await services.client.batch(record.id))
    except JobNotFound:  # none of its lines is submitted yet
        return NOTHING
    return {"completed": sent["completed"], "failed": sent["failed"]}
