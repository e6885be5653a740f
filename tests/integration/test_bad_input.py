"""Bad input: a clear error with a code each, and nothing else harmed."""

import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image

from crossmodal.errors import (
    BrokerUnavailable,
    InvalidImage,
    InvalidPrompt,
    InvalidSetting,
    JobFailed,
    StorageNotWritable,
)
from crossmodal.jobs.acl import Role
from crossmodal.jobs.names import new_job_id
from crossmodal.kinds.fields import BlobRef
from crossmodal.local.valkey import free_port, valkey_url
from crossmodal.settings import SHIPPED_BUNDLE
from crossmodal.storage import open_storage
from producer import AsyncClient, Client
from tests.at_once import at_once
from tests.conftest import RunningStack
from tests.integration.test_main_job import is_known, send_plain
from tests.servers import start_server
from tests.unit.test_decode import encoded, png_of_size, red
from tests.waiting import until

PROMPT = "a large red circle on a white background"
WAIT_S = 60


@pytest.fixture(autouse=True)
def _worker_is_unharmed(client: Client, stack: RunningStack) -> Iterator[None]:
    """After every bad input the same processes as before draw as before."""
    before = stack.processes()
    yield
    assert client.txt2img(PROMPT, seed=7).result(timeout_s=WAIT_S).images
    assert stack.processes() == before


def failure_of(client: Client, job_id: str) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        client.job(job_id).result(timeout_s=WAIT_S)
    return caught.value


@at_once("prompt", ["", " \n ", "x" * 1001])
def test_an_empty_or_too_long_prompt_is_refused_at_submit(client: Client, prompt: str) -> None:
    with pytest.raises(InvalidPrompt):
        client.txt2img(prompt)


def test_a_prompt_without_a_known_object_fails_and_names_the_words(client: Client) -> None:
    error = failure_of(client, client.txt2img("zorg frob").id)
    assert (error.code, error.retryable) == ("unknown_words", False)
    assert "does not know the words 'zorg' and 'frob'" in str(error)


def test_some_unknown_words_are_listed_in_the_result(client: Client) -> None:
    result = client.txt2img("a zorgish red circle").result(timeout_s=WAIT_S)
    assert result.unknown_words == ("zorgish",)


@at_once("data", [b"", b"not an image at all"])
def test_bytes_that_are_no_image_are_refused_at_submit(client: Client, data: bytes) -> None:
    with pytest.raises(InvalidImage):
        client.img2txt(data)


def uploaded(stack: RunningStack, data: bytes) -> BlobRef:
    """Put bytes into the store past the client's own checks, as another producer might."""
    return open_storage(stack.settings).put_input(data, "image/png")


@at_once(
    "name, data, code",
    [
        ("zero bytes", b"", "invalid_image"),
        ("text", b"not an image", "invalid_image"),
        ("truncated", encoded(red(size=(200, 200)), "JPEG")[:700], "invalid_image"),
        ("bomb", png_of_size(30_000, 30_000), "image_too_large"),
    ],
)
def test_a_bad_picture_fails_its_job_alone(
    client: Client, stack: RunningStack, name: str, data: bytes, code: str
) -> None:
    good = client.img2txt(encoded(red(size=(100, 100)), "PNG"))
    bad = client.img2txt(uploaded(stack, data))
    assert failure_of(client, bad.id).code == code
    assert good.result(timeout_s=WAIT_S).captions


def test_a_file_over_the_limit_is_refused_before_it_is_read(client: Client) -> None:
    limit = client.settings.max_image_bytes
    with pytest.raises(InvalidImage, match="are allowed"):
        client.img2txt(b"\x89PNG\r\n\x1a\n" + bytes(limit))


