import asyncio
import math
import threading
import time
import weakref
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from crossmodal.errors import CrossmodalError, GpuOutOfMemory, InferenceFailed, UnknownWords
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.img2txt import Img2TxtParams
from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.models.contract import UNWATCHED, Canceled, Link
from tests.at_once import at_once
from tests.waiting import until
from worker.host.batcher import WORN_OUT_AFTER, Batcher
from worker.host.isolation import run_isolated
from worker.host.lanes import ForkedLane, Lane, Quiet
from worker.host.line import Ran
from worker.host.memory import is_broken, is_out_of_memory
from worker.host.pipeline import Described, Drawn, HostRequest, Outcome, Pipeline
from worker.host.watch import CANCEL, Stepper, Watch, Watched

PICTURE = np.zeros((1, 2, 2, 3), np.uint8)


class Recorder(Pipeline):
    """A pipeline that notes its batches, can be held, and fails on the prompt "bad"."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.free = threading.Event()
        self.free.set()

    def weight(self, request: HostRequest) -> int:
        return request.params.count

    def run(self, batch: Sequence[HostRequest], link: Link = UNWATCHED) -> list[Outcome]:
        self.free.wait(60)
        prompts = [r.params.prompt for r in batch if isinstance(r.params, Txt2ImgParams)]
        self.batches.append(prompts)
        if "bad" in prompts:
            raise ZeroDivisionError("bad")
        return [Drawn(PICTURE, (p,), {}) for p in prompts]


class Captions(Recorder):
    def run(self, batch: Sequence[HostRequest], link: Link = UNWATCHED) -> list[Outcome]:
        self.batches.append(["image"] * len(batch))
        return [Described(()) for _ in batch]


def batcher_of(
    pipeline: Pipeline,
    max_batch: int,
    lanes: int = 1,
    max_wait_s: float = 0.0,
    captions: Pipeline | None = None,
) -> Batcher:
    pipelines = {Task("txt2img"): pipeline}
    if captions is not None:
        pipelines[Task("img2txt")] = captions
    quiet = Quiet()
    both = Lane(pipelines, lanes), Lane(pipelines, lanes, quiet.give_way)
    return Batcher(pipelines, both, quiet, max_batch, 2 * max_batch, max_wait_s)


async def one(batcher: Batcher, prompt: str, task: Task = Task("txt2img"), **options: Any) -> Ran:
    """Run a single request."""
    [ran] = await batcher.run(task, [request(prompt)], **options)
    return ran


def request(prompt: str, count: int = 1) -> HostRequest:
    return HostRequest(Txt2ImgParams(prompt=prompt, count=count, seed=0))


async def run_all(
    pipeline: Recorder, requests: list[HostRequest], held: bool = True, max_batch: int = 4
) -> list[Ran]:
    """Submit all requests while the device is busy with the first, then let it go on."""
    batcher = batcher_of(pipeline, max_batch)
    if held:
        pipeline.free.clear()
    runs = [asyncio.create_task(batcher.run(Task("txt2img"), [r])) for r in requests]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    pipeline.free.set()
    return [ran for [ran] in await asyncio.gather(*runs)]


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


def test_a_lane_takes_no_more_than_its_share() -> None:
    async def scenario() -> None:
        batcher = batcher_of(pipeline, 16, lanes=2)
        pipeline.free.clear()
        runs = [asyncio.create_task(one(batcher, f"p{i}")) for i in range(8)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        pipeline.free.set()
        await asyncio.gather(*runs)

    pipeline = Recorder()
    asyncio.run(scenario())
    assert max(len(batch) for batch in pipeline.batches) == 4  # of six that wait beside one


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
        def run(self, batch: Sequence[HostRequest], link: Link = UNWATCHED) -> list[Outcome]:
            raise UnknownWords("zorg")

    assert isinstance(run_isolated(Picky(), [request("zorg")])[0], UnknownWords)


def test_outcomes_of_a_wrong_number_are_noticed() -> None:
    class Short(Recorder):
        def run(self, batch: Sequence[HostRequest], link: Link = UNWATCHED) -> list[Outcome]:
            return []

    outcomes = run_isolated(Short(), [request("a"), request("b")])
    assert all(isinstance(o, CrossmodalError) for o in outcomes)


def test_a_canceled_waiter_is_not_run() -> None:
    async def scenario() -> Recorder:
        pipeline = Recorder()
        pipeline.free.clear()
        batcher = batcher_of(pipeline, 1)
        first = asyncio.create_task(one(batcher, "a"))
        gone = asyncio.create_task(one(batcher, "gone"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        pipeline.free.set()
        await first
        last = await one(batcher, "b")
        assert last.batch_size == 1
        return pipeline

    assert asyncio.run(scenario()).batches == [["a"], ["b"]]


def test_tasks_never_share_a_batch() -> None:
    async def scenario() -> tuple[Recorder, Captions]:
        draw, caption = Recorder(), Captions()
        batcher = batcher_of(draw, 8, captions=caption)
        image = HostRequest(Img2TxtParams(image=BlobRef(key="k")))
        await asyncio.gather(
            *(one(batcher, "a") for _ in range(3)),
            *(batcher.run(Task("img2txt"), [image]) for _ in range(3)),
        )
        return draw, caption

    draw, caption = asyncio.run(scenario())
    assert sum(map(len, draw.batches)) == sum(map(len, caption.batches)) == 3


@at_once("size", [1, 3])
def test_a_pipeline_that_works_is_called_once(size: int) -> None:
    pipeline = Recorder()
    run_isolated(pipeline, [request(str(i)) for i in range(size)])
    assert len(pipeline.batches) == 1


class Greedy(Recorder):
    """A device with memory for two requests at once, and none for the prompt "huge"."""

    def run(self, batch: Sequence[HostRequest], link: Link = UNWATCHED) -> list[Outcome]:
        prompts = [r.params.prompt for r in batch if isinstance(r.params, Txt2ImgParams)]
        if len(batch) > 2 or "huge" in prompts:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().run(batch, link)


def test_a_batch_without_memory_is_halved_until_it_fits() -> None:
    pipeline = Greedy()
    outcomes = run_isolated(pipeline, [request(f"p{i}") for i in range(7)])
    assert [o.unknown_words for o in outcomes if isinstance(o, Drawn)] == [
        (f"p{i}",) for i in range(7)
    ]
    assert [len(batch) for batch in pipeline.batches] == [2, 2, 2, 1]


def test_what_a_batch_without_memory_held_is_free_before_its_halves_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also where what was logged of it is kept, as here."""
    held: list[weakref.ref[Any]] = []
    left: list[int] = []

    class Holding(Greedy):
        def run(self, batch: Sequence[HostRequest], link: Link = UNWATCHED) -> list[Outcome]:
            left.append(sum(one() is not None for one in held))
            weights = np.zeros(8)
            held.append(weakref.ref(weights))
            return super().run(batch, link)

    run_isolated(Holding(), [request(f"p{i}") for i in range(4)])
    assert "no memory for a batch of 4: CUDA out of memory." in caplog.text
    assert left == [0, 0, 0]


