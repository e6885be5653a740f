import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from crossmodal.errors import CrossmodalError, GpuOutOfMemory, InferenceFailed, UnknownWords
from crossmodal.jobs.names import Task
from crossmodal.jobs.params import BlobRef, Img2TxtParams, Txt2ImgParams
from crossmodal.pipelines.base import Described, Drawn, Outcome, Request
from worker.host.batcher import WORN_OUT_AFTER, Batcher, Ran, run_isolated

PICTURE = np.zeros((1, 2, 2, 3), np.uint8)


class Recorder:
    """A pipeline that notes its batches, can be held, and fails on the prompt "bad"."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.free = threading.Event()
        self.free.set()

    def warmup(self) -> None: ...

    def weight(self, request: Request) -> int:
        return request.params.count

    def run(self, batch: Sequence[Request]) -> list[Outcome]:
        self.free.wait(10)
        prompts = [r.params.prompt for r in batch if isinstance(r.params, Txt2ImgParams)]
        self.batches.append(prompts)
        if "bad" in prompts:
            raise ZeroDivisionError("bad")
        return [Drawn(PICTURE, (p,), {}) for p in prompts]


class Captions(Recorder):
    def run(self, batch: Sequence[Request]) -> list[Outcome]:
        self.batches.append(["image"] * len(batch))
        return [Described(()) for _ in batch]


def request(prompt: str, count: int = 1) -> Request:
    return Request(Txt2ImgParams(prompt=prompt, count=count, seed=0))


async def run_all(
    pipeline: Recorder, requests: list[Request], held: bool = True, max_batch: int = 4
) -> list[Ran]:
    """Submit all requests while the device is busy with the first, then let it go on."""
    batcher = Batcher({Task.TXT2IMG: pipeline}, max_batch)
    serving = asyncio.create_task(batcher.serve())
    if held:
        pipeline.free.clear()
    runs = [asyncio.create_task(batcher.run(Task.TXT2IMG, r)) for r in requests]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    pipeline.free.set()
    done = await asyncio.gather(*runs)
    serving.cancel()
    return done


def names(ran: list[Ran]) -> list[object]:
    return [r.outcome.unknown_words[0] if isinstance(r.outcome, Drawn) else r.outcome for r in ran]


def test_everybody_gets_their_own_outcome() -> None:
    ran = asyncio.run(run_all(Recorder(), [request(f"p{i}") for i in range(11)]))
    assert names(ran) == [f"p{i}" for i in range(11)]


def test_a_batch_is_never_over_the_limit() -> None:
    pipeline = Recorder()
    asyncio.run(run_all(pipeline, [request(f"p{i}") for i in range(11)]))
    assert max(len(batch) for batch in pipeline.batches) == 4


def test_what_waits_runs_together() -> None:
    pipeline = Recorder()
    asyncio.run(run_all(pipeline, [request(f"p{i}") for i in range(8)]))
    assert len(pipeline.batches) <= 3


def test_the_weight_of_a_request_counts() -> None:
    pipeline = Recorder()
    asyncio.run(run_all(pipeline, [request("a", 3), request("b", 3), request("c", 1)]))
    assert pipeline.batches == [["a"], ["b", "c"]]


def test_a_request_over_the_limit_runs_alone() -> None:
    pipeline = Recorder()
    ran = asyncio.run(run_all(pipeline, [request("a", 16), request("b")]))
    assert names(ran) == ["a", "b"]
    assert pipeline.batches == [["a"], ["b"]]


def test_a_lone_request_waits_for_nobody() -> None:
    ran = asyncio.run(run_all(Recorder(), [request("a")], held=False))
    assert (ran[0].batch_size, names(ran)) == (1, ["a"])


def test_a_bad_request_fails_alone() -> None:
    ran = asyncio.run(run_all(Recorder(), [request(p) for p in ("a", "bad", "b", "c")]))
    outcomes = names(ran)
    assert outcomes[0] == "a"
    assert outcomes[2:] == ["b", "c"]
    assert isinstance(outcomes[1], InferenceFailed)
    assert "ZeroDivisionError" in str(outcomes[1])


def test_a_typed_error_keeps_its_type() -> None:
    class Picky(Recorder):
        def run(self, batch: Sequence[Request]) -> list[Outcome]:
            raise UnknownWords("zorg")

    assert isinstance(run_isolated(Picky(), [request("zorg")])[0], UnknownWords)


def test_outcomes_of_a_wrong_number_are_noticed() -> None:
    class Short(Recorder):
        def run(self, batch: Sequence[Request]) -> list[Outcome]:
            return []

    outcomes = run_isolated(Short(), [request("a"), request("b")])
    assert all(isinstance(o, CrossmodalError) for o in outcomes)


def test_a_canceled_waiter_is_not_run() -> None:
    async def scenario() -> Recorder:
        pipeline = Recorder()
        pipeline.free.clear()
        batcher = Batcher({Task.TXT2IMG: pipeline}, 1)
        serving = asyncio.create_task(batcher.serve())
        first = asyncio.create_task(batcher.run(Task.TXT2IMG, request("a")))
        gone = asyncio.create_task(batcher.run(Task.TXT2IMG, request("gone")))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        pipeline.free.set()
        await first
        last = await batcher.run(Task.TXT2IMG, request("b"))
        assert last.batch_size == 1
        serving.cancel()
        return pipeline

    assert asyncio.run(scenario()).batches == [["a"], ["b"]]


def test_tasks_never_share_a_batch() -> None:
    async def scenario() -> tuple[Recorder, Captions]:
        draw, caption = Recorder(), Captions()
        batcher = Batcher({Task.TXT2IMG: draw, Task.IMG2TXT: caption}, 8)
        serving = asyncio.create_task(batcher.serve())
        image = Request(Img2TxtParams(image=BlobRef(key="k")))
        await asyncio.gather(
            *(batcher.run(Task.TXT2IMG, request("a")) for _ in range(3)),
            *(batcher.run(Task.IMG2TXT, image) for _ in range(3)),
        )
        serving.cancel()
        return draw, caption

    draw, caption = asyncio.run(scenario())
    assert sum(map(len, draw.batches)) == sum(map(len, caption.batches)) == 3


@pytest.mark.parametrize("size", [1, 3])
def test_a_pipeline_that_works_is_called_once(size: int) -> None:
    pipeline = Recorder()
    run_isolated(pipeline, [request(str(i)) for i in range(size)])
    assert len(pipeline.batches) == 1


class Greedy(Recorder):
    """A device with memory for two requests at once, and none for the prompt "huge"."""

    def run(self, batch: Sequence[Request]) -> list[Outcome]:
        prompts = [r.params.prompt for r in batch if isinstance(r.params, Txt2ImgParams)]
        if len(batch) > 2 or "huge" in prompts:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().run(batch)


def test_a_batch_without_memory_is_halved_until_it_fits() -> None:
    pipeline = Greedy()
    outcomes = run_isolated(pipeline, [request(f"p{i}") for i in range(7)])
    assert [o.unknown_words for o in outcomes if isinstance(o, Drawn)] == [
        (f"p{i}",) for i in range(7)
    ]
    assert [len(batch) for batch in pipeline.batches] == [2, 2, 2, 1]


def test_a_request_without_memory_even_alone_fails_with_that_code() -> None:
    outcomes = run_isolated(Greedy(), [request(p) for p in ("a", "huge", "b")])
    assert [type(o) for o in outcomes] == [Drawn, GpuOutOfMemory, Drawn]


def test_a_host_is_worn_out_when_single_requests_find_no_memory() -> None:
    async def scenario(prompts: list[str]) -> bool:
        batcher = Batcher({Task.TXT2IMG: Greedy()}, 1)
        serving = asyncio.create_task(batcher.serve())
        for prompt in prompts:
            await batcher.run(Task.TXT2IMG, request(prompt))
        serving.cancel()
        return batcher.is_worn_out

    assert not asyncio.run(scenario(["huge"] * (WORN_OUT_AFTER - 1)))
    assert not asyncio.run(scenario([*["huge"] * (WORN_OUT_AFTER - 1), "a", "huge"]))
    assert asyncio.run(scenario(["huge"] * WORN_OUT_AFTER))


def test_a_suspect_is_alone_in_its_batch_and_is_told_so() -> None:
    sizes: dict[str, int] = {}

    async def scenario() -> Recorder:
        pipeline = Recorder()
        pipeline.free.clear()
        batcher = Batcher({Task.TXT2IMG: pipeline}, 8)
        serving = asyncio.create_task(batcher.serve())
        runs = [
            asyncio.create_task(
                batcher.run(
                    Task.TXT2IMG, request(p), alone=p == "suspect",
                    on_start=lambda size, p=p: sizes.update({p: size}),  # type: ignore[misc]
                )
            )
            for p in ("first", "a", "b", "suspect", "c", "d")
        ]  # fmt: skip
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        pipeline.free.set()
        await asyncio.gather(*runs)
        serving.cancel()
        return pipeline

    batches = asyncio.run(scenario()).batches
    assert ["suspect"] in batches
    assert sizes["suspect"] == 1
    assert sum(map(len, batches)) == 6


def test_how_long_a_batch_has_run_can_be_seen() -> None:
    async def scenario() -> tuple[float, float]:
        pipeline = Recorder()
        pipeline.free.clear()
        batcher = Batcher({Task.TXT2IMG: pipeline}, 1)
        serving = asyncio.create_task(batcher.serve())
        started = asyncio.Event()
        run = asyncio.create_task(
            batcher.run(Task.TXT2IMG, request("a"), on_start=lambda _: started.set())
        )
        await started.wait()
        during = batcher.running_s
        pipeline.free.set()
        await run
        serving.cancel()
        return during, batcher.running_s

    during, after = asyncio.run(scenario())
    assert during > 0
    assert after == 0
