"""Bulk on real parts: many items in few messages, the same pictures as from single jobs."""

import asyncio
import io
import json
import uuid
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image

from crossmodal.jobs.record import ItemResult
from crossmodal.kinds.task import Task
from producer import AsyncClient, Client
from producer.pictures.files import Picture
from tests.conftest import RunningStack
from tests.integration.test_main_job import PROMPT, WAIT_S, run_cli

COLORS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square", "triangle", "star")
PROMPTS = [
    f"a {['small', 'large'][i % 2]} {COLORS[i % 4]} {SHAPES[i // 4 % 4]} on a white background"
    for i in range(100)
]


@pytest.fixture
def batch_id() -> str:
    return f"batch-{uuid.uuid4().hex[:8]}"


def by_index(results: Iterable[ItemResult]) -> dict[int, ItemResult]:
    found = list(results)
    assert len({r.index for r in found}) == len(found)
    return {r.index: r for r in found}


def finished(client: Client, task: Task) -> int:
    return sum(client.queue(task.in_bulk).finished.values())


def test_a_hundred_prompts_become_the_pictures_that_single_jobs_make(
    client: Client, batch_id: str
) -> None:
    prompts = [*PROMPTS[:40], "zorg frob", *PROMPTS[40:]]
    found = by_index(client.map_txt2img(prompts, seed=7, batch_id=batch_id))
    assert sorted(found) == list(range(101))
    failure = found.pop(40).failure
    assert failure is not None
    assert failure.code == "unknown_words"
    assert all(r.failure is None and r.seed == 7 + i for i, r in found.items())
    some = [0, 33, 64, 100]
    jobs = {i: client.txt2img(prompts[i], seed=7 + i) for i in some}
    for i, job in jobs.items():
        alone = job.result(timeout_s=WAIT_S).images[0]
        assert client.read(found[i].images[0]) == client.read(alone)
    status = client.batch(batch_id)
    assert (status.total, status.completed, status.failed) == (101, 100, 1)
    assert status.is_done


def test_pictures_are_captioned_wherever_they_lie(client: Client, tmp_path: Path) -> None:
    drawn = [r.images[0] for r in client.map_txt2img([PROMPT] * 3, seed=7)]
    path, broken = tmp_path / "circle.png", tmp_path / "broken.png"
    path.write_bytes(client.read(drawn[1]))
    broken.write_text("no image")
    pictures: list[Picture] = [client.read(drawn[0]), path, broken, drawn[2], tmp_path / "none.png"]
    found = by_index(client.map_img2txt(pictures, count=2))
    assert {i: r.failure.code for i, r in found.items() if r.failure} == {
        2: "invalid_image",
        4: "invalid_image",
    }
    for i in (0, 1, 3):
        assert len(found[i].captions) == 2
        assert "red circle" in found[i].captions[0].text


def test_a_file_that_is_run_twice_is_run_once(
    client: Client, stack: RunningStack, tmp_path: Path, batch_id: str
) -> None:
    lines = [
        {"custom_id": f"p{i}", "method": "POST", "url": "/v1/txt2img", "body": {"prompt": prompt}}
        for i, prompt in enumerate([*PROMPTS[:5], "zorg frob", PROMPTS[5]])
    ]
    source, folder = tmp_path / "in.jsonl", tmp_path / "pictures"
    text = "\n".join(json.dumps(line) for line in lines)
    source.write_text(text + "\nno JSON at all\n")
    outputs = []
    for name in ("first.jsonl", "second.jsonl"):
        ended = finished(client, Task("txt2img"))
        out = tmp_path / name
        shown = run_cli(
            stack,
            "batch",
            "run",
            str(source),
            "-o",
            str(out),
            "--id",
            batch_id,
            "--images",
            str(folder),
            "--json",
        )
        assert shown.returncode == 1, shown.stderr  # two lines failed
        counts = json.loads(shown.stdout)["request_counts"]
        assert counts == {"total": 8, "completed": 6, "failed": 2}
        outputs.append(sorted(out.read_text().splitlines()))
    assert outputs[0] == outputs[1]
    assert finished(client, Task("txt2img")) == ended  # as it was before the second run
    results = {r["custom_id"]: r for r in map(json.loads, outputs[0])}
    assert set(results) == {*(f"p{i}" for i in range(7)), "line 8"}
    assert results["p5"]["error"]["code"] == "unknown_words"
    assert results["line 8"]["error"]["code"] == "invalid_params"
    assert results["p6"]["response"]["status_code"] == 200
    assert {f.name for f in folder.iterdir()} == {f"p{i}-0.png" for i in (0, 1, 2, 3, 4, 6)}
    shown = run_cli(stack, "batch", "status", batch_id, "--json")
    assert json.loads(shown.stdout) == {
        "id": batch_id,
        "task": "txt2img",
        "is_done": True,
        "request_counts": {"total": 7, "completed": 6, "failed": 1},  # of those that were sent
        "messages": {"succeeded": 1},
    }


