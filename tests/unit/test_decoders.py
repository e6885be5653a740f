"""Pictures from outside are opened in processes that may crash, hang and take too much."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import Image

from crossmodal.errors import ImageDecoderCrashed, ImageTooLarge, InvalidImage
from crossmodal.settings import Settings, load_settings
from crossmodal.vision.decode import decode
from crossmodal.vision.fit import Fit
from crossmodal.vision.preprocess import fit_square
from tests.at_once import at_once
from tests.unit.test_decode import encoded, photo, png_of_size
from tests.waiting import until
from worker.decoders.pool import PROGRAM, Decoders
from worker.decoders.process import DecoderUnavailable
from worker.decoders.room import Room
from worker.devices import cores

T = TypeVar("T")

ACTOR = "tests.fakes.decoder"
SIDE = 24
GRADIENT = Image.linear_gradient("L").resize((64, 48)).convert("RGB")
GOOD = encoded(GRADIENT, "PNG")
ONE_PROCESS = load_settings(decode_memory=128_000_000)
ALL_ROOM = b"need=400000000"


def run(
    work: Callable[[Decoders], Coroutine[Any, Any, T]],
    settings: Settings | None = None,
    program: str = ACTOR,
    idle_s: float = 60.0,
) -> T:
    """What `work` comes to with decoders, none of which is left afterwards."""

    async def main() -> T:
        decoders = Decoders(settings or load_settings(), program, idle_s)
        try:
            return await asyncio.wait_for(work(decoders), 200)
        finally:
            await decoders.close()

    result = asyncio.run(main())
    assert children() == []
    return result


def children(of: int | None = None) -> list[psutil.Process]:
    """The decoders that a process has."""
    return [child for child in psutil.Process(of).children() if is_decoder(child)]


def is_decoder(process: psutil.Process) -> bool:
    try:
        return bool({PROGRAM, ACTOR} & set(process.cmdline()))
    except psutil.Error:  # it has ended
        return False


def square(decoders: Decoders, data: bytes, side: int = SIDE) -> Awaitable[NDArray[np.uint8]]:
    async def read() -> bytes:
        return data

    return decoders.decode(len(data), read, Fit(side))


def expected(data: bytes) -> NDArray[np.uint8]:
    return fit_square(decode(data, load_settings().max_image_pixels), SIDE)


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for a state while the loop goes on."""
    await asyncio.to_thread(until, condition, 60, what)


