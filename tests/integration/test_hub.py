"""The hub between Redis and open streams, in one event loop, with a real Redis."""

import asyncio

from crossmodal.jobs.names import new_job_id
from crossmodal.jobs.record import Job, JobState
from crossmodal.jobs.submission import Submission
from crossmodal.kinds.task import Task
from crossmodal.settings import Settings
from producer.aio import AsyncClient
from producer.gateway.hub import MOST_CHANGED, Hub


class SlowHub(Hub):
    """Reads records, and does not come back with them before it is allowed to."""

    def __init__(self, client: AsyncClient) -> None:
        super().__init__(client)
        self.has_read, self.may_return = asyncio.Event(), asyncio.Event()

    async def _records(self, ids: list[str]) -> list[Job]:
        found = await super()._records(ids)
        self.has_read.set()
        await asyncio.wait_for(self.may_return.wait(), 30)
        return found


def test_a_job_that_changes_while_it_is_read_is_told_again(settings: Settings) -> None:
    states = asyncio.run(asyncio.wait_for(_watched(settings), 30))
    assert states[-1] is JobState.CANCELED


async def _watched(settings: Settings) -> list[JobState]:
    async with AsyncClient(settings) as client:
        hub = SlowHub(client)
        hub.start()
        run, ledger, job_id = client.sync.run, client.sync.ledger, new_job_id()
        states: list[JobState] = []
        with hub.watch(None) as watcher, hub.follow(job_id) as follower:
            await asyncio.to_thread(
                run, ledger.submit(Submission(job_id, Task("txt2img"), "{}", ""))
            )
            await asyncio.wait_for(hub.has_read.wait(), 30)
            follower.look()
            await asyncio.to_thread(run, ledger.cancel(job_id))
            while not follower.has_news:
                await follower.wait(1)
            hub.may_return.set()
            while JobState.CANCELED not in states and len(states) < 2:
                await watcher.news.wait()
                watcher.news.clear()
                states += [job.state for job in watcher.take()]
        await hub.close()
        return states


def test_changes_that_nobody_can_keep_up_with_are_forgotten_the_oldest_first(
    settings: Settings,
) -> None:
    kept = asyncio.run(_flooded(settings, [f"job-{i}" for i in range(3 * MOST_CHANGED)]))
    assert kept == [f"job-{i}" for i in range(2 * MOST_CHANGED, 3 * MOST_CHANGED)]


async def _flooded(settings: Settings, ids: list[str]) -> list[str]:
    """What a hub holds of changed jobs when none of their records is read."""
    async with AsyncClient(settings) as client:
        hub = Hub(client)
        with hub.watch(None):
            for job_id in ids:
                hub._feed({"events": [("1-0", {"id": job_id})]}, {})
        return list(hub._changed)
