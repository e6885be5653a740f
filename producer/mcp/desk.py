"""The tools' functions: each makes a few calls of the client for an authenticated caller."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from crossmodal.errors import BrokerUnavailable, InvalidParams
from crossmodal.jobs.access import ApiKey
from crossmodal.jobs.origin import Origin
from crossmodal.jobs.record import Job, JobState
from crossmodal.kinds.base import ItemParams
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.img2txt import IMG2TXT
from crossmodal.kinds.txt2img import TXT2IMG
from producer.aio import AsyncClient
from producer.batches.inline import decoded
from producer.batches.items import ANY_BLOB
from producer.gateway.ownership import own_record, size_of
from producer.leaving import cancel_left
from producer.mcp import answers
from producer.mcp.answers import Content
from producer.mcp.arguments import Ask, Cancel, Describe, DescribeFile, Draw, ListModels
from producer.mcp.folders import read_picture
from producer.mcp.waiting import Report, Waits, ended, own_ended
from producer.place import place


class AgentsClient(AsyncClient):
    """A client whose Redis connections are named as an MCP server's."""

    _what = "mcp"


@dataclass(frozen=True)
class Call:
    """The caller of a tool: its API key, and the function that reports progress to it."""

    key: ApiKey
    report: Report

    @property
    def origin(self) -> Origin:
        """The origin of a job that the ledger keeps: the owner and its limit."""
        return Origin(self.key.id, self.key.max_queued if self.key.id else None)


class Desk:
    """The functions of all tools. `describe` may read files in `folders`."""

    def __init__(
        self, client: AsyncClient, *, patience_s: float, folders: Sequence[Path] = ()
    ) -> None:
        self.client = client
        self.folders = tuple(folders)
        self.waits = Waits()
        self._patience_s = patience_s

    async def draw(self, given: Draw, call: Call) -> Content:
        fields = given.fields(prompt=given.prompt, seed=given.seed, count=given.count)
        params = await self.client.run(self.client.calls.checked(TXT2IMG, fields))
        return await self._submitted(params, call, wait=given.wait)

    async def describe(self, given: Describe, call: Call) -> Content:
        fields = given.fields(image=ANY_BLOB, count=given.count)
        params = await self.client.run(self.client.calls.checked(IMG2TXT, fields))
        stored = await self._picture(given, call.key)
        params = params.model_copy(update={"image": stored})
        return await self._submitted(params, call, wait=given.wait)

    async def job(self, given: Ask, call: Call) -> Content:
        job = await own_record(given.job, call.key.id, self.client)
        if given.wait and not job.state.is_terminal:
            waiting = ended(self.client, job.id, self._patience_s, call.report)
            job = await self.waits.one(waiting) or job
        return await self._found(job)

    async def cancel(self, given: Cancel, call: Call) -> Content:
        job = await own_record(given.job, call.key.id, self.client)
        state = await self.client.cancel(job.id)
        return [answers.text([("job", job.id), ("state", state)])]

    async def models(self, given: ListModels, call: Call) -> Content:
        known = await self.client.models()
        if given.model is None:
            return answers.models(known, known.values(), most_words=0)
        return answers.models(known, [await self.client.model(given.model)])

    async def _submitted(self, params: ItemParams, call: Call, *, wait: bool) -> Content:
        job_id = await self._submit(params, call)
        if not wait:
            return await self._going_on(job_id)
        waiting = own_ended(self.client, job_id, self._patience_s, call.report)
        job = await self.waits.one(waiting)
        return await (self._going_on(job_id) if job is None else answers.made(job, self.client))

    async def _submit(self, params: ItemParams, call: Call) -> str:
        """Submit a job; return its id. If this is canceled meanwhile, so is the job."""
        submitting = asyncio.ensure_future(self.client.submit(params, origin=call.origin))
        try:
            with anyio.CancelScope(shield=True):  # from the end of the request
                await asyncio.shield(submitting)
        except asyncio.CancelledError:  # of this task, as by an agent in this process
            with anyio.CancelScope(shield=True):
                await cancel_left(self.client, (await submitting).id)
            raise
        return submitting.result().id

    async def _found(self, job: Job) -> Content:
        if not job.state.is_terminal:
            return await self._going_on(job.id)
        if job.state is JobState.SUCCEEDED:
            return await answers.made(job, self.client)
        return answers.without_result(job)

    async def _going_on(self, job_id: str) -> Content:
        try:
            words = place(await self.client.status(job_id))
        except BrokerUnavailable:  # the caller can query the id later
            words = "unknown: Redis is unavailable"
        return answers.going_on(job_id, words)

    async def _picture(self, given: Describe, key: ApiKey) -> BlobRef:
        """Return the picture as a blob, uploaded if needed. Raises errors of the arguments."""
        path = given.path if isinstance(given, DescribeFile) else None
        if sum(one is not None for one in (given.data, given.key, path)) != 1:
            ways = "data, key or path" if self.folders else "data or key"
            raise InvalidParams(f"describe: exactly one picture is needed: give either {ways}")
        if given.key is not None:
            await asyncio.to_thread(size_of, given.key, key.id, self.client.sync)
            return BlobRef(key=given.key)
        if given.data is not None:
            data = await asyncio.to_thread(decoded, given.data, "data")
        else:
            most = self.client.sync.settings.max_image_bytes
            data = await asyncio.to_thread(read_picture, path or "", self.folders, most)
        return await self.client.upload(data, owner=key.id)