def test_the_lines_of_a_file_may_ask_for_files_of_several_formats(
    client: Client, stack: RunningStack, tmp_path: Path
) -> None:
    asked: list[dict[str, object]] = [
        {},
        {"format": "webp", "quality": 80},
        {"format": "jpeg", "embed_metadata": False},
        {"quality": 80},
    ]
    lines = [
        {"custom_id": f"p{i}", "url": "/v1/txt2img", "body": {"prompt": PROMPT, "seed": 7} | files}
        for i, files in enumerate(asked)
    ]
    source, out, folder = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "pictures"
    source.write_text("\n".join(json.dumps(line) for line in lines))
    shown = run_cli(stack, "batch", "run", str(source), "-o", str(out), "--images", str(folder))
    assert shown.returncode == 1, shown.stderr  # a line failed
    found = {file.name: Image.open(io.BytesIO(file.read_bytes())) for file in folder.iterdir()}
    assert {name: image.format for name, image in found.items()} == {
        "p0-0.png": "PNG",
        "p1-0.webp": "WEBP",
        "p2-0.jpeg": "JPEG",
    }
    assert [len(found[name].getexif()) for name in ("p1-0.webp", "p2-0.jpeg")] == [1, 0]
    results = {r["custom_id"]: r for r in map(json.loads, out.read_text().splitlines())}
    images = [results[f"p{i}"]["response"]["body"]["images"][0] for i in range(3)]
    assert [image["media_type"] for image in images] == ["image/png", "image/webp", "image/jpeg"]
    assert "quality: png has no quality" in results["p3"]["error"]["message"]


def test_a_file_that_mixes_kinds_is_run_as_it_is(
    client: Client, stack: RunningStack, tmp_path: Path, batch_id: str
) -> None:
    drawn = client.txt2img(PROMPT, seed=7).result(60)
    (tmp_path / "circle.png").write_bytes(client.read(drawn.images[0]))
    lines = [
        {"custom_id": "draw", "url": "/v1/txt2img", "body": {"prompt": PROMPT}},
        {"custom_id": "tell", "url": "/v1/img2txt", "body": {"image": {"path": "circle.png"}}},
        {"custom_id": "typo", "url": "/v1/txt2img", "body": {"prompt": PROMPT, "sede": 7}},
    ]
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(json.dumps(line) for line in lines))
    shown = run_cli(stack, "batch", "run", str(source), "-o", str(out), "--id", batch_id, "--json")
    assert json.loads(shown.stdout)["task"] is None
    results = {r["custom_id"]: r for r in map(json.loads, out.read_text().splitlines())}
    assert len(results["draw"]["response"]["body"]["images"]) == 1
    assert "red circle" in results["tell"]["response"]["body"]["captions"][0]["text"]
    assert results["typo"]["error"]["message"].endswith("did you mean 'seed'?")
    shown = run_cli(stack, "batch", "status", batch_id, "--json")
    assert json.loads(shown.stdout)["task"] is None


def test_the_command_line_knows_batches_by_their_ids(stack: RunningStack, batch_id: str) -> None:
    assert run_cli(stack, "batch", "status", batch_id).returncode == 1
    assert run_cli(stack, "batch", "cancel", batch_id).returncode == 1
    assert run_cli(stack, "batch", "status", "../../x").returncode == 2


def test_a_batch_in_an_event_loop(stack: RunningStack, batch_id: str) -> None:
    async def scenario() -> None:
        async with AsyncClient(stack.settings) as client:
            drawn = client.map_txt2img(PROMPTS[:20], batch_id=batch_id)
            found = by_index([r async for r in drawn])
            assert all(r.images for r in found.values())
            assert sorted(found) == list(range(20))
            assert (await client.batch(batch_id)).completed == 20
            captions = client.map_img2txt([found[0].images[0]])
            assert [r.captions[0].text async for r in captions if r.failure is None]
            assert (await client.cancel_batch(batch_id)).completed == 20  # it has ended

    asyncio.run(scenario())
