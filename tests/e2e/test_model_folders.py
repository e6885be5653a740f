"""Folders that others made, as models: nine families, and what is wrong with a folder."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from crossmodal.errors import InferenceFailed, InvalidModel
from crossmodal.kinds.fields import BlobRef
from crossmodal.models.catalog import open_folder
from crossmodal.models.contract import Canceled, Preview
from crossmodal.models.loading import models_of
from crossmodal.settings import SHIPPED_BUNDLE
from tests.tiny import captioners, pipelines
from worker.host.pipeline import Described, Drawn, HostRequest, ModelPipeline
from worker.host.pixels import pixels_of

SIZE = {"width": 32, "height": 32, "steps": 4}


@pytest.fixture(autouse=True)
def single_threaded() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the host
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def loaded(folder: Path, max_batch: int = 1, **allowed: Any) -> ModelPipeline:
    found = open_folder(folder, **allowed)
    [model] = models_of(found)
    model.load(folder, "cpu")
    if max_batch > 1:
        model.max_batch = max_batch
    return ModelPipeline(model)


def family(root: Path, name: str) -> Path:
    """The folder of a family, made once."""
    folder = root / name
    if not folder.exists():
        (pipelines if name in pipelines.FAMILIES else captioners).make(name, folder)
    return folder


class Steps:
    """Notes all steps; after some, nobody wants the batch."""

    def __init__(self, most: int = 1_000) -> None:
        self.taken: list[tuple[int, int]] = []
        self.shown: list[Any] = []
        self._most = most

    def step(self, done: int, of: int, preview: Preview | None = None) -> None:
        self.taken.append((done, of))
        self.shown += [] if preview is None else preview()
        if len(self.taken) >= self._most:
            raise Canceled


@pytest.mark.parametrize("name", list(pipelines.FAMILIES))
def test_a_folder_of_diffusers_draws_tells_its_steps_and_can_be_ended(
    root: Path, name: str
) -> None:
    pipeline = loaded(family(root, name))
    pipeline.warmup()
    params = pipeline.model.Params.model_validate({"prompt": "a red circle", "seed": 7, **SIZE})
    steps = Steps()
    [drawn] = pipeline.run([HostRequest(params)], steps)
    assert isinstance(drawn, Drawn)
    assert drawn.images.shape == (1, 32, 32, 3)
    assert steps.taken == [(i, 4) for i in range(1, 5)]
    with pytest.raises(Canceled):
        pipeline.run([HostRequest(params)], Steps(most=2))
    [again] = pipeline.run([HostRequest(params)])
    assert isinstance(again, Drawn)
    assert np.array_equal(again.images, drawn.images)


@pytest.mark.parametrize(
    ("name", "is_shown"),
    [("sd", True), ("lcm", True), ("sdxl", True), ("sd3", False), ("flux", False)],
)
def test_the_latents_of_some_families_are_shown_as_previews(
    root: Path, name: str, is_shown: bool
) -> None:
    pipeline = loaded(family(root, name), max_batch=2)
    steps, size = Steps(), SIZE | {"width": 64}
    params = pipeline.model.Params.model_validate({"prompt": "a red circle", "seed": 7, **size})
    outcomes = pipeline.run([HostRequest(params), HostRequest(params)], steps)
    assert all(isinstance(one, Drawn) for one in outcomes)
    assert len(steps.shown) == (2 * len(steps.taken) if is_shown else 0)
    for picture in steps.shown:
        small = pixels_of(picture)
        assert small.shape[1] == 2 * small.shape[0] >= 8
        assert small.std() > 0


def test_another_seed_draws_another_picture_and_each_its_own(root: Path) -> None:
    pipeline = loaded(family(root, "sd"), max_batch=4)
    both, other = (
        pipeline.model.Params.model_validate({"prompt": "a", "seed": s, "count": c, **SIZE})
        for s, c in ((1, 2), (2, 1))
    )
    two, one = pipeline.run([HostRequest(both), HostRequest(other)])
    assert isinstance(two, Drawn)
    assert isinstance(one, Drawn)
    assert np.abs(two.images[1].astype(int) - one.images[0]).max() <= 1  # they are close
    assert np.abs(two.images[0].astype(int) - two.images[1]).max() > 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"steps": 0}, "steps"),
        ({"width": 31}, "multiple of"),
        ({"height": 4_096}, "height"),
        ({"guidance": -1.0}, "guidance"),
        ({"temperature": 0.5}, "temperature"),
    ],
)
def test_what_a_pipeline_would_take_in_silence_is_refused(
    root: Path, wrong: dict[str, Any], says: str
) -> None:
    params = loaded(family(root, "sd")).model.Params
    with pytest.raises(ValueError, match=says):
        params.model_validate({"prompt": "a", **wrong})


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "pixart"])
def test_a_negative_prompt_draws_another_picture_and_none_is_not_an_empty_one(
    root: Path, name: str
) -> None:
    pipeline = loaded(family(root, name), max_batch=4)
    fields = {"prompt": "a red circle", "seed": 7, **SIZE}
    negative = [None, "", "a cat on a white background"]
    asked = [
        HostRequest(pipeline.model.Params.model_validate(fields | {"negative_prompt": text}))
        for text in negative
    ]
    drawn = [pipeline.run([one])[0] for one in asked]
    assert all(isinstance(one, Drawn) for one in drawn)
    assert not np.array_equal(drawn[1].images, drawn[2].images)  # type: ignore[union-attr]
    keys = [pipeline.key(one) for one in asked]
    assert keys[0] != keys[1]
    assert keys[1] == keys[2]


def test_a_model_that_takes_no_negative_prompt_has_none(root: Path) -> None:
    assert "negative_prompt" not in loaded(family(root, "lcm")).model.Params.model_fields


@pytest.mark.parametrize(("name", "limit"), [("sd", 77), ("sdxl", 77), ("sd3", 256), ("flux", 512)])
def test_what_a_pipeline_does_not_read_of_a_prompt_is_said(
    root: Path, name: str, limit: int
) -> None:
    pipeline = loaded(family(root, name))
    texts = ["a red circle", "a red circle " * 200 + "on navy"]
    drawn = [
        pipeline.run([HostRequest(pipeline.model.Params.model_validate({"prompt": t, **SIZE}))])[0]
        for t in texts
    ]
    short, long = (one.warnings for one in drawn if isinstance(one, Drawn))
    assert short == ()
    [said] = long
    assert f"of which the model reads {limit}: it does not read" in said
    assert len(said) < 250


def test_a_picture_that_a_checker_has_made_black_is_said_to_be(root: Path) -> None:
    pipeline = loaded(family(root, "sd"))
    pipe = pipeline.model._pipe  # type: ignore[attr-defined]
    params = pipeline.model.Params.model_validate({"prompt": "a", "seed": 1, **SIZE})
    pipe.run_safety_checker = lambda image, *_: (image * 0, [True])  # as one with weights does
    [drawn] = pipeline.run([HostRequest(params)])
    assert isinstance(drawn, Drawn)
    assert drawn.warnings == ("the model's safety checker has made a picture black",)


def test_a_picture_of_nan_is_an_error_and_not_black(root: Path) -> None:
    pipeline = loaded(family(root, "sd"))
    pipeline.model._pipe.unet.conv_out.bias.data.fill_(float("nan"))  # type: ignore[attr-defined]
    params = pipeline.model.Params.model_validate({"prompt": "a", "seed": 1, **SIZE})
    [outcome] = pipeline.run([HostRequest(params)])
    assert isinstance(outcome, InferenceFailed)
    assert "NaN" in str(outcome)


def test_no_prompt_is_logged(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As diffusers does with one that its tokenizer cuts."""
    caplog.set_level(logging.DEBUG)
    pipeline = loaded(family(root, "sd"))
    params = pipeline.model.Params.model_validate({"prompt": "secret " * 100, "seed": 1, **SIZE})
    pipeline.run([HostRequest(params)])
    assert "secret" not in caplog.text


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("name", list(captioners.FAMILIES))
def test_a_captioner_describes_the_same_alone_and_in_company(
    root: Path, name: str, width: int
) -> None:
    pipeline = loaded(family(root, name))
    pipeline.warmup()
    params = pipeline.model.Params(image=BlobRef(key="k"), count=2, beam_width=3, max_words=6)  # type: ignore[call-arg]
    rng = np.random.default_rng(0)
    asked = [
        HostRequest(params, rng.integers(0, 256, (20 + i, 40, 3)).astype(np.uint8))
        for i in range(3)
    ]
    steps = Steps()
    together = pipeline.run(asked, steps)
    assert [of for _, of in steps.taken] == [6] * len(steps.taken)
    for request, found in zip(asked, together, strict=True):
        [alone] = pipeline.run([request])
        assert isinstance(found, Described)
        assert isinstance(alone, Described)
        scores = [c.log_probability for c in found.captions]
        assert scores == sorted(scores, reverse=True)
        assert [c.text for c in found.captions] == [c.text for c in alone.captions]
        for one, other in zip(found.captions, alone.captions, strict=True):
            assert one.log_probability == pytest.approx(other.log_probability, abs=1e-3)
            assert one.log_probability < 0
    with pytest.raises(Canceled):
        pipeline.run(asked, Steps(most=2))


