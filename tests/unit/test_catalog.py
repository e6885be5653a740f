"""What a folder says it holds, and a class of somebody's own in it."""

import json
from pathlib import Path
from typing import Any

import pytest

from crossmodal.errors import BundleNotFound, InvalidModel, InvalidParams
from crossmodal.models.catalog import ModelFolder, open_folder
from crossmodal.models.loading import models_of
from crossmodal.settings import SHIPPED_BUNDLE
from tests.bundles import bundle_of_things
from tests.commands import run_command
from worker.host.pipeline import Drawn, HostRequest, ModelPipeline


def folder_of(root: Path, *names: str) -> Path:
    """A folder with files of these names, in which there is nothing."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}")
    return root


def loaded(folder: Path, **allowed: Any) -> ModelPipeline:
    [model] = models_of(open_folder(folder, **allowed))
    pipeline = ModelPipeline(model)
    pipeline.load(folder, "cpu")
    return pipeline


def test_the_words_of_a_bundle_are_listed_by_its_files_alone(tmp_path: Path) -> None:
    bundle_of_things(tmp_path / "scenes", ["star", "circle"])
    done = run_command({}, "models", "show", str(tmp_path / "scenes"))
    [objects] = [line for line in done.stdout.splitlines() if line.startswith("objects")]
    assert objects.split(maxsplit=1)[1].strip() == "star, circle"
    told = json.loads(run_command({}, "models", "show", str(tmp_path / "scenes"), "--json").stdout)
    assert told["vocabulary"]["objects"] == ["star", "circle"]
    assert "red" in told["vocabulary"]["words"]
    folder = folder_of(tmp_path / "other", "config.json", "w.safetensors")
    (folder / "config.json").write_text("{}")
    told = json.loads(run_command({}, "models", "show", str(folder), "--json").stdout)
    assert told["vocabulary"] is None


@pytest.mark.parametrize(
    ("files", "form", "kinds"),
    [
        (("model_index.json", "unet/w.safetensors"), "diffusers", ("txt2img",)),
        (("config.json", "model.safetensors"), "transformers", ("img2txt",)),
        (("model_index.json", "config.json", "w.safetensors"), "diffusers", ("txt2img",)),
    ],
)
def test_a_folder_is_what_its_files_say(
    tmp_path: Path, files: tuple[str, ...], form: str, kinds: tuple[str, ...]
) -> None:
    found = open_folder(folder_of(tmp_path / "turbo", *files))
    assert (found.name, found.format, found.kinds) == ("turbo", form, kinds)


def test_the_bundle_that_ships_serves_both_kinds() -> None:
    assert open_folder(SHIPPED_BUNDLE).kinds == ("txt2img", "img2txt")


def test_weights_in_a_pickle_are_never_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "config.json", "pytorch_model.bin")
    with pytest.raises(InvalidModel, match=r"only pytorch_model\.bin, a pickle"):
        open_folder(folder)


@pytest.mark.parametrize(
    ("form", "text", "says"),
    [
        (
            "config.json",
            'variant = "fp16"',
            "variant has no effect on a model of format transformers",
        ),
        ("config.json", "max_batch = 0", "max_batch"),
        ("model_index.json", "= 1", "TOML"),
        ("model_index.json", "colour = 1", "colour"),
    ],
)
def test_what_a_folder_says_of_itself_is_checked(
    tmp_path: Path, form: str, text: str, says: str
) -> None:
    folder = folder_of(tmp_path, form, "w.safetensors")
    (folder / "crossmodal.toml").write_text(text)
    with pytest.raises(InvalidModel, match=says):
        open_folder(folder)


def test_a_folder_of_nothing_is_said_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound, match=r"none of bundle\.json, model_index\.json"):
        open_folder(tmp_path)


OWN = """
import numpy as np

from crossmodal.models.contract import Batch, Model

open({touched!r}, "w").close()


class Stripes(Model):
    kind = "txt2img"

    def load(self, folder, device):
        self.side = 8

    def run(self, batch: Batch):
        batch.step(1, 1)
        return [np.full((8, 8, 3), request.seed, np.uint8) for request in batch]
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "stripes"
    folder.mkdir()
    (folder / "model.py").write_text(OWN.format(touched=str(tmp_path / "ran")))
    return folder


