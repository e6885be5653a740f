"""The folders that workers serve: the default one, and those beside it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossmodal.errors import BundleNotFound, InvalidModel, InvalidSetting
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.models.catalog import Served, open_folder, open_served
from crossmodal.models.loading import models_of
from crossmodal.settings import load_settings
from worker.cli import chosen
from worker.crews import crews_of, queues_of, served_queues
from worker.devices import Device
from worker.host.pipeline import Drawn, HostRequest, ModelPipeline
from worker.supervisor import served_models

PACKAGED = """
import numpy as np

from brought.level import LEVEL
from crossmodal.models.contract import Model


class Other(Model):
    kind = "img2txt"

    def load(self, folder, device): ...

    def run(self, batch): ...


class Stripes(Model):
    kind = "txt2img"

    def load(self, folder, device): ...

    def run(self, batch):
        return [np.full((8, 8, 3), LEVEL, np.uint8) for _ in batch]
"""
CLASS = 'class A:\n    kind = "{kind}"\n'


def make(root: Path, name: str, kind: str = "txt2img", toml: str = "") -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(CLASS.format(kind=kind))
    (folder / "crossmodal.toml").write_text(toml)
    return folder


def served(
    models: Path | None = None, bundle: Path | None = None, allowed: str = "a,b,c"
) -> Served:
    return open_served(load_settings(models=models, bundle=bundle, allow_model_code=allowed))


def test_the_default_one_comes_first_and_the_others_by_their_names(tmp_path: Path) -> None:
    make(tmp_path, "b")
    make(tmp_path, "a")
    found = served(tmp_path)
    assert [folder.name for folder in found.folders] == ["scenes", "a", "b"]
    assert (found.default, found.faults) == ("scenes", {})


def test_a_folder_that_is_the_default_one_is_served_once(tmp_path: Path) -> None:
    folder = make(tmp_path, "a")
    found = served(tmp_path, folder)
    assert ([one.name for one in found.folders], found.default) == (["a"], "a")


def test_a_folder_that_cannot_be_served_keeps_nobody_from_it(tmp_path: Path) -> None:
    make(tmp_path, "a")
    make(tmp_path, "not-allowed")
    (tmp_path / "empty").mkdir()
    (tmp_path / ".part").mkdir()
    (tmp_path / "a file").touch()
    found = served(tmp_path)
    assert [folder.name for folder in found.folders] == ["scenes", "a"]
    assert sorted(found.faults) == ["empty", "not-allowed"]
    with pytest.raises(InvalidModel, match="CROSSMODAL_ALLOW_MODEL_CODE"):
        found.only(["not-allowed"])


@pytest.mark.parametrize("name", ["a b", "x.bulk", "ä"])
def test_a_name_that_no_queue_can_have_is_refused(tmp_path: Path, name: str) -> None:
    make(tmp_path, name)
    [fault] = served(tmp_path, allowed=name).faults.values()
    assert "rename the folder, using 1 to 64 letters" in str(fault)


def test_two_models_of_one_name_are_not_both_served(tmp_path: Path) -> None:
    first, second = make(tmp_path / "x", "a"), make(tmp_path / "y", "a")
    found = served(tmp_path / "y", first)
    assert [folder.folder for folder in found.folders] == [first.resolve()]
    assert f"{second.resolve()} and {first.resolve()} have the same name, a" in str(
        found.faults["a"]
    )


def test_a_folder_of_models_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"CROSSMODAL_MODELS=.* cannot be read"):
        served(tmp_path / "nowhere")


def test_some_models_may_be_chosen(tmp_path: Path) -> None:
    make(tmp_path, "a")
    make(tmp_path, "b")
    chosen = served(tmp_path).only(["b"])
    assert ([folder.name for folder in chosen.folders], chosen.default) == (["b"], "scenes")
    with pytest.raises(
        InvalidSetting, match="--models x: there is no model 'x'; known ones are scenes, a, b"
    ):
        served(tmp_path).only(["x"])


def test_what_a_folder_says_of_itself_is_known(tmp_path: Path) -> None:
    toml = 'aliases = ["gpt-image-1"]\npinned = true\ndescription = "quick"\n'
    make(tmp_path, "a", toml=toml)
    config = served(tmp_path).folders[1].config
    assert (config.aliases, config.pinned, config.description) == (("gpt-image-1",), True, "quick")
    make(tmp_path, "b", toml='aliases = ["a b"]')
    assert "aliases.0: 'a b' is not a valid model name" in str(served(tmp_path).faults["b"])


def test_the_default_model_also_serves_queues_without_a_name(tmp_path: Path) -> None:
    make(tmp_path, "a", "img2txt")
    found = served(tmp_path)
    scenes, a = found.folders
    own = ["txt2img.scenes", "img2txt.scenes", "txt2img.scenes.bulk", "img2txt.scenes.bulk"]
    unnamed = ["txt2img", "img2txt", "txt2img.bulk", "img2txt.bulk"]
    assert queues_of(scenes, found) == [*unnamed, *own]
    assert queues_of(a, found) == ["img2txt.a", "img2txt.a.bulk"]
    assert queues_of(a, found.only(["a"])) == ["img2txt.a", "img2txt.a.bulk"]


def test_queues_are_chosen_by_name_or_by_kind(tmp_path: Path) -> None:
    make(tmp_path, "a", "img2txt")
    found = served(tmp_path)
    assert served_queues(found, "img2txt") == ["img2txt", "img2txt.scenes", "img2txt.a"]
    both = ["txt2img", "txt2img.scenes", "img2txt.a.bulk"]
    assert served_queues(found, "img2txt.a.bulk, txt2img") == both
    with pytest.raises(
        InvalidSetting, match=r"do not serve txt2img\.a: choose from txt2img, img2txt"
    ):
        served_queues(found, "txt2img.a")


def test_a_model_of_no_chosen_queue_is_not_loaded(tmp_path: Path) -> None:
    make(tmp_path, "a", "img2txt")
    found = served(tmp_path)
    chosen = served_queues(found, "txt2img")
    assert [m.name for m in served_models(found, chosen, tmp_path, Device("cpu"))] == ["scenes"]


def test_plain_messages_are_for_who_has_a_default_model_of_all_kinds(tmp_path: Path) -> None:
    make(tmp_path, "a", "img2txt")
    settings, found = load_settings(), served(tmp_path)
    assert "celery" in crews_of(settings, "cpu", found)[0].queues
    assert "celery" not in crews_of(settings, "cpu", found.only(["a"]))[0].queues


@pytest.mark.parametrize("names", [",", " ", ""])
def test_a_choice_of_no_model_is_refused(names: str) -> None:
    with pytest.raises(InvalidSetting, match="name at least one"):
        chosen(load_settings(), names)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package that brings a model, which imports what lies beside it."""
    site = tmp_path / "site"
    (site / "brought").mkdir(parents=True)
    (site / "brought" / "__init__.py").touch()
    (site / "brought" / "level.py").write_text("LEVEL = 7")
    (site / "brought" / "own.py").write_text(PACKAGED)
    info = site / "brought-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(
        "[crossmodal.models]\nstripes = brought.own:Stripes\ngone = nowhere.own:Stripes\n"
    )
    monkeypatch.syspath_prepend(site)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "brought"]:
        del sys.modules[name]