def test_what_fills_a_batch_up_behind_a_text_is_no_part_of_its_score(root: Path) -> None:
    """Greedily, where one picture's text ends at once and another's does not."""
    pipeline = loaded(family(root, "vit-gpt2"))
    model = pipeline.model._model  # type: ignore[attr-defined]
    params = pipeline.model.Params(image=BlobRef(key="k"), beam_width=1, max_words=6)  # type: ignore[call-arg]
    rng = np.random.default_rng(0)
    asked = [
        HostRequest(params, rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)) for _ in range(2)
    ]
    forward = model.forward

    def first_ends(*args: Any, **kwargs: Any) -> Any:
        made = forward(*args, **kwargs)
        made.logits[0, :, model.generation_config.eos_token_id] += 20  # of the first in the batch
        return made

    model.forward = first_ends
    short, long = pipeline.run(asked)
    [alone] = pipeline.run(asked[:1])
    model.forward = forward
    assert isinstance(short, Described)
    assert isinstance(long, Described)
    assert isinstance(alone, Described)
    assert long.captions[0].log_probability < -5 < short.captions[0].log_probability
    assert short.captions[0].log_probability == pytest.approx(
        alone.captions[0].log_probability, abs=1e-3
    )


def test_a_folder_says_what_it_is_without_being_loaded(root: Path) -> None:
    found = {name: open_folder(family(root, name)) for name in ("sd", "git")}
    assert [(f.format, f.kinds) for f in found.values()] == [
        ("diffusers", ("txt2img",)),
        ("transformers", ("img2txt",)),
    ]
    assert open_folder(SHIPPED_BUNDLE).kinds == ("txt2img", "img2txt")