def test_a_request_without_memory_even_alone_fails_with_that_code() -> None:
    outcomes = run_isolated(Greedy(), [request(p) for p in ("a", "huge", "b")])
    assert [type(o) for o in outcomes] == [Drawn, GpuOutOfMemory, Drawn]


@at_once(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."),
        MemoryError(),
    ],
)
def test_whoever_says_it_a_device_without_memory_is_not_broken(error: BaseException) -> None:
    assert is_out_of_memory(error)
    assert not is_broken(error)


@at_once(
    "error",
    [
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
    ],
)
def test_a_device_that_fails_everything_from_now_on_is_broken(error: BaseException) -> None:
    assert is_broken(error)
    assert not is_out_of_memory(error)


def test_a_host_is_worn_out_when_single_requests_find_no_memory() -> None:
    async def scenario(prompts: list[str]) -> bool:
        batcher = batcher_of(Greedy(), 1)
        for prompt in prompts:
            await one(batcher, prompt)
        return batcher.is_worn_out

    assert not asyncio.run(scenario(["huge"] * (WORN_OUT_AFTER - 1)))
    assert not asyncio.run(scenario([*["huge"] * (WORN_OUT_AFTER - 1), "a", "huge"]))
    assert asyncio.run(scenario(["huge"] * WORN_OUT_AFTER))