KINDS = [
    ("PNG", ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
    ("JPEG", ("RGB", "L", "CMYK")),
    ("GIF", ("P",)),
    ("WEBP", ("RGB", "RGBA")),
    ("BMP", ("RGB", "P")),
    ("TIFF", ("RGB", "RGBA", "CMYK", "LAB")),
    ("AVIF", ("RGB", "RGBA", "L")),
]


def test_a_picture_is_what_it_is_in_process_whatever_its_format() -> None:
    files = [encoded(GRADIENT.convert(mode), kind) for kind, modes in KINDS for mode in modes]

    async def work(decoders: Decoders) -> list[NDArray[np.uint8]]:
        return await asyncio.gather(*(square(decoders, data) for data in files))

    for data, found in zip(files, run(work, program=PROGRAM), strict=True):
        assert found.shape == (SIDE, SIDE, 3)
        assert (found == expected(data)).all()


CRASHES = {
    b"poison": r"died \(status -11\)",
    b"tarpit": "took longer than 3 s",
    b"glutton": "more memory than its header implies",
    b"garbler": "sent a map of 4294967295 bytes",
    b"liar": "sent a picture of another size",
    b"stranger": "sent an error 'internal_error'",
}


def test_pictures_that_end_their_decoders_end_no_other_of_200() -> None:
    bad = {30 * (i + 1): role for i, role in enumerate(CRASHES)}
    files = [GOOD + bad.get(i, b"") for i in range(200 + len(bad))]

    async def work(decoders: Decoders) -> list[NDArray[np.uint8] | BaseException]:
        squares = (square(decoders, data) for data in files)
        return await asyncio.gather(*squares, return_exceptions=True)

    for i, found in enumerate(run(work, load_settings(decode_timeout_s=3))):
        if i in bad:
            assert isinstance(found, ImageDecoderCrashed)
            assert re.search(CRASHES[bad[i]], str(found))
        else:
            assert isinstance(found, np.ndarray)
            assert (found == expected(GOOD)).all()


@at_once(
    "data, error, message",
    [
        (b"", InvalidImage, "zero bytes"),
        (b"hello, I am a text file", InvalidImage, "not a supported image"),
        (GOOD[: len(GOOD) // 2], InvalidImage, "cannot be decoded"),
        (png_of_size(30_000, 30_000), ImageTooLarge, "30000 × 30000"),
        (GOOD + b"need=512000001", ImageTooLarge, "512000000 are allowed: .*DECODE_MEMORY"),
    ],
)
def test_what_is_wrong_with_a_picture_is_told_and_its_decoder_goes_on(
    data: bytes, error: type[InvalidImage], message: str
) -> None:
    async def work(decoders: Decoders) -> None:
        await square(decoders, GOOD)
        before = children()
        with pytest.raises(InvalidImage, match=message) as caught:
            await square(decoders, data)
        assert type(caught.value) is error
        await square(decoders, GOOD)
        assert children() == before

    run(work, ONE_PROCESS)


def test_what_a_decoder_keeps_of_a_picture_is_not_counted_against_the_next() -> None:
    async def work(decoders: Decoders) -> None:
        await square(decoders, GOOD + b"hoarder")
        before = children()
        await square(decoders, GOOD)
        assert children() == before
        with pytest.raises(ImageDecoderCrashed, match="more memory than its header implies"):
            await square(decoders, GOOD + b"glutton")

    run(work, ONE_PROCESS)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
def test_a_decoder_that_keeps_much_is_replaced_and_costs_no_picture() -> None:
    async def work(decoders: Decoders) -> None:
        await square(decoders, GOOD + b"filler")
        before = children()
        await square(decoders, GOOD)
        assert children() != before

    run(work, ONE_PROCESS)


def test_what_libraries_print_of_a_picture_is_in_no_log(capfd: pytest.CaptureFixture[str]) -> None:
    async def work(decoders: Decoders) -> None:
        await square(decoders, GOOD + b"chatterer")

    run(work)
    assert "remark" not in capfd.readouterr().err


def test_processes_start_when_pictures_wait_and_are_no_more_than_cores() -> None:
    async def work(decoders: Decoders) -> None:
        assert children() == []
        await square(decoders, GOOD)
        await square(decoders, GOOD)
        assert len(children()) == 1
        await asyncio.gather(*(square(decoders, GOOD) for _ in range(50)))
        assert len(children()) <= min(4, cores())

    run(work)


def test_a_process_that_has_nothing_to_do_ends() -> None:
    async def work(decoders: Decoders) -> None:
        await square(decoders, GOOD)
        await eventually(lambda: children() == [], "the end of a decoder")
        await square(decoders, GOOD)

    run(work, idle_s=0.1)


def test_a_decoder_that_is_killed_at_rest_costs_no_picture() -> None:
    async def work(decoders: Decoders) -> None:
        await square(decoders, GOOD)
        [child] = children()
        os.kill(child.pid, signal.SIGKILL)
        await eventually(lambda: child.status() == psutil.STATUS_ZOMBIE, "the death of a decoder")
        await square(decoders, GOOD)

    run(work)


def test_a_program_that_does_not_start_is_no_fault_of_the_picture() -> None:
    async def work(decoders: Decoders) -> None:
        with pytest.raises(DecoderUnavailable, match="no image decoder can be started"):
            await square(decoders, GOOD)

    run(work, program="tests.fakes.no_such_program")


def test_a_canceled_picture_frees_its_decoder_and_its_room() -> None:
    async def work(decoders: Decoders) -> None:
        hanging = asyncio.ensure_future(square(decoders, GOOD + b"tarpit"))
        waiting = asyncio.ensure_future(square(decoders, GOOD))
        await eventually(lambda: len(children()) == 1, "the start of a decoder")
        [child] = children()
        hanging.cancel()
        assert (await waiting == expected(GOOD)).all()
        assert not child.is_running()
        assert (await square(decoders, GOOD + ALL_ROOM) == expected(GOOD)).all()

    run(work, ONE_PROCESS)


def test_pictures_are_decoded_in_the_order_of_asking() -> None:
    order: list[int] = []

    async def work(decoders: Decoders) -> None:
        async def one(number: int, role: bytes) -> None:
            await square(decoders, GOOD + role)
            order.append(number)

        roles = [b"", ALL_ROOM, b"", ALL_ROOM, b""]
        await asyncio.gather(*(one(i, role) for i, role in enumerate(roles)))

    run(work, ONE_PROCESS)
    assert order == [0, 1, 2, 3, 4]


def test_a_file_is_read_only_when_there_is_room_for_it() -> None:
    settings = load_settings(decode_memory=64_000_000)  # 8 MB of it for files, each counted twice
    read, both_read, may_end = list[int](), asyncio.Event(), asyncio.Event()

    async def work(decoders: Decoders) -> None:
        async def file(number: int) -> bytes:
            read.append(number)
            if number == 1:
                both_read.set()
            await may_end.wait()
            return GOOD

        async with asyncio.TaskGroup() as tasks:
            for i in range(4):
                tasks.create_task(decoders.decode(2_000_000, partial(file, i), Fit(SIDE)))
            await both_read.wait()
            assert read == [0, 1]
            may_end.set()
        assert read == [0, 1, 2, 3]

    run(work, settings)


def test_room_is_lent_in_order_and_more_than_there_is_to_one_alone() -> None:
    events: list[str] = []

    async def use(room: Room, name: str, size: int, until: asyncio.Event) -> None:
        async with room.lent(size):
            events.append(name)
            await until.wait()

    async def main() -> None:
        room, first, rest = Room(10), asyncio.Event(), asyncio.Event()
        rest.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(use(room, "first", 6, first))
            canceled = tasks.create_task(use(room, "canceled", 6, rest))
            tasks.create_task(use(room, "large", 99, rest))
            tasks.create_task(use(room, "small", 1, rest))
            await asyncio.sleep(0)
            canceled.cancel()
            await asyncio.sleep(0)
            assert events == ["first"]
            first.set()
        async with room.lent(10):  # all of it is free again
            assert events == ["first", "large", "small"]

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_decoder_has_none_of_the_workers_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "CELERY_BROKER_URL": "redis://:s3cret@h/0",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "CROSSMODAL_STORAGE_URL": "s3://b",
        "SOME_TOKEN": "s3cret",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)

    async def work(decoders: Decoders) -> dict[str, str]:
        await square(decoders, GOOD)
        [child] = children()
        return child.environ()

    environment = run(work, load_settings())
    assert not secrets.keys() & environment.keys()
    assert "s3cret" not in str(environment)
    assert environment["OMP_NUM_THREADS"] == "1"


def test_a_decoder_loads_what_decoding_needs_and_no_more() -> None:
    program = "import sys, worker.decoders.program; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert {"PIL", "cv2", "numpy"} <= set(loaded)
    assert not {"pydantic", "redis", "celery", "obstore", "asyncio", "torch"} & set(loaded)


WORKER = """
import asyncio
from tests.unit.test_decoders import ACTOR, GOOD, Decoders, load_settings, square
asyncio.run(asyncio.wait_for(square(Decoders(load_settings(), ACTOR), GOOD + b"tarpit"), 99))
"""


def test_a_decoder_dies_with_its_worker_also_while_it_decodes() -> None:
    with subprocess.Popen([sys.executable, "-c", WORKER]) as worker:
        until(lambda: len(children(worker.pid)) == 1, 60, "the start of a decoder")
        [child] = children(worker.pid)
        worker.kill()
    until(lambda: not child.is_running(), 60, "the end of the decoder")


def memory() -> int:
    """Bytes that this process and its decoders have, by their share of what is shared."""
    total = 0
    for process in [psutil.Process(), *children()]:
        with suppress(psutil.Error):  # it has just ended
            total += process.memory_full_info().pss
    return total


@pytest.mark.slow
@at_once(
    "count, width, height, options",
    [
        (60, 4000, 3000, {}),
        (24, 8000, 6000, {}),
        (12, 4000, 3000, {"progressive": True, "subsampling": 0}),
    ],
)
def test_many_photos_at_once_stay_within_the_budget(
    count: int, width: int, height: int, options: dict[str, Any]
) -> None:
    assert most_memory(photo(width, height, **options), count) <= load_settings().decode_memory


LARGE: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    "WEBP": ((7000, 7000), {"method": 0}),
    "GIF": ((7000, 7000), {"transparency": 0}),
    "PNG": ((8000, 6000), {"compress_level": 1}),
    "JPEG": ((12000, 9000), {}),
}


@pytest.mark.slow
@at_once("kind", LARGE)
def test_many_pictures_of_fifty_megapixels_and_more_stay_within_the_budget(kind: str) -> None:
    size, options = LARGE[kind]
    forms = Image.linear_gradient("L").resize(size)
    image = forms.quantize(9) if kind == "GIF" else forms.convert("RGB")
    data = encoded(image, kind, **options)
    del forms, image
    assert most_memory(data, 6) <= load_settings().decode_memory


def most_memory(data: bytes, count: int) -> int:
    """What worker and decoders take at most for as many of a picture, all asked for at once."""

    async def own_copy() -> bytes:
        return bytes(bytearray(data))

    async def work(decoders: Decoders) -> int:
        before = most = memory()
        squares = asyncio.gather(
            *(decoders.decode(len(data), own_copy, Fit(SIDE)) for _ in range(count))
        )
        while not squares.done():
            most = max(most, await asyncio.to_thread(memory))
        assert len(await squares) == count
        return most - before

    return run(work, program=PROGRAM)


def test_room_outlives_whoever_is_canceled_in_the_turn_in_which_it_is_given() -> None:
    async def scenario() -> bool:
        room = Room(10)
        holding = asyncio.Event()

        async def hold() -> None:
            async with room.lent(10):
                holding.set()
                await asyncio.Event().wait()

        async def wait() -> None:
            async with room.lent(5):
                raise AssertionError("it was canceled before its turn")

        holder = asyncio.create_task(hold())
        await holding.wait()
        waiter = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiter.cancel()  # both in one turn of the loop, the waiter first
        holder.cancel()
        assert all(
            isinstance(e, asyncio.CancelledError)
            for e in await asyncio.gather(holder, waiter, return_exceptions=True)
        )
        async with asyncio.timeout(10), room.lent(10):
            return True

    assert asyncio.run(scenario())