def animated_gif() -> bytes:
    frames = [Image.new("RGB", (64, 64), c) for c in ("red", "green")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


@at_once(
    "name, data",
    [
        ("animated gif", animated_gif()),
        ("16 bit", encoded(Image.fromarray(np.full((64, 64), 40_000, np.uint16)), "PNG")),
        ("grey", encoded(red("L", (64, 64)), "PNG")),
        ("palette", encoded(red("P", (64, 64)), "PNG")),
        ("alpha", encoded(red("RGBA", (64, 64)), "PNG")),
        ("cmyk", encoded(red("CMYK", (64, 64)), "JPEG")),
        ("one pixel high", encoded(red(size=(64, 1)), "PNG")),
    ],
)
def test_unusual_pictures_are_captioned(client: Client, name: str, data: bytes) -> None:
    assert client.img2txt(data).result(timeout_s=WAIT_S).captions[0].text


def test_a_picture_that_is_not_there_fails_its_job(client: Client) -> None:
    job = client.img2txt(BlobRef(key="inputs/no/such"))
    assert failure_of(client, job.id).code == "blob_not_found"


@at_once(
    "kwargs, code",
    [
        ({}, "invalid_params"),
        ({"prompt": 7}, "invalid_params"),
        ({"prompt": "a circle", "count": "many"}, "invalid_params"),
        ({"prompt": "a circle", "seed": -1}, "invalid_params"),
        ({"prompt": "x" * 9_999}, "invalid_prompt"),
        ({"prompt": ""}, "invalid_prompt"),
    ],
)
def test_wrong_params_of_a_plain_celery_sender_fail_their_job(
    client: Client, stack: RunningStack, kwargs: dict[str, object], code: str
) -> None:
    job_id = send_plain(stack, "crossmodal.txt2img", kwargs)
    until(lambda: is_known(client, job_id))
    assert failure_of(client, job_id).code == code


def test_a_store_that_cannot_be_written_is_said_at_submit(
    stack: RunningStack, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    settings = stack.settings.model_copy(update={"storage_url": (tmp_path / "file" / "x").as_uri()})
    with Client(settings) as client, pytest.raises(StorageNotWritable):
        client.img2txt(encoded(red(), "PNG"))


def test_a_store_of_an_unknown_scheme_is_said_at_submit(stack: RunningStack) -> None:
    settings = stack.settings.model_copy(update={"storage_url": "ftp://host/x"})
    with Client(settings) as client, pytest.raises(InvalidSetting, match="ftp"):
        client.img2txt(encoded(red(), "PNG"))


def test_a_worker_refuses_a_damaged_bundle(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SHIPPED_BUNDLE, tmp_path / "damaged"))
    (folder / "words.bin").write_bytes(b"damaged")
    started = subprocess.run(
        [sys.executable, "-m", "crossmodal.cli", "worker", "--devices", "cpu"],
        env={**os.environ, "CROSSMODAL_BUNDLE": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert started.returncode == 1
    assert "bundle_invalid" in started.stderr


def test_a_broker_that_refuses_is_said_at_once(stack: RunningStack) -> None:
    away = Client(
        broker_url=valkey_url(free_port()), storage_url=stack.env["CROSSMODAL_STORAGE_URL"]
    )
    started = time.monotonic()
    with away, pytest.raises(BrokerUnavailable) as caught:
        away.txt2img(PROMPT)
    assert caught.value.retryable
    assert time.monotonic() - started < away.settings.connect_timeout_s


def test_a_broker_that_hangs_is_given_up_within_the_connect_timeout(tmp_path: Path) -> None:
    import asyncio
    import signal

    server = start_server(tmp_path / "valkey")
    client = Client(broker_url=server.url(Role.PRODUCER), connect_timeout_s=1.0)
    server.child.send(signal.SIGSTOP)
    try:
        for method in (client.txt2img, client.job):
            started = time.monotonic()
            with pytest.raises(BrokerUnavailable):
                method("a-circle")
            assert time.monotonic() - started < 2.5  # one timeout, not one for every layer

        async def submit() -> None:
            async with AsyncClient(client.settings) as twin:
                await twin.txt2img(PROMPT)

        with pytest.raises(BrokerUnavailable):
            asyncio.run(submit())
    finally:
        server.child.send(signal.SIGCONT)
        client.close()
        server.stop()


@pytest.mark.slow
def test_a_result_that_cannot_be_stored_waits_until_it_can(
    client: Client, stack: RunningStack
) -> None:
    job_id = new_job_id()
    folder = Path(unquote(urlsplit(stack.settings.storage_url).path)) / "results"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / job_id).write_text("in the way")
    send_plain(stack, "crossmodal.txt2img", {"prompt": PROMPT}, job_id)
    until(lambda: is_known(client, job_id))
    until(lambda: client.status(job_id).attempt > client.settings.max_attempts)
    failure = client.record(job_id).failure
    assert failure is None or failure.code == "storage_not_writable"
    (folder / job_id).unlink()
    assert client.job(job_id).result(timeout_s=WAIT_S).images
