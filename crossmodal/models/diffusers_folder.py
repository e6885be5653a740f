"""A txt2img model from any folder that diffusers opens for text to image.

Its params follow the signature of the pipeline's `__call__`. A picture of another size than
requested, which a pipeline returns without an error, fails here. Loading makes no request to a
hub, reads no pickle, and runs no code of the folder.
"""

import inspect
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the import
os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"

import diffusers
import numpy as np
import torch
import transformers
from pydantic import Field, ValidationError, create_model

from crossmodal.errors import InvalidModel, described
from crossmodal.invalid import explained
from crossmodal.kinds.fields import text_of
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.models.catalog import CONFIG, FolderConfig
from crossmodal.models.contract import Batch, Model, Outcome, Picture
from crossmodal.models.latents import factors_of, pictures_of
from crossmodal.models.prompt_reader import PromptReader

MAX_SIDE = 2_048
MAX_PROMPT = 4_000  # characters; the job's warnings name the part that the model does not read
KNOWN: dict[str, tuple[str, type, dict[str, Any]]] = {  # ours: theirs, type, our bounds
    "steps": ("num_inference_steps", int, {"ge": 1, "le": 200}),
    "guidance": ("guidance_scale", float, {"ge": 0, "le": 50}),
    "true_guidance": ("true_cfg_scale", float, {"ge": 0, "le": 50}),
}