def test_another_file_makes_another_version(root: Path, tmp_path: Path) -> None:
    before = pipelines.make("pixart", tmp_path / "one")
    version = open_folder(before).version
    assert open_folder(before).version == version
    (before / "model_index.json").write_text((before / "model_index.json").read_text() + " ")
    assert open_folder(before).version != version


def test_a_folder_may_say_its_defaults(root: Path, tmp_path: Path) -> None:
    folder = pipelines.make("lcm", tmp_path / "turbo")
    (folder / "crossmodal.toml").write_text(
        'description = "quick"\nmax_batch = 4\n[defaults]\nsteps = 3\nguidance = 1.5\nwidth = 16\n'
    )
    pipeline = loaded(folder)
    params = pipeline.model.Params.model_validate({"prompt": "a"})
    assert (params.steps, params.guidance, params.width) == (3, 1.5, 16)  # type: ignore[attr-defined]
    assert pipeline.model.max_batch == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("steps = 4", "steps"),
        ("[defaults]\nstepz = 4", "stepz"),
        ("[defaults]\nsteps = 0", "steps"),
        ("max_batch = 0", "max_batch"),
        ("= 1", "TOML"),
        ('dtype = "int8"', "dtype"),
    ],
)
def test_what_is_wrong_with_its_settings_is_named(
    root: Path, tmp_path: Path, text: str, says: str
) -> None:
    folder = pipelines.make("lcm", tmp_path / "turbo")
    (folder / "crossmodal.toml").write_text(text)
    with pytest.raises(InvalidModel, match=says):
        loaded(folder)


def test_a_variant_that_is_not_there_is_said(root: Path, tmp_path: Path) -> None:
    folder = pipelines.make("sd", tmp_path / "sd")
    (folder / "crossmodal.toml").write_text('variant = "fp16"')
    with pytest.raises(InvalidModel, match="fp16"):
        loaded(folder)


def test_a_part_whose_weights_are_a_pickle_is_not_read(root: Path, tmp_path: Path) -> None:
    folder = pipelines.make("sd", tmp_path / "sd")
    [weights] = (folder / "vae").glob("*.safetensors")
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(InvalidModel, match="safetensors"):
        loaded(folder)


def test_code_of_the_folders_own_is_not_run(root: Path, tmp_path: Path) -> None:
    folder = captioners.make("git", tmp_path / "git")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoModelForImageTextToText": "mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(InvalidModel):
        loaded(folder)
    assert not (tmp_path / "ran").exists()
