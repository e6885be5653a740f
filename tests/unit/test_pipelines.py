"""The shipped models, loaded as the host loads them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from crossmodal.errors import BundleNotFound, InvalidBundle, UnknownWords
from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.img2txt import Img2TxtParams
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.models.captioning import BundleCaptioning
from crossmodal.models.contract import Model
from crossmodal.models.drawing import BundleDrawing
from crossmodal.networks.bundle import DATA_FILES, Bundle, open_bundle, seal
from crossmodal.settings import SHIPPED_BUNDLE
from tests.bundles import THINGS, bundle_of_things
from worker.host.pipeline import Described, Drawn, HostRequest, ModelPipeline

PROMPT = "a large red circle on a white background"


@pytest.fixture(autouse=True)
def single_threaded() -> None:
    torch.set_num_threads(1)  # as in the host


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(SHIPPED_BUNDLE)


@pytest.fixture(scope="module")
def txt2img(bundle: Bundle) -> ModelPipeline:
    return loaded(BundleDrawing(), bundle)


@pytest.fixture(scope="module")
def img2txt(bundle: Bundle) -> ModelPipeline:
    return loaded(BundleCaptioning(), bundle)


def loaded(model: Model, bundle: Bundle) -> ModelPipeline:
    model.load(bundle.folder, "cpu")
    return ModelPipeline(model)


def ask(prompt: str, seed: int = 7, **options: float) -> HostRequest:
    return HostRequest(Txt2ImgParams.model_validate({"prompt": prompt, "seed": seed, **options}))


def drawn(pipeline: ModelPipeline, *requests: HostRequest) -> list[NDArray[np.uint8]]:
    outcomes = pipeline.run(requests)
    assert all(isinstance(o, Drawn) for o in outcomes)
    return [o.images for o in outcomes if isinstance(o, Drawn)]


def test_a_red_circle_is_red_on_white(txt2img: ModelPipeline) -> None:
    [images] = drawn(txt2img, ask(PROMPT))
    assert images.shape == (1, 128, 128, 3)
    reddish = (images[0] - np.array([220, 30, 35])).__abs__().max(axis=2) < 50
    assert 0.04 < reddish.mean() < 0.09  # a disc of radius 0.15 covers 0.07
    assert images[0, 0, 0].min() > 230


def test_a_picture_does_not_depend_on_its_batch(txt2img: ModelPipeline) -> None:
    alone = drawn(txt2img, ask(PROMPT))[0]
    others = [
        ask(f"a small blue star {'and a ring ' * i}", seed=i, count=1 + i % 3) for i in range(16)
    ]
    for place in (0, 5, 16):
        batch = [*others[:place], ask(PROMPT), *others[place:]]
        assert (drawn(txt2img, *batch)[place] == alone).all()


def test_picture_i_is_drawn_with_seed_plus_i(txt2img: ModelPipeline) -> None:
    [four] = drawn(txt2img, ask(PROMPT, seed=10, count=4))
    [third] = drawn(txt2img, ask(PROMPT, seed=12))
    assert (four[2] == third[0]).all()


def test_other_seeds_give_other_pictures(txt2img: ModelPipeline) -> None:
    a, b = drawn(txt2img, ask("a red circle", seed=1), ask("a red circle", seed=2))
    assert (a != b).any()


def test_at_temperature_zero_the_seed_does_not_matter(txt2img: ModelPipeline) -> None:
    a, b = drawn(txt2img, ask(PROMPT, 1, temperature=0), ask(PROMPT, 2, temperature=0))
    assert (a == b).all()


def test_unknown_words_are_listed_and_told_once_and_the_rest_is_drawn(
    txt2img: ModelPipeline,
) -> None:
    [outcome] = txt2img.run([ask("a lrage red circle, zorgish; and Zorgish frobs", count=3)])
    assert isinstance(outcome, Drawn)
    assert outcome.unknown_words == ("lrage", "zorgish", "frobs")
    assert outcome.suggestions == {"lrage": "large"}
    assert outcome.warnings == (
        "the model does not know the words 'lrage' (did you mean 'large'?), 'zorgish' and 'frobs': "
        "they were ignored",
    )
    [plain] = txt2img.run([ask("a red circle")])
    assert isinstance(plain, Drawn)
    assert plain.warnings == ()


NO_OBJECTS = [
    "zorg frob",
    "!!! ???",
    "日本語",
    "a red car on a road",
    "a photo of a dog",
    "portrait of my cat",
    "a cat and a dog on a white background",
]


@pytest.mark.parametrize("prompt", NO_OBJECTS)
def test_a_prompt_without_a_known_object_fails_alone(txt2img: ModelPipeline, prompt: str) -> None:
    good, bad, also = txt2img.run([ask(PROMPT), ask(prompt), ask(PROMPT)])
    assert isinstance(good, Drawn)
    assert isinstance(also, Drawn)
    assert isinstance(bad, UnknownWords)


def test_a_bundle_that_names_its_things_draws_these_alone(tmp_path: Path) -> None:
    pipeline = loaded(BundleDrawing(), bundle_of_things(tmp_path))
    drawing, ring, *others = pipeline.run(
        [ask("a red star"), ask("a red ring"), *map(ask, NO_OBJECTS)]
    )
    assert isinstance(drawing, Drawn)
    assert all(isinstance(one, UnknownWords) for one in (ring, *others))
    assert "The model can draw circle, square, triangle, star: " in str(ring)
    words = pipeline.model.vocabulary
    assert words is not None
    assert words.objects == THINGS
    assert "ring" in words.words
    assert pipeline.warmup().run_s > 0


def test_a_bundle_that_does_not_name_its_things_is_served(tmp_path: Path) -> None:
    pipeline = loaded(BundleDrawing(), bundle_of_things(tmp_path, ()))
    [outcome, nothing] = pipeline.run([ask("a red ring"), ask("a red background")])
    assert isinstance(outcome, Drawn)
    assert isinstance(nothing, UnknownWords)
    assert pipeline.warmup().run_s > 0


def test_what_is_cut_of_the_longest_prompt_is_told(txt2img: ModelPipeline) -> None:
    [outcome] = txt2img.run([ask(("red circle " * 91)[:1000])])
    assert isinstance(outcome, Drawn)
    [said] = outcome.warnings
    assert said.startswith("the prompt has 182 known words, of which the model reads 64: it does")


def caption(beam: int = 4, count: int = 1, seed: int = 0) -> HostRequest:
    image = np.full((96, 96, 3), 128, np.uint8)
    image[30:60, 30:60] = np.random.default_rng(seed).integers(0, 255, 3)
    return HostRequest(Img2TxtParams(image=BlobRef(key="k"), beam_width=beam, count=count), image)


def test_captions_come_best_first(img2txt: ModelPipeline) -> None:
    [outcome] = img2txt.run([caption(beam=5, count=5)])
    assert isinstance(outcome, Described)
    scores = [c.log_probability for c in outcome.captions]
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    assert len({c.text for c in outcome.captions}) == 5


def test_a_caption_does_not_depend_on_its_batch(img2txt: ModelPipeline) -> None:
    requests = [caption(beam=1 + i % 4, seed=i) for i in range(8)]
    together = img2txt.run(requests)
    for request, outcome in zip(requests, together, strict=True):
        [alone] = img2txt.run([request])
        assert isinstance(alone, Described)
        assert isinstance(outcome, Described)
        assert [c.text for c in alone.captions] == [c.text for c in outcome.captions]


def test_what_is_drawn_is_described(txt2img: ModelPipeline, img2txt: ModelPipeline) -> None:
    from crossmodal.vision.preprocess import fit_square

    [images] = drawn(txt2img, ask("a big red circle in the center on a white background"))
    image = fit_square(images[0], img2txt.model.side or 0)
    [outcome] = img2txt.run([HostRequest(Img2TxtParams(image=BlobRef(key="k")), image)])
    assert isinstance(outcome, Described)
    assert outcome.captions[0].text == "a big red circle in the center on a white background"


def test_a_missing_bundle_is_said_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound, match="CROSSMODAL_BUNDLE"):
        open_bundle(tmp_path / "none")


@pytest.fixture
def copy(tmp_path: Path, bundle: Bundle) -> Path:
    for name in (*DATA_FILES, "bundle.json"):
        (tmp_path / name).write_bytes(bundle.path(name).read_bytes())
    return tmp_path


@pytest.mark.parametrize("name", DATA_FILES)
def test_a_changed_byte_is_noticed(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(InvalidBundle, match=f"{name} has the digest"):
        open_bundle(copy)


@pytest.mark.parametrize("name", DATA_FILES)
def test_a_missing_file_is_noticed(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(InvalidBundle, match=name):
        open_bundle(copy)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 99, "name": "x", "files": {}}'])
def test_a_broken_manifest_is_noticed(copy: Path, text: str) -> None:
    (copy / "bundle.json").write_text(text)
    with pytest.raises(InvalidBundle):
        open_bundle(copy)


def test_weights_that_do_not_fit_their_config_are_noticed(copy: Path) -> None:
    config = (copy / "txt2img.json").read_text()
    (copy / "txt2img.json").write_text(config.replace('"layers": 4', '"layers": 5'))
    seal(copy, "scenes", "scenes", {}, {})
    with pytest.raises(InvalidBundle, match=r"does not fit txt2img\.json"):
        BundleDrawing().load(copy, "cpu")


def test_the_version_is_that_of_the_bytes(copy: Path, bundle: Bundle) -> None:
    assert open_bundle(copy).version == bundle.version
    (copy / "words.bin").write_bytes((copy / "words.bin").read_bytes() + b"\n")
    assert seal(copy, "scenes", "scenes", {}, {}).version != bundle.version