class DiffusersFolder(Model):
    """A pipeline of diffusers; its batches have one picture unless the folder's config has more."""

    kind = "txt2img"
    Params = Txt2ImgParams
    shared: Sequence[str] = ("width", "height")

    def __init__(self, config: FolderConfig) -> None:
        self._config = config
        self.max_batch = config.max_batch or 1
        self.repeatable = "exact" if self.max_batch == 1 else "close"

    def load(self, folder: Path, device: str) -> None:
        diffusers.utils.logging.set_verbosity_error()
        diffusers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self._folder = folder
        self._pipe = self._opened(folder, device)
        self._pipe.set_progress_bar_config(disable=True)
        self._takes = inspect.signature(type(self._pipe).__call__).parameters
        self._names = {
            ours: theirs for ours, (theirs, *_) in KNOWN.items() if theirs in self._takes
        }
        self.shared = (*self._names, "width", "height")
        self._reader = PromptReader.of(self._pipe, self._takes)
        try:
            self.Params = create_model("DiffusersParams", __base__=Txt2ImgParams, **self._fields())
            self.Params.model_validate(self.example())
        except ValidationError as e:
            what = explained(e.errors()[0], "all")
            raise InvalidModel(f"{CONFIG} in {folder}: defaults: {what}") from e

    def _opened(self, folder: Path, device: str) -> Any:
        dtype = self._config.dtype or ("float32" if device == "cpu" else "bfloat16")
        try:
            auto: Any = diffusers.AutoPipelineForText2Image
            pipe = auto.from_pretrained(
                folder.resolve(strict=True),  # diffusers would query a hub for a bare name
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                variant=self._config.variant,
                dtype=getattr(torch, dtype),
            )
        except Exception as e:
            raise InvalidModel(f"{folder} cannot be opened by diffusers: {described(e)}") from e
        if self._config.slicing:
            pipe.vae.enable_slicing()
        if self._config.offload and device != "cpu":
            pipe.enable_model_cpu_offload(device=device)
            return pipe
        return pipe.to(device)

    def _fields(self) -> dict[str, Any]:
        """Return the fields that the pipeline adds to the kind's; `temperature` is fixed at 1."""
        side, multiple = self._sides()
        size = {"ge": multiple, "le": MAX_SIDE, "multiple_of": multiple}
        known: dict[str, tuple[Any, Any, dict[str, Any]]] = {
            "temperature": (float, 1.0, {"ge": 1, "le": 1}),
            "width": (int, side, size),
            "height": (int, side, size),
        }
        for ours, theirs in self._names.items():
            _, kind, bounds = KNOWN[ours]
            known[ours] = (kind, kind(self._takes[theirs].default or 0), bounds)
        if "negative_prompt" in self._takes:
            known["negative_prompt"] = (text_of(0, MAX_PROMPT) | None, None, {})
        defaults = self._config.defaults
        if strange := set(defaults) - set(known):
            raise InvalidModel(
                f"{CONFIG} in {self._folder}: defaults: unknown param {min(strange)!r}; known "
                f"ones are {', '.join(known)}"
            )
        prompt = Field(description="What to draw.")
        return {"prompt": (text_of(1, MAX_PROMPT), prompt)} | {
            name: (kind, Field(default=defaults.get(name, own), validate_default=True, **bounds))
            for name, (kind, own, bounds) in known.items()
        }

    def _sides(self) -> tuple[int, int]:
        """Return the pipeline's default side, and what sides must be multiples of, in pixels."""
        core = getattr(self._pipe, "unet", None) or self._pipe.transformer
        scale = self._pipe.vae_scale_factor
        packed = 2 if type(self._pipe).__name__.startswith("Flux") else 1
        patch = packed if packed > 1 else getattr(core.config, "patch_size", 1) or 1
        sample = getattr(core.config, "sample_size", None)
        sample = sample or getattr(self._pipe, "default_sample_size", 128)
        multiple = scale * patch
        return max(multiple, min(MAX_SIDE, sample * scale) // multiple * multiple), multiple

    def example(self) -> Mapping[str, Any]:
        return {"prompt": "a picture", "seed": 0}

    def batch_key(self, params: Any) -> Hashable:
        """Return the batch key; an absent and an empty negative prompt give different pictures."""
        return super().batch_key(params), _negative(params) is None

    def run(self, batch: Batch) -> Sequence[Outcome]:
        first = batch[0].params
        options = {theirs: getattr(first, ours) for ours, theirs in self._names.items()}
        if _negative(first) is not None:
            options["negative_prompt"] = [_negative(request.params) for request in batch]
        if "use_resolution_binning" in self._takes:  # it would draw another size than requested
            options["use_resolution_binning"] = False
        options |= self._steps(batch, first)
        try:
            with torch.inference_mode():
                drawn = self._pipe(
                    prompt=[request.params.prompt for request in batch],
                    width=first.width,
                    height=first.height,
                    output_type="np",
                    generator=[torch.Generator("cpu").manual_seed(r.seed) for r in batch],
                    **options,
                )
        finally:
            self._pipe.maybe_free_model_hooks()  # also if a step has raised
        unfit = getattr(drawn, "nsfw_content_detected", None) or [False] * len(batch)
        return [
            self._checked(request.params, pixels, is_unfit)
            for request, pixels, is_unfit in zip(batch, drawn.images, unfit, strict=True)
        ]

    def _checked(self, params: Any, pixels: Any, is_unfit: bool) -> Outcome:
        if pixels.shape[:2] != (params.height, params.width):
            found = f"{pixels.shape[1]} x {pixels.shape[0]}"
            return ValueError(
                f"{params.width} x {params.height} pixels were asked for, and {found} were drawn"
            )
        warnings = [self._reader.warning("prompt", params.prompt)]
        if _negative(params):
            warnings.append(self._reader.warning("negative prompt", params.negative_prompt))
        if is_unfit:
            warnings.append("the model's safety checker has made a picture black")
        return Picture(np.asarray(pixels), warnings=tuple(filter(None, warnings)))

    def _steps(self, batch: Batch, first: Any) -> dict[str, Any]:
        """Return the options that report each step; older pipelines get a fake progress bar."""
        if "callback_on_step_end" not in self._takes:
            self._pipe.progress_bar = lambda steps=None, total=None: _Bar(batch, steps, total)
            return {}

        factors = factors_of(self._pipe)

        def step(pipe: Any, i: int, t: Any, tensors: Any) -> Any:
            of = getattr(pipe, "_num_timesteps", None) or first.steps
            if factors is None:
                batch.step(i + 1, of)
            else:
                batch.step(i + 1, of, lambda: pictures_of(tensors["latents"], factors))
            return tensors

        return {"callback_on_step_end": step}


class _Bar:
    """A stand-in for a pipeline's progress bar that reports each tick as a step."""

    def __init__(self, batch: Batch, steps: Any, total: int | None) -> None:
        self._batch, self._steps, self._done = batch, steps, 0
        self._of = total or (len(steps) if steps is not None else 1)

    def __iter__(self) -> Iterator[Any]:
        for step in self._steps:
            yield step
            self.update()

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *exception: object) -> None: ...

    def update(self, steps: int = 1) -> None:
        self._done += steps
        self._batch.step(min(self._done, self._of), self._of)


def _negative(params: Any) -> str | None:
    return getattr(params, "negative_prompt", None)
