"""Translation of the web UI's fields to a job's, and of the job's result back.

A model has some of them as params, and most defaults request nothing. Other values are refused if
the user must have turned them on (`REFUSED`), else ignored with a warning (`LISTED`).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from crossmodal.errors import InvalidParams
from crossmodal.jobs.record import Job, JobState
from crossmodal.kinds.schema import Schema, properties_of
from crossmodal.unknown import shown
from producer.gateway.requests import Closed
from producer.handle import result_of

PARAMS = ("negative_prompt", "steps", "cfg_scale", "width", "height")  # that models may have
GUIDANCE = ("guidance", "true_guidance", "cfg_scale")  # names of cfg_scale, the first found wins
OURS = {"count": "n_iter × batch_size"} | dict.fromkeys(GUIDANCE, "cfg_scale")
REFUSED = (
    "enable_hr",
    "restore_faces",
    "tiling",
    "styles",
    "subseed_strength",
    "seed_resize_from_w",
    "seed_resize_from_h",
    "script_name",
    "alwayson_scripts",
    "refiner_checkpoint",
    "firstpass_image",
    "infotext",
)
LISTED = (
    "sampler_name",
    "scheduler",
    "sampler_index",
    "eta",
    "s_churn",
    "s_tmin",
    "s_tmax",
    "s_noise",
    "s_min_uncond",
    "clip_skip",
    "do_not_save_samples",
    "force_task_id",
)
IDLE = (  # ignored: options of features that are off, and of where files go
    "denoising_strength",
    "firstphase_width",
    "firstphase_height",
    "subseed",
    "refiner_switch_at",
    "script_args",
    "disable_extra_networks",
    "comments",
    "save_images",
    "do_not_save_grid",
    "url",
    "auth",
    "hr_scale",
    "hr_upscaler",
    "hr_second_pass_steps",
    "hr_resize_x",
    "hr_resize_y",
    "hr_checkpoint_name",
    "hr_sampler_name",
    "hr_scheduler",
    "hr_prompt",
    "hr_negative_prompt",
    "hr_additional_modules",
)
USUAL: dict[str, tuple[Any, ...]] = {  # values that request nothing, as 0 and null do
    "seed_resize_from_w": (-1,),
    "seed_resize_from_h": (-1,),
    "eta": (1,),
    "s_noise": (1,),
    "clip_skip": (1,),
    "sampler_name": ("Automatic", "Euler"),
    "sampler_index": ("Euler",),
    "scheduler": ("automatic", "Automatic"),
    "steps": (20, 50),
    "cfg_scale": (7,),
    "width": (512,),
    "height": (512,),
}
MAX_SEARCHED = 10_000  # characters of a prompt, for `_MARKUP`
_MARKUP = re.compile(r"<\w+:[^<>]{0,200}>|\([^()]{0,200}:[\d.]{1,9}\)")


class A1111Options(Closed):
    """The one setting, and the fixed values of others that clients send along."""

    sd_model_checkpoint: str | None = Field(
        default=None, max_length=64, description="A model's name or alias; null is the default one."
    )
    samples_format: Literal["png"] | None = None
    sd_vae: Literal["Automatic", "None"] | None = None
    CLIP_stop_at_last_layers: Literal[1] | None = None


class A1111Request(BaseModel):
    """A request for pictures. Other fields are the web UI's, or params of the model."""

    model_config = ConfigDict(extra="allow")

    prompt: str = ""
    negative_prompt: JsonValue = None
    seed: int = Field(default=-1, ge=-1, description="-1 chooses a random one.")
    steps: JsonValue = None
    cfg_scale: JsonValue = None
    width: JsonValue = None
    height: JsonValue = None
    n_iter: int = Field(default=1, ge=1, description="Times `batch_size`: the pictures of one job.")
    batch_size: int = Field(default=1, ge=1)
    override_settings: A1111Options = A1111Options()
    override_settings_restore_afterwards: bool = Field(
        default=True, description="False keeps the model for the caller's later requests."
    )
    send_images: bool = True

    @model_validator(mode="before")
    @classmethod
    def _has_no_nulls(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in given.items() if value is not None}


KNOWN = (*A1111Request.model_fields, *REFUSED, *LISTED, *IDLE)


