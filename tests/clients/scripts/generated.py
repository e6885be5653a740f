"""A client that `openapi-python-client` has generated as `made`: generated.py"""

import base64
import io
import os
import time
from collections.abc import Callable
from typing import Any

from httpx import Timeout
from made import AuthenticatedClient
from made.api.blobs import blobs_blob
from made.api.jobs import jobs_cancel, jobs_list, jobs_look, jobs_result, jobs_submit
from made.api.openai import openai_generate
from made.api.operations import operations_models
from made.models import (
    ByKey,
    Error,
    ImagesRequest,
    ImagesResponse,
    Img2TxtRequest,
    JobsSubmitFilesBody,
    JobsSubmitFilesBodyTask,
    JobState,
    JobView,
    Problem,
    ResultView,
    Txt2ImgRequest,
)
from made.types import File

TOKEN = os.environ["CROSSMODAL_API_KEY"]
WAIT_S = 60
PATIENCE = Timeout(WAIT_S)  # its own is 5 s, which is short for a call that waits for a picture
client = AuthenticatedClient(os.environ["CROSSMODAL_URL"], TOKEN, timeout=PATIENCE)
full = AuthenticatedClient(os.environ["FULL_URL"], TOKEN, timeout=PATIENCE)
stranger = AuthenticatedClient(os.environ["CROSSMODAL_URL"], "cm_nobody_0", timeout=PATIENCE)


def draw(prompt: str = "a fox", **fields: Any) -> Txt2ImgRequest:
    """A request; params that only a model has are additional properties."""
    return Txt2ImgRequest.from_dict({"task": "txt2img", "prompt": prompt, **fields})


def once(job: JobView | Problem | None, is_so: Callable[[JobView], bool]) -> JobView:
    """The job when it is so; a key may ask only so often a second."""
    assert isinstance(job, JobView), job
    deadline = time.monotonic() + WAIT_S
    while not is_so(job):
        assert time.monotonic() < deadline, job
        time.sleep(0.2)  # between two polls
        job = jobs_look.sync(job.id, client=client)
        assert isinstance(job, JobView), job
    return job


def until(job: JobView | Problem | None, *states: JobState) -> JobView:
    return once(job, lambda found: found.state in states)


def result_of(request: Txt2ImgRequest | Img2TxtRequest) -> ResultView:
    job = until(jobs_submit.sync(client=client, body=request), JobState.SUCCEEDED, JobState.FAILED)
    found = jobs_result.sync(job.id, client=client)
    assert isinstance(found, ResultView), found
    return found


# Draws, and describes what was drawn.
[image] = result_of(draw("a large red circle on a white background", seed=7)).images
reply = blobs_blob.sync_detailed(image.key, client=client)
assert reply.content.startswith(b"\x89PNG")
picture = ByKey(key=image.key)
[caption] = result_of(Img2TxtRequest(task="img2txt", image=picture)).captions
assert "circle" in caption.text
file = File(payload=io.BytesIO(reply.content), file_name="circle.png", mime_type="image/png")
job = jobs_submit.sync(
    client=client, body=JobsSubmitFilesBody(JobsSubmitFilesBodyTask.IMG2TXT, file=file)
)
assert until(job, JobState.SUCCEEDED).result.captions[0].text == caption.text

# Follows, and cancels.
job = jobs_submit.sync(client=client, body=draw(model="sketcher", steps=200))
job = once(job, lambda found: found.progress is not None)
assert job.progress.of == 200
until(jobs_cancel.sync(job.id, client=client), JobState.CANCELED)
assert job.id in [one.id for one in jobs_list.sync(client=client, limit=5).data]
assert {model.id for model in operations_models.sync(client=client).data} >= {"scenes"}

# OpenAI's route, with the same client.
wanted = ImagesRequest.from_dict({"model": "sketcher", "prompt": "a fox", "steps": 1})
drawn = openai_generate.sync(client=client, body=wanted)
assert isinstance(drawn, ImagesResponse)
assert base64.b64decode(drawn.data[0].b64_json).startswith(b"\x89PNG")
wanted.additional_properties["stpes"] = 1
wrong = openai_generate.sync(client=client, body=wanted)
assert isinstance(wrong, Error)
assert wrong.error.param == "stpes"

# Is refused, each in its own way.
for by, request, status, code in (
    (client, draw(model="sketcher", stpes=1), 422, "invalid_params"),
    (client, draw(model="sktecher"), 422, "model_not_found"),
    (full, draw(model="away"), 503, "queue_full"),
    (stranger, draw(), 401, "unauthorized"),
):
    reply = jobs_submit.sync_detailed(client=by, body=request)
    assert isinstance(reply.parsed, Problem)
    assert (reply.status_code, reply.parsed.code) == (status, code), reply
