"""The `webuiapi` client: draws, follows, interrupts, describes, chooses a model, is refused."""

import base64
import io
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image
from webuiapi import WebUIApi

WAIT_S = 60
URL = f"{os.environ['CROSSMODAL_URL']}/sdapi/v1"
api = WebUIApi(baseurl=URL, username="me", password=os.environ["CROSSMODAL_API_KEY"])


def until(found: Callable[[], Any]) -> Any:
    """What is found in the end."""
    limit = time.monotonic() + WAIT_S
    while time.monotonic() < limit:
        if answer := found():
            return answer
        time.sleep(0.1)  # between two polls
    raise AssertionError("it did not happen")


def refused(call: Callable[[], object]) -> tuple[int, dict[str, Any]]:
    """The status and the body that the client's error has."""
    try:
        call()
    except RuntimeError as e:
        return e.args[0], json.loads(e.args[1])
    raise AssertionError("it was not refused")


# As its own examples have it: the default model, which has none of what the client sends along.
assert not api.has_controlnet
drawn = api.txt2img(prompt="a large red circle on a white background", seed=7)
assert drawn.image.size == (128, 128)
assert (drawn.info["seed"], drawn.info["all_seeds"]) == (7, [7])
assert drawn.info["sd_model_name"] == "scenes"
assert drawn.info["infotexts"][0].startswith("a large red circle")
assert "sampler_name: the model has no such param" in drawn.info["warnings"]
assert drawn.parameters["batch_size"] == 1
again = api.txt2img(prompt="a large red circle on a white background", seed=7)
assert again.image.tobytes() == drawn.image.tobytes()
other = api.txt2img(prompt="a large red circle on a white background")
assert other.info["seed"] != 7

# A caption.
found = api.interrogate(drawn.image)
assert "circle" in found.info, found.info
assert api.interrogate(drawn.image, model="scenes").info == found.info

# Another model by the options, for all that comes.
assert {"scenes", "sketcher"} <= {*api.util_get_model_names()}
assert api.util_get_current_model() == "scenes"
api.util_set_model("sketcher")
assert api.util_get_current_model() == "sketcher"
given = {"width": 64, "height": 32, "steps": 1, "negative_prompt": "a dog"}
drawn = api.txt2img(prompt="a fox", batch_size=2, n_iter=2, seed=7, **given)
assert [image.size for image in drawn.images] == [(64, 32)] * 4
assert [image.getpixel((0, 0))[0] for image in drawn.images] == drawn.info["all_seeds"]
assert drawn.parameters["negative_prompt"] == "a dog"
once = api.txt2img(
    prompt="a red circle", override_settings={"sd_model_checkpoint": "scenes"}, save_images=True
)
assert once.info["sd_model_name"] == "scenes"
assert api.txt2img(prompt="a fox", steps=1, width=64, height=64, send_images=False).images == []
api.util_wait_for_ready(check_interval=0.1)

# How far it is, with what is drawn so far; and enough of it.
with ThreadPoolExecutor(1) as threads:
    long = threads.submit(api.txt2img, prompt="long", steps=200, width=64, height=64)
    shown = until(lambda: (one := api.get_progress())["current_image"] and one)
    assert 0 < shown["progress"] < 1
    assert shown["eta_relative"] > 1
    assert shown["state"]["sampling_steps"] == 200
    assert shown["state"]["job_count"] == 1
    assert Image.open(io.BytesIO(base64.b64decode(shown["current_image"]))).format == "JPEG"
    assert api.interrupt() == {}
    stopped = long.result(WAIT_S)
assert stopped.images == []
assert stopped.info["warnings"][-1] == "interrupted: no picture was finished"
assert api.get_progress()["state"]["job_count"] == 0

# What there is none of is said, too.
assert [sampler["name"] for sampler in api.get_samplers()] == ["Automatic"]
assert api.util_get_scheduler_names() == ["automatic"]
assert [upscaler["name"] for upscaler in api.get_upscalers()] == ["None"]
assert api.get_latent_upscale_modes() == api.get_loras() == api.get_sd_vae() == []

# What is refused.
status, error = refused(lambda: api.txt2img(prompt="a fox", steps=9_999))
assert (status, error["error"]) == (422, "invalid_params"), error
assert error["detail"].startswith("invalid params: steps"), error
status, error = refused(lambda: api.txt2img(prompt="a fox", enable_hr=True))
assert (status, error["detail"]) == (
    422,
    "enable_hr is True (bool), which is not supported: leave it out",
)
status, error = refused(
    lambda: api.txt2img(prompt="a fox", override_settings={"sd_model_checkpoint": "sktecher"})
)
assert (status, error["error"]) == (404, "model_not_found")
assert "did you mean 'sketcher'?" in error["detail"]
assert api.set_options({"sd_model_checkpoint": "sktecher"})["error"] == "model_not_found"
assert refused(lambda: api.txt2img(prompt="", steps=1))[1]["error"] == "invalid_prompt"
circle = {"prompt": "zorg frob", "override_settings": {"sd_model_checkpoint": "scenes"}}
status, error = refused(lambda: api.txt2img(**circle))
assert (status, error["error"]) == (422, "unknown_words"), error
assert refused(lambda: api.interrogate("aGVsbG8="))[1]["error"] == "invalid_image"
stranger = WebUIApi(baseurl=URL, username="me", password="cm_nobody_0")
status, error = refused(lambda: stranger.txt2img(prompt="a fox"))
assert (status, error["error"]) == (401, "unauthorized")