def test_a_suspect_is_alone_in_its_batch_and_is_told_so() -> None:
    sizes: dict[str, int] = {}

    async def scenario() -> Recorder:
        pipeline = Recorder()
        pipeline.free.clear()
        batcher = batcher_of(pipeline, 8)
        runs = [
            asyncio.create_task(
                one(
                    batcher,
                    p,
                    alone=p == "suspect",
                    on_start=lambda size, p=p: sizes.update({p: size}),
                )
            )
            for p in ("first", "a", "b", "suspect", "c", "d")
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        pipeline.free.set()
        await asyncio.gather(*runs)
        return pipeline

    batches = asyncio.run(scenario()).batches
    assert ["suspect"] in batches
    assert sizes["suspect"] == 1
    assert sum(map(len, batches)) == 6


def test_how_long_a_batch_has_been_silent_can_be_seen() -> None:
    async def scenario() -> tuple[float, float]:
        pipeline = Recorder()
        pipeline.free.clear()
        batcher = batcher_of(pipeline, 1)
        started = asyncio.Event()
        run = asyncio.create_task(one(batcher, "a", on_start=lambda _: started.set()))
        await started.wait()
        during = batcher.silent_s
        pipeline.free.set()
        await run
        return during, batcher.silent_s

    during, after = asyncio.run(scenario())
    assert during > 0
    assert after == 0


def test_a_call_of_many_gets_all_outcomes_in_their_order() -> None:
    async def scenario() -> list[Ran]:
        requests = [request(f"p{i}") for i in range(11)]
        return await batcher_of(Recorder(), 4, lanes=3).run(Task("txt2img"), requests)

    assert names(asyncio.run(scenario())) == [f"p{i}" for i in range(11)]


def test_outcomes_keep_their_order_when_the_first_batch_ends_last() -> None:
    class Overtaken(Recorder):
        def run(self, batch: Sequence[HostRequest], link: Link = UNWATCHED) -> list[Outcome]:
            if batch[0].params == request("p0").params:
                assert overtaken.wait(60)
                return super().run(batch, link)
            outcomes = super().run(batch, link)
            overtaken.set()
            return outcomes

    async def scenario() -> list[Ran]:
        requests = [request("p0"), request("p1", count=4)]
        return await batcher_of(Overtaken(), 4, lanes=2).run(Task("txt2img"), requests)

    overtaken = threading.Event()
    assert names(asyncio.run(scenario())) == ["p0", "p1"]


def test_a_lane_of_two_runs_two_batches_at_once() -> None:
    class Meeting(Recorder):
        """Batches that can only end together."""

        def __init__(self) -> None:
            super().__init__()
            self.barrier = threading.Barrier(2, timeout=60)

        def run(self, batch: Sequence[HostRequest], link: Link = UNWATCHED) -> list[Outcome]:
            self.barrier.wait()
            return super().run(batch, link)

    async def scenario() -> list[Ran]:
        return await batcher_of(Meeting(), 1, lanes=2).run(
            Task("txt2img"), [request(f"p{i}") for i in range(4)]
        )

    assert names(asyncio.run(scenario())) == ["p0", "p1", "p2", "p3"]


def test_an_interactive_request_does_not_wait_for_bulk() -> None:
    class Slow(Recorder):
        def run(self, batch: Sequence[HostRequest], link: Link = UNWATCHED) -> list[Outcome]:
            if batch[0].params == request("bulk").params:
                self.free.wait(60)
            return [Drawn(PICTURE, ("done",), {}) for _ in batch]

    async def scenario() -> None:
        pipeline = Slow()
        pipeline.free.clear()
        batcher = batcher_of(pipeline, 4)
        bulk = asyncio.create_task(batcher.run(Task("txt2img"), [request("bulk")] * 64, bulk=True))
        await asyncio.sleep(0)
        assert (await one(batcher, "quick")).batch_size == 1
        assert not bulk.done()
        pipeline.free.set()
        assert len(await bulk) == 64

    asyncio.run(scenario())


def test_all_on_the_device_are_told_who_joins_them() -> None:
    async def scenario() -> list[int]:
        pipeline, told = Recorder(), list[int]()
        pipeline.free.clear()
        batcher = batcher_of(pipeline, 4, lanes=2)
        first = asyncio.create_task(one(batcher, "a", on_start=told.append))
        await asyncio.sleep(0)
        others = asyncio.create_task(batcher.run(Task("txt2img"), [request("b"), request("c")]))
        await asyncio.sleep(0)
        pipeline.free.set()
        await asyncio.gather(first, others)
        return told

    assert asyncio.run(scenario()) == [1, 3]


def test_a_suspect_has_the_device_for_itself_although_others_keep_coming() -> None:
    async def scenario() -> int:
        pipeline = Recorder()
        batcher = batcher_of(pipeline, 1, lanes=2)
        over = asyncio.Event()

        async def keep_coming() -> None:
            while not over.is_set():
                await one(batcher, "other")

        others = [asyncio.create_task(keep_coming()) for _ in range(4)]
        sizes: list[int] = []
        await one(batcher, "suspect", alone=True, bulk=True, on_start=sizes.append)
        over.set()
        await asyncio.gather(*others)
        return max(sizes)

    assert asyncio.run(scenario()) == 1


def test_a_small_batch_waits_for_company_where_it_is_asked_to() -> None:
    async def scenario() -> list[list[str]]:
        pipeline = Recorder()
        batcher = batcher_of(pipeline, 2, max_wait_s=60.0)
        first = asyncio.create_task(one(batcher, "a"))
        await asyncio.sleep(0)
        await asyncio.gather(first, one(batcher, "b"))
        return pipeline.batches

    assert asyncio.run(scenario()) == [["a", "b"]]


def test_waiting_for_company_ends() -> None:
    async def scenario() -> Ran:
        return await one(batcher_of(Recorder(), 2, max_wait_s=0.05), "a")

    ran = asyncio.run(scenario())
    assert ran.batch_size == 1
    assert ran.wait_s >= 0.05


class Encounter(Recorder):
    """A bulk batch that has begun before an interactive one, and comes to its pause during it."""

    def __init__(self, patience_s: float) -> None:
        super().__init__()
        self.patience_s = patience_s
        self.begun, self.at_pause, self.went_on = (threading.Event() for _ in range(3))
        self.overtook: bool | None = None

    def run(self, batch: Sequence[HostRequest], link: Link = UNWATCHED) -> list[Outcome]:
        if batch[0].params == request("bulk").params:
            self.begun.set()
            self.free.wait(60)
            self.at_pause.set()
            link.step(0, 1)
            self.went_on.set()
        else:
            self.free.set()
            self.at_pause.wait(60)
            self.overtook = self.went_on.wait(self.patience_s)
        return [Drawn(PICTURE, ("done",), {}) for _ in batch]


async def meet(pipeline: Encounter) -> None:
    pipeline.free.clear()
    batcher = batcher_of(pipeline, 4)
    bulk = asyncio.create_task(batcher.run(Task("txt2img"), [request("bulk")], bulk=True))
    await asyncio.to_thread(pipeline.begun.wait, 10)
    await asyncio.gather(bulk, one(batcher, "quick"))


def test_a_bulk_batch_gives_way_while_an_interactive_one_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.host.lanes.GIVE_WAY_S", 10.0)
    pipeline = Encounter(patience_s=0.05)
    asyncio.run(meet(pipeline))
    assert pipeline.overtook is False
    assert pipeline.went_on.is_set()


def test_bulk_has_a_largest_batch_of_its_own() -> None:
    pipeline = Recorder()
    requests = [request(f"p{i}") for i in range(20)]
    asyncio.run(batcher_of(pipeline, 4).run(Task("txt2img"), requests, bulk=True))
    assert [len(batch) for batch in pipeline.batches] == [8, 8, 4]


def test_a_bulk_batch_does_not_give_way_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.host.lanes.GIVE_WAY_S", 0.0)
    pipeline = Encounter(patience_s=10)
    asyncio.run(meet(pipeline))
    assert pipeline.overtook is True


class Mixed(Recorder):
    """Cannot mix counts."""

    def key(self, request: HostRequest) -> Hashable:
        return request.params.count


def test_a_batch_has_only_what_the_model_can_mix_and_the_oldest_goes_first() -> None:
    pipeline = Mixed()
    asked = [request("held"), *(request(f"p{i}", count=1 + i % 2) for i in range(6))]
    ran = asyncio.run(run_all(pipeline, asked, max_batch=8))
    assert names(ran) == ["held", *(f"p{i}" for i in range(6))]
    assert pipeline.batches == [["held"], ["p0", "p2", "p4"], ["p1", "p3", "p5"]]


def test_a_call_whose_requests_cannot_be_mixed_gets_them_all_in_order() -> None:
    pipeline = Mixed()
    asked = [request(f"p{i}", count=1 + i // 2 % 2) for i in range(6)]
    ran = asyncio.run(batcher_of(pipeline, 8).run(Task("txt2img"), asked))
    assert names(ran) == [f"p{i}" for i in range(6)]
    assert pipeline.batches == [["p0", "p1"], ["p2", "p3"], ["p4", "p5"]]


class Stepping(Recorder):
    """Takes a step whenever the test lets it, until there are enough."""

    def __init__(self, steps: int = 1_000) -> None:
        super().__init__()
        self.steps = steps
        self.taken = 0
        self.ended = threading.Event()

    def run(self, batch: Sequence[HostRequest], link: Link = UNWATCHED) -> list[Outcome]:
        self.taken = 0
        try:
            while self.taken < self.steps:
                self.free.wait(60)
                self.taken += 1
                link.step(self.taken, self.steps)
                time.sleep(0.001)  # what a step takes: endless ones would flood the loop
        finally:
            self.ended.set()
        return super().run(batch, link)


@pytest.fixture
def quick_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is told, and looks whether somebody still waits."""
    monkeypatch.setattr("worker.host.watch.TELL_S", 0.0)
    monkeypatch.setattr("worker.host.watch.CHECK_S", 0.0)


@pytest.mark.usefixtures("quick_to_tell")
@pytest.mark.parametrize("kind", [Lane, ForkedLane])
def test_steps_are_told_to_all_who_wait(kind: type[Lane]) -> None:
    told: list[tuple[int, int]] = []

    async def scenario() -> None:
        pipelines = {Task("txt2img"): Stepping(5)}
        lanes = kind(pipelines, 1), kind(pipelines, 1)
        batcher = Batcher(pipelines, lanes, Quiet(), 4, 4)
        await one(batcher, "a", on_step=lambda *step: told.append(step))
        await asyncio.sleep(0)
        batcher.close()

    asyncio.run(scenario())
    assert told == [(i, 5) for i in range(1, 6)]


@pytest.mark.usefixtures("quick_to_tell")
def test_a_step_ends_the_silence() -> None:
    async def scenario() -> None:
        pipeline = Stepping()
        batcher = batcher_of(pipeline, 1)
        stepped = asyncio.Event()
        run = asyncio.create_task(one(batcher, "a", on_step=lambda *step: stepped.set()))
        await stepped.wait()
        pipeline.free.clear()
        await asyncio.sleep(0.1)
        silent_s = batcher.silent_s
        stepped.clear()
        pipeline.free.set()
        await stepped.wait()
        assert batcher.silent_s < silent_s
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        assert await asyncio.to_thread(pipeline.ended.wait, 60)

    asyncio.run(scenario())


@pytest.mark.usefixtures("quick_to_tell")
@pytest.mark.parametrize("kind", [Lane, ForkedLane])
def test_a_batch_that_nobody_wants_any_more_ends_at_its_next_step(kind: type[Lane]) -> None:
    async def scenario() -> None:
        pipelines = {Task("txt2img"): Stepping(30_000)}
        lanes = kind(pipelines, 1), kind(pipelines, 1)
        batcher = Batcher(pipelines, lanes, Quiet(), 4, 4)
        for name in ("a", "b"):  # whose place is free again
            stepped = asyncio.Event()
            run = asyncio.create_task(one(batcher, name, on_step=lambda *_, s=stepped: s.set()))
            await stepped.wait()
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            await asyncio.to_thread(until, lambda: not batcher.silent_s)
        batcher.close()

    asyncio.run(asyncio.wait_for(scenario(), 25))


@pytest.mark.usefixtures("quick_to_tell")
def test_one_that_is_canceled_among_others_ends_no_batch() -> None:
    async def scenario() -> list[Ran]:
        pipeline = Stepping(50)
        pipeline.free.clear()
        batcher = batcher_of(pipeline, 4)
        held = asyncio.create_task(one(batcher, "held"))
        await asyncio.sleep(0)
        gone, stays = (asyncio.create_task(one(batcher, name)) for name in ("gone", "stays"))
        await asyncio.sleep(0)
        pipeline.free.set()
        await held
        await asyncio.to_thread(until, lambda: pipeline.taken > 5)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        ran = await stays
        assert pipeline.batches[-1] == ["gone", "stays"]
        return [ran]

    assert names(asyncio.run(scenario())) == ["stays"]


def test_a_batch_has_no_more_than_the_model_takes() -> None:
    class Alone(Recorder):
        max_batch = 1

    pipeline = Alone()
    asyncio.run(run_all(pipeline, [request(f"p{i}") for i in range(4)]))
    assert [len(batch) for batch in pipeline.batches] == [1, 1, 1, 1]


def test_a_batch_that_ends_itself_is_an_error_for_those_who_want_it() -> None:
    class Giving(Recorder):
        def run(self, batch: Sequence[HostRequest], link: Link = UNWATCHED) -> list[Outcome]:
            raise Canceled

    with pytest.raises(Canceled):
        asyncio.run(one(batcher_of(Giving(), 1), "a"))


def test_a_batch_is_told_only_once_that_nobody_wants_it() -> None:
    told: list[str | Watched] = []
    watch = Watch()
    watch.joined(told.append)
    watch.cancel()
    watch.cancel()
    assert told == [CANCEL]


def test_a_batch_that_nobody_wants_is_told_so_also_where_it_begins_later() -> None:
    told: list[str | Watched] = []
    watch = Watch()
    watch.cancel()
    watch.joined(told.append)
    assert told == [CANCEL]


def test_steps_that_come_fast_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.host.watch.TELL_S", math.inf)
    told: list[tuple[int, int]] = []
    Stepper(lambda: False, lambda *step: told.append(step), lambda: None).step(1, 2)
    assert told == []


def test_steps_may_be_counted_by_any_library() -> None:
    told: list[tuple[int, int]] = []
    stepper = Stepper(lambda: False, lambda *step: told.append(step), lambda: None)
    stepper._told_at = 0.0  # long ago: a patched clock would stop asyncio's
    stepper.step(np.int64(3), torch.tensor(8))  # type: ignore[arg-type]
    assert told == [(3, 8)]
    assert all(type(number) is int for number in told[0])
