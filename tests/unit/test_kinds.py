"""What a kind must be, and what follows from its schema."""

import copy
import json
import pickle
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from crossmodal.cli import commands
from crossmodal.errors import InvalidSetting
from crossmodal.kinds import registry
from crossmodal.kinds.base import ItemParams, Kind
from crossmodal.kinds.fields import BlobRef, Metadata
from crossmodal.kinds.img2txt import IMG2TXT
from crossmodal.kinds.registry import kind_of, kinds
from crossmodal.kinds.task import Task, tasks
from crossmodal.kinds.txt2img import TXT2IMG
from tests.commands import run_command


class Counted(ItemParams):
    """Of a kind that takes nothing."""

    count: int = 1
    metadata: Metadata = None


class Uncounted(ItemParams):
    """Without what every kind has."""

    prompt: str


class TwoPictures(Counted):
    """With one picture too many."""

    image: BlobRef
    mask: BlobRef


class Optional(Counted):
    """With a picture that may be lacking."""

    image: BlobRef | None = None


class Taken(Counted):
    """With a name that means something else."""

    out: str


SAME_PARAMS = Kind("facts", IMG2TXT.params, "captions", "Facts", {})
CELERY = Kind("celery", Counted, "captions", "What Celery's own queue is called", {})


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (Uncounted, "have no"),
        (TwoPictures, "more than one picture"),
        (Taken, "use reserved names: out"),
        (Optional, "picture of .* is optional"),
    ],
)
def test_a_kind_that_could_not_be_served_cannot_be_made(
    params: type[ItemParams], says: str
) -> None:
    with pytest.raises(TypeError, match=says):
        Kind("odd", params, "images", "Nothing", {})


def test_pictures_and_seeds_are_known_by_the_schema() -> None:
    assert (TXT2IMG.picture, TXT2IMG.is_seeded) == (None, True)
    assert (IMG2TXT.picture, IMG2TXT.is_seeded) == ("image", False)
    params = IMG2TXT.build({"image": {"key": "inputs/a"}})
    assert IMG2TXT.image_of(params) == BlobRef(key="inputs/a")
    assert kind_of(params) is IMG2TXT


def test_what_many_kinds_have_is_shown_last() -> None:
    assert [*TXT2IMG.fields] == [
        "prompt",
        "count",
        "seed",
        "temperature",
        "metadata",
        "model",
        "format",
        "quality",
        "embed_metadata",
    ]
    assert [*IMG2TXT.fields][-1] == "model"


@pytest.mark.parametrize(
    "value",
    [
        "json:dumps",
        "crossmodal.kinds.txt2img:TXT2IMG",
        "crossmodal.kinds.txt2img:Txt2ImgParams",
        "nothing_of_that_name:KIND",
        f"{__name__}:SAME_PARAMS",
        f"{__name__}:CELERY",
    ],
)
def test_an_entry_point_that_brings_no_new_kind_is_named(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = EntryPoint("mine", value, registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    with pytest.raises(InvalidSetting, match=f"entry point mine = {value} of crossmodal.kinds"):
        kinds.__wrapped__()


def test_commands_name_an_entry_point_that_cannot_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\nbroken = nowhere:KIND\n")
    monkeypatch.syspath_prepend(tmp_path)
    for cached in (kinds, commands):
        cached.cache_clear()
    try:
        done = run_command({}, "doctor", "--json")
    finally:
        monkeypatch.undo()
        for cached in (kinds, commands):
            cached.cache_clear()
    told = json.loads(done.stderr)
    assert (done.returncode, told["code"]) == (2, "invalid_setting")
    assert "the entry point broken = nowhere:KIND" in told["message"]


def test_a_task_is_one_object_and_a_text() -> None:
    assert [*tasks()] == ["txt2img", "img2txt", "txt2img.bulk", "img2txt.bulk"]
    bulk = Task("txt2img.bulk")
    assert bulk is TypeAdapter(Task).validate_python("txt2img.bulk")
    assert bulk is pickle.loads(pickle.dumps(bulk))
    assert bulk is copy.deepcopy(bulk)
    assert (bulk.of_items, bulk.of_items.in_bulk, bulk.is_bulk) == ("txt2img", bulk, True)
    assert TypeAdapter(Task).dump_json(bulk) == b'"txt2img.bulk"'
    with pytest.raises(
        ValueError, match="there is no task 'txt2vid'; known tasks are txt2img, img2txt"
    ):
        Task("txt2vid")


def test_no_kind_can_have_the_name_of_a_command() -> None:
    assert set(commands()) - set(kinds()) - {"redis-acl"} <= registry.TAKEN
