"""The web UI's fields of a picture: what becomes of each, and what is told of it afterwards."""

from typing import Any

import pytest
from pydantic import Field

from crossmodal.errors import InvalidParams
from crossmodal.jobs.record import ImageRef, Job, JobResult, JobState, Timings
from crossmodal.kinds.schema import properties_of, schema_of
from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams
from producer.gateway.a1111.fields import IDLE, LISTED, REFUSED, A1111Request, told_of, translated


class DiffusionParams(Txt2ImgParams):
    steps: int = Field(default=30, ge=1)
    guidance: float = 7.5
    width: int = 512
    height: int = 512
    negative_prompt: str | None = None


class TrueParams(Txt2ImgParams):
    true_guidance: float = 4.0
    scheduler: str = "karras"


PLAIN, DIFFUSION, TRUE = (schema_of(p) for p in (Txt2ImgParams, DiffusionParams, TrueParams))
CLIENTS = {  # what `webuiapi` sends where its user says no more than a prompt
    "enable_hr": False,
    "hr_scale": 2,
    "hr_upscaler": "Latent",
    "hr_second_pass_steps": 0,
    "hr_resize_x": 0,
    "hr_checkpoint_name": None,
    "hr_prompt": "",
    "denoising_strength": 0.7,
    "firstphase_width": 0,
    "prompt": "a fox",
    "styles": [],
    "seed": -1,
    "subseed": -1,
    "subseed_strength": 0.0,
    "seed_resize_from_h": 0,
    "seed_resize_from_w": 0,
    "batch_size": 1,
    "n_iter": 1,
    "steps": 20,
    "cfg_scale": 7.0,
    "width": 512,
    "height": 512,
    "restore_faces": False,
    "tiling": False,
    "do_not_save_samples": False,
    "do_not_save_grid": False,
    "negative_prompt": "",
    "eta": 1.0,
    "s_churn": 0,
    "s_tmax": 0,
    "s_tmin": 0,
    "s_noise": 1,
    "override_settings": {},
    "override_settings_restore_afterwards": True,
    "script_name": None,
    "script_args": [],
    "send_images": True,
    "save_images": False,
    "alwayson_scripts": {},
}

SILLY_TAVERN = {  # with its own settings as they are at first
    "url": "http://127.0.0.1:8000",
    "auth": "me:cm_a_b",
    "prompt": "a fox",
    "negative_prompt": "low quality",
    "sampler_name": "Automatic",
    "scheduler": "automatic",
    "steps": 20,
    "cfg_scale": 7,
    "width": 512,
    "height": 768,
    "restore_faces": False,
    "enable_hr": False,
    "hr_upscaler": "None",
    "hr_scale": 2,
    "hr_additional_modules": [],
    "denoising_strength": 0.7,
    "hr_second_pass_steps": 0,
    "override_settings": {"CLIP_stop_at_last_layers": 1},
    "override_settings_restore_afterwards": True,
    "clip_skip": 1,
    "save_images": True,
    "send_images": True,
    "do_not_save_grid": False,
    "do_not_save_samples": False,
}
LIBRE_CHAT = {
    "prompt": "a fox",
    "negative_prompt": "low quality",
    "cfg_scale": 4.5,
    "steps": 22,
    "width": 1024,
    "height": 1024,
}
OPEN_WEBUI = {"prompt": "a fox", "batch_size": 2, "width": 512, "height": 512, "steps": 50}


def made_of(schema: Any, **fields: Any) -> tuple[dict[str, Any], list[str]]:
    return translated(A1111Request.model_validate({"prompt": "a fox"} | fields), schema)


def test_what_a_client_sends_by_default_asks_for_nothing() -> None:
    assert made_of(PLAIN, **CLIENTS) == ({"prompt": "a fox", "count": 1}, [])


@pytest.mark.parametrize(
    ("sent", "drawn"),
    [
        (
            SILLY_TAVERN,
            {
                "negative_prompt": "low quality",
                "steps": 20,
                "guidance": 7,
                "width": 512,
                "height": 768,
                "count": 1,
            },
        ),
        (
            LIBRE_CHAT,
            {
                "negative_prompt": "low quality",
                "steps": 22,
                "guidance": 4.5,
                "width": 1024,
                "height": 1024,
                "count": 1,
            },
        ),
        (OPEN_WEBUI, {"steps": 50, "width": 512, "height": 512, "count": 2}),
    ],
)
def test_what_apps_send_is_drawn(sent: dict[str, Any], drawn: dict[str, Any]) -> None:
    assert made_of(DIFFUSION, **sent) == ({"prompt": "a fox"} | drawn, [])


def test_params_that_the_model_has_are_given_to_it_by_its_own_names() -> None:
    fields, warnings = made_of(
        DIFFUSION,
        seed=7,
        steps=20,
        cfg_scale=5,
        width=64,
        height=32,
        negative_prompt="a dog",
        n_iter=2,
        batch_size=3,
    )
    assert not warnings
    assert fields == {
        "prompt": "a fox",
        "seed": 7,
        "steps": 20,
        "guidance": 5,
        "width": 64,
        "height": 32,
        "negative_prompt": "a dog",
        "count": 6,
    }
    assert made_of(TRUE, cfg_scale=7, scheduler="simple") == (
        {"prompt": "a fox", "count": 1, "true_guidance": 7, "scheduler": "simple"},
        [],
    )


