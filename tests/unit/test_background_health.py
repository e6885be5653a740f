"""The background process is live while all of its parts turn, and a batch harms no other."""

import asyncio
import time
from dataclasses import dataclass

import pytest

from crossmodal.jobs.runners import AsyncRunner
from crossmodal.settings import Settings
from producer import Client
from worker.background.http_batch_run import BatchRun
from worker.background.http_batches import BatchRunner
from worker.background.presence import TURN_S, Presence

WAIT_S = 30


@dataclass
class Part:
    turned_at: float


@pytest.mark.parametrize(
    ("silent_s", "is_stopping", "beats"),
    [(0.0, False, True), (2 * TURN_S, False, False), (2 * TURN_S, True, True)],
    ids=["well", "a part hangs", "it only finishes what it has"],
)
def test_the_heartbeat_is_of_all_parts(
    settings: Settings, short_path: str, silent_s: float, is_stopping: bool, beats: bool
) -> None:
    own = settings.model_copy(update={"run_dir": short_path})

    async def shown() -> bool:
        runner, stopping = AsyncRunner(own), asyncio.Event()
        if is_stopping:
            stopping.set()
        parts = (Part(time.monotonic()), Part(time.monotonic() - silent_s))
        with Presence(own, runner, None) as presence:
            beating = asyncio.create_task(presence._beat(stopping, parts))
            await asyncio.sleep(0)
            has_beaten = presence._files.beat.exists()
            beating.cancel()
            await runner.close()
            return has_beaten

    assert asyncio.run(shown()) is beats


class Unkept(BatchRun):
    """A batch that is to be left, and fails to be, by a fault that nobody knows yet."""

    def __init__(self) -> None:
        pass

    def leave(self) -> None:
        raise RuntimeError("a fault")


def test_a_batch_that_cannot_be_kept_keeps_no_other_from_being_begun(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def polled() -> None:
        runner = AsyncRunner(settings)
        with Client(settings) as client:
            batches = BatchRunner(settings, runner, client)
            others = BatchRunner(settings, runner, client)
            await runner.run(others._batches.lease("one", others._me))
            batches._runs["one"] = Unkept()
            await batches._poll()
            await runner.close()

    asyncio.run(polled())
    assert "the lease of a batch was not renewed" in caplog.text