def translated(wanted: A1111Request, schema: Schema | None) -> tuple[dict[str, Any], list[str]]:
    """Return a job's fields for a model with this schema, and warnings of ignored ones.

    Raises `InvalidParams` for unsupported options, and for a field given under two names.
    """
    declared, given = properties_of(schema), wanted.model_extra or {}
    for name in REFUSED:
        if _asks(name, value := given.get(name)):
            said = f"{name} is {shown(value)}, which is not supported: leave it out"
            raise InvalidParams(said, name)
    _check_once(wanted, given, declared)
    fields: dict[str, Any] = {"prompt": wanted.prompt}
    fields |= {"count": wanted.n_iter * wanted.batch_size}
    fields |= {} if wanted.seed == -1 else {"seed": wanted.seed}
    fields |= {name: value for name, value in given.items() if name not in KNOWN}
    found = _MARKUP.search(wanted.prompt[:MAX_SEARCHED])
    warnings = [f"prompt: {found[0]!r} is read as plain text"] if found else []
    sent = {name: getattr(wanted, name) for name in PARAMS} | given
    for name in (*PARAMS, *LISTED):
        value, own = sent.get(name), _own_name(name, declared)
        if own != name and own in given:  # the model's own name comes first
            continue
        is_open = schema is None and name in PARAMS and _asks(name, value)  # the model checks it
        if is_open or (own in declared and value not in (None, "")):
            fields[own] = value
        elif _asks(name, value):
            warnings.append(f"{name}: the model has no such param")
    return fields, warnings


def _check_once(
    wanted: A1111Request, given: Mapping[str, Any], declared: Mapping[str, Any]
) -> None:
    """Raise `InvalidParams` for a field given by our name and by the web UI's."""
    guidance = _own_name("cfg_scale", declared)
    if "model" in given:
        said = f"model is {shown(given['model'])}: name it in override_settings.sd_model_checkpoint"
        raise InvalidParams(said, "model")
    if "count" in given and wanted.n_iter * wanted.batch_size != 1:
        raise InvalidParams(
            "count: n_iter × batch_size sets the same param: give only one of them", "count"
        )
    if guidance in given.keys() - {"cfg_scale"} and _asks("cfg_scale", wanted.cfg_scale):
        raise InvalidParams(
            f"{guidance}: cfg_scale sets the same param: give only one of them", guidance
        )


def told_of(job: Job, declared: Mapping[str, Any], warnings: Sequence[str]) -> dict[str, Any]:
    """Return the `info` of a job's pictures; a canceled job has none.

    Raises the failure of a failed job.
    """
    result = None if job.state is JobState.CANCELED else result_of(job)
    images = () if result is None else result.images
    params = {name: one.get("default") for name, one in declared.items()} | job.params
    told = {name: params.get(_own_name(name, params)) for name in ("prompt", "seed", *PARAMS)}
    if result is not None:
        told |= images[0].model_dump(include={"width", "height"})
        told |= {"sd_model_name": result.model, "sd_model_hash": result.bundle_version}
    seeds = [params["seed"] + i for i in range(len(images))]
    said = ("interrupted: no picture was finished",) if result is None else result.warnings
    return told | {
        "batch_size": params["count"],
        "all_seeds": seeds,
        "all_prompts": [told["prompt"]] * len(seeds),
        "infotexts": [_text(told | {"seed": seed}) for seed in seeds],
        "index_of_first_image": 0,
        "warnings": [*warnings, *said],
        "job": job.id,
    }


def _text(told: Mapping[str, Any]) -> str:
    """Return one picture's infotext, in the format that other tools parse."""
    negative = f"Negative prompt: {told['negative_prompt']}\n" if told["negative_prompt"] else ""
    named = {"Steps": told["steps"], "CFG scale": told["cfg_scale"], "Seed": told["seed"]}
    named |= {"Size": f"{told['width']}x{told['height']}", "Model": told["sd_model_name"]}
    pairs = ", ".join(f"{name}: {value}" for name, value in named.items() if value is not None)
    return f"{told['prompt']}\n{negative}{pairs}"


def _own_name(name: str, params: Mapping[str, Any]) -> str:
    """Return the model's name of a field, given the model's params."""
    names = GUIDANCE if name == "cfg_scale" else (name,)
    return next((own for own in names if own in params), names[0])


def _asks(name: str, value: Any) -> bool:
    """Return whether a value requests anything, unlike those sent by default."""
    return bool(value) and value not in USUAL.get(name, ())