@pytest.mark.usefixtures("package")
def test_a_class_that_a_package_brings_is_served_where_its_name_is_allowed() -> None:
    assert [folder.name for folder in served().folders] == ["scenes"]
    _, stripes = served(allowed="stripes").folders
    assert (stripes.name, stripes.version, stripes.kinds) == ("stripes", "1.5", ("txt2img",))
    again = open_folder(stripes.source, ["stripes"])
    assert again == stripes
    [model] = models_of(again)
    pipeline = ModelPipeline(model)
    pipeline.load(again.folder, "cpu")
    [drawn] = pipeline.run([HostRequest(Txt2ImgParams(prompt="a"))])
    assert isinstance(drawn, Drawn)
    assert drawn.images.max() == 7
    with pytest.raises(InvalidModel, match="CROSSMODAL_ALLOW_MODEL_CODE=a,stripes"):
        open_folder(stripes.source, ["a"])


@pytest.mark.usefixtures("package")
def test_a_package_that_cannot_be_found_keeps_nobody_from_being_served() -> None:
    found = served(allowed="stripes,gone")
    assert [folder.name for folder in found.folders] == ["scenes", "stripes"]
    assert "nowhere.own:Stripes" in str(found.faults["gone"])
    with pytest.raises(BundleNotFound, match="no installed package provides a model 'other'"):
        open_folder(Path("entry:other"))


@pytest.mark.usefixtures("package")
def test_a_class_that_a_package_brings_may_be_the_default_one() -> None:
    found = served(bundle=Path("entry:stripes"), allowed="stripes")
    assert ([folder.name for folder in found.folders], found.default) == (["stripes"], "stripes")