def test_a_models_own_params_may_stand_among_the_fields() -> None:
    assert made_of(PLAIN, temperature=0.5)[0]["temperature"] == 0.5


def test_of_what_the_model_has_not_it_is_said_that_nothing_came() -> None:
    fields, warnings = made_of(
        PLAIN, steps=22, cfg_scale=4.5, width=1024, negative_prompt="a dog", sampler_name="Euler a"
    )
    assert fields == {"prompt": "a fox", "count": 1}
    names = ("negative_prompt", "steps", "cfg_scale", "width", "sampler_name")
    assert warnings == [f"{name}: the model has no such param" for name in names]


def test_a_model_that_nobody_has_loaded_is_given_what_is_asked_for() -> None:
    fields, warnings = made_of(None, steps=22, cfg_scale=4.5, width=512, eta=0.5)
    assert fields == {"prompt": "a fox", "count": 1, "steps": 22, "guidance": 4.5}
    assert warnings == ["eta: the model has no such param"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_nothing_here_does_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(InvalidParams, match=f"^{name} is .*, which is not supported") as caught:
        made_of(DIFFUSION, **{name: 2})
    assert caught.value.field == name


@pytest.mark.parametrize("name", LISTED)
def test_what_clients_always_send_is_listed(name: str) -> None:
    assert made_of(PLAIN, **{name: 3})[1] == [f"{name}: the model has no such param"]


@pytest.mark.parametrize("name", IDLE)
def test_what_belongs_to_something_that_is_off_is_let_through(name: str) -> None:
    assert made_of(PLAIN, **{name: 3}) == ({"prompt": "a fox", "count": 1}, [])


@pytest.mark.parametrize(
    ("prompt", "markup"),
    [
        ("a <lora:ink:0.8> fox", "<lora:ink:0.8>"),
        ("a (red:1.3) fox", "(red:1.3)"),
        ("a fox (left)", None),
        ("6:30 <3 a fox", None),
    ],
)
def test_markup_that_no_model_reads_is_spoken_of(prompt: str, markup: str | None) -> None:
    said = [] if markup is None else [f"prompt: {markup!r} is read as plain text"]
    assert made_of(PLAIN, prompt=prompt)[1] == said


def test_nulls_are_as_if_they_were_not_there() -> None:
    nulls = dict.fromkeys(("seed", "n_iter", "send_images", "override_settings", "styles"))
    assert made_of(PLAIN, **nulls) == ({"prompt": "a fox", "count": 1}, [])


def job(state: JobState, **known: Any) -> Job:
    params = {"prompt": "a fox", "count": 2, "seed": 7, "guidance": 5.0, "negative_prompt": "a dog"}
    return Job(
        id="one",
        task=Task("txt2img"),
        queue="txt2img",
        state=state,
        attempt=1,
        params=params,
        created_at=0.0,
        **known,
    )


def test_pictures_are_told_of_each_with_its_seed() -> None:
    image = ImageRef(key="results/one/0.png", width=64, height=32)
    result = JobResult(
        job="one",
        task=Task("txt2img"),
        params={},
        images=(image, image),
        model="ink",
        bundle_version="v1",
        batch_size=1,
        attempt=1,
        warnings=("it is short",),
        timings=Timings(queued_s=0, batch_wait_s=0, inference_s=0, store_s=0, total_s=0),
    )
    told = told_of(job(JobState.SUCCEEDED, result=result), properties_of(DIFFUSION), ["eta: …"])
    assert (told["all_seeds"], told["all_prompts"]) == ([7, 8], ["a fox", "a fox"])
    assert (told["steps"], told["cfg_scale"], told["width"], told["height"]) == (30, 5.0, 64, 32)
    assert told["warnings"] == ["eta: …", "it is short"]
    assert told["infotexts"][1] == (
        "a fox\nNegative prompt: a dog\nSteps: 30, CFG scale: 5.0, Seed: 8, Size: 64x32, Model: ink"
    )


def test_of_what_was_interrupted_there_are_no_pictures() -> None:
    told = told_of(job(JobState.CANCELED), properties_of(DIFFUSION), [])
    assert (told["all_seeds"], told["infotexts"], told["job"]) == ([], [], "one")
    assert told["warnings"] == ["interrupted: no picture was finished"]


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ({"model": "ink"}, "^model is 'ink' .*: name it in override_settings.sd_model_checkpoint"),
        ({"count": 3, "batch_size": 2}, "^count: n_iter × batch_size sets the same param"),
        ({"guidance": 3, "cfg_scale": 5}, "^guidance: cfg_scale sets the same param"),
    ],
)
def test_what_is_said_twice_is_refused(sent: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidParams, match=says) as caught:
        made_of(DIFFUSION, **sent)
    assert caught.value.field == next(iter(sent))


def test_our_names_come_before_what_clients_always_send() -> None:
    fields, warnings = made_of(DIFFUSION, **CLIENTS | {"count": 3, "guidance": 3})
    assert (fields["count"], fields["guidance"], warnings) == (3, 3, [])