def test_a_users_class_is_served_where_its_name_is_allowed(own: Path) -> None:
    pipeline = loaded(own, allowed=["stripes"])
    [drawn] = pipeline.run([HostRequest(pipeline.model.Params(prompt="a", seed=9, count=2))])  # type: ignore[call-arg]
    assert isinstance(drawn, Drawn)
    assert drawn.images[:, 0, 0, 0].tolist() == [9, 10]


def test_a_users_class_is_not_run_elsewhere(own: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="CROSSMODAL_ALLOW_MODEL_CODE=others,stripes"):
        open_folder(own, ["others"])
    assert open_folder(own, ["stripes"]).kinds == ("txt2img",)
    assert not (tmp_path / "ran").exists()


BARE = """
from crossmodal.models.contract import Model


class A(Model):
    kind = "txt2img"
    def load(self, folder, device): ...
    def run(self, batch): ...
"""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def", "cannot be read as Python"),
        ("class A: pass", "no class with a line such as kind"),
        (
            'class A:\n    kind = "txt2vid"',
            "A has the kind 'txt2vid'; known kinds are txt2img, img2txt",
        ),
        ('class A:\n    kind: str = "txt2img"', "A has the kind 'txt2img', but is not a subclass"),
        (
            'class A:\n    kind = "txt2img"\nclass B:\n    kind = "txt2img"',
            "A and B serve the same",
        ),
        (BARE + "    max_batch = 0", "max_batch is 0: it must be a whole number"),
        (BARE + '    shared = ("stepz",)', "shared names 'stepz'"),
        ('import nothing_of_that_name\nclass A:\n    kind = "txt2img"', "ModuleNotFoundError"),
    ],
)
def test_what_is_wrong_with_a_users_class_is_said(tmp_path: Path, text: str, says: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.py").write_text(text)

    def served() -> ModelFolder:
        found = open_folder(folder, ["mine"])
        models_of(found)
        return found

    with pytest.raises(InvalidModel, match=says):
        served()


def test_a_users_class_may_import_what_lies_beside_it(own: Path) -> None:
    (own / "palette_of_stripes.py").write_text("LEVEL = 7")
    text = (own / "model.py").read_text()
    text = text.replace("request.seed, np", "LEVEL, np")
    (own / "model.py").write_text("from palette_of_stripes import LEVEL\n" + text)
    pipeline = loaded(own, allowed=["stripes"])
    [drawn] = pipeline.run([HostRequest(pipeline.model.Params(prompt="a"))])  # type: ignore[call-arg]
    assert isinstance(drawn, Drawn)
    assert drawn.images.max() == 7


def test_where_a_users_class_fails_is_said(own: Path) -> None:
    text = (own / "model.py").read_text().replace("self.side = 8", "self.side = 1 / 0")
    (own / "model.py").write_text(text)
    with pytest.raises(
        InvalidModel, match=r"ZeroDivisionError: division by zero \(model\.py, line 13"
    ):
        loaded(own, allowed=["stripes"])


def test_a_folder_that_is_not_there_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound, match="there is no such folder"):
        open_folder(tmp_path / "none")


def test_a_users_class_may_have_params_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.py").write_text("""
import numpy as np
from pydantic import Field

from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.models.contract import Model


class OwnParams(Txt2ImgParams):
    width: int = Field(default=64, ge=8, le=512, multiple_of=8)


class Own(Model):
    kind = "txt2img"
    Params = OwnParams

    def load(self, folder, device): ...

    def run(self, batch):
        return [np.zeros((8, request.params.width, 3), np.uint8) for request in batch]
""")
    pipeline = loaded(folder, allowed=["mine"])
    params = pipeline.params(pipeline.kind, {"prompt": "a", "width": 16})
    [drawn] = pipeline.run([HostRequest(params)])
    assert isinstance(drawn, Drawn)
    assert drawn.images.shape == (1, 8, 16, 3)
    for wrong, says in (({"width": 9}, "multiple of 8"), ({"wide": 8}, "unknown field 'wide'")):
        with pytest.raises(InvalidParams, match=says):
            pipeline.params(pipeline.kind, {"prompt": "a", **wrong})
