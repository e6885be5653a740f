"""The model host as a process on the device, by its socket."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossmodal.kinds.task import Task
from crossmodal.processes import Child, python_module
from tests.tiny import pipelines
from worker.host.client import HostClient
from worker.host.pipeline import HostRequest
from worker.host.protocol import Answer

START_S = 90.0
SILENCE_S = 60.0
TASK = Task("txt2img")


@pytest.fixture
def socket(device: torch.device, tmp_path: Path, short_path: Path) -> Iterator[Path]:
    """Where a host listens, which serves a tiny pipeline."""
    folder = pipelines.make("sd", tmp_path / "sd")
    (folder / "crossmodal.toml").write_text("[defaults]\nwidth = 32\nheight = 32\nsteps = 4\n")
    path = short_path / "host.sock"
    argv = python_module("worker.host", "--socket", str(path), "--device", str(device))
    env = {"CROSSMODAL_BUNDLE": str(folder)}
    host = Child("host", argv, env, death_signal=signal.SIGKILL)
    host.start()
    yield path
    host.stop(10)
    assert host.returncode == 0


async def params(client: HostClient, **fields: Any) -> HostRequest:
    made = (await client.info()).params_of(TASK.kind)
    return HostRequest(made.model_validate({"prompt": "a red circle", "seed": 7} | fields))


async def drawn(client: HostClient, **fields: Any) -> tuple[Answer, list[tuple[int, int]]]:
    """What came of one request, and the steps that were told."""
    steps: list[tuple[int, int]] = []
    [answer] = await client.run(
        TASK, [await params(client, **fields)], on_step=lambda *step: steps.append(step)
    )
    assert isinstance(answer, Answer)
    return answer, steps


async def end_at_first_step(client: HostClient) -> None:
    """Ask for what takes long, and give it up."""
    has_begun = asyncio.Event()
    asked = [await params(client, steps=200, width=256, height=256)]
    running = asyncio.create_task(client.run(TASK, asked, on_step=lambda *step: has_begun.set()))
    await has_begun.wait()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


def test_a_host_draws_tells_steps_ends_what_nobody_wants_and_draws_on(socket: Path) -> None:
    async def talk() -> None:
        client = HostClient(socket, START_S, SILENCE_S)
        try:
            first, _ = await drawn(client)
            await end_at_first_step(client)
            again, _ = await drawn(client)
            long, steps = await drawn(client, steps=100, width=128, height=128)
        finally:
            await client.close()
        assert first.images is not None
        assert again.images is not None
        assert long.images is not None
        assert np.array_equal(first.images, again.images)
        assert (first.repeatable, long.images.shape) == ("exact", (1, 128, 128, 3))
        assert steps == sorted(set(steps))
        assert {of for _, of in steps} == {100}

    asyncio.run(talk())
