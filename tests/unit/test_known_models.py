"""What workers tell of models, and what whoever submits makes of it."""

from collections.abc import Iterator
from typing import Any

import pytest

from crossmodal.errors import InvalidParams, ModelBroken, ModelNotFound
from crossmodal.jobs.models import KnownModels, Models
from crossmodal.jobs.record import Failure, ModelInfo, ModelState, ServedKind, WorkerInfo
from crossmodal.jobs.runners import Runner
from crossmodal.jobs.vocabulary import LISTED_WORDS, MAX_WORDS, Vocabulary
from crossmodal.kinds.img2txt import IMG2TXT
from crossmodal.kinds.schema import schema_of
from crossmodal.kinds.task import Task, tasks
from crossmodal.kinds.txt2img import TXT2IMG, Txt2ImgParams
from crossmodal.settings import Settings


def model(name: str, *kinds: str, **known: Any) -> ModelInfo:
    served = dict.fromkeys(kinds or ("txt2img",), ServedKind())
    told = {"name": name, "version": "1", "format": "code", "kinds": served}
    return ModelInfo.model_validate(told | known)


def worker(name: str = "w", **said: Any) -> WorkerInfo:
    return WorkerInfo.model_validate({"name": name, "queues": (), "seen_at": 0.0} | said)


SCENES = model("scenes", "txt2img", "img2txt", default_for=("txt2img", "img2txt"))
TURBO = model("turbo", aliases=("dall-e-3",))
KNOWN = KnownModels([SCENES, TURBO])


@pytest.fixture
def runner(settings: Settings) -> Iterator[Runner]:
    with Runner(settings) as runner:
        yield runner


def test_what_was_told_outlives_who_told_it(settings: Settings, runner: Runner) -> None:
    runner.run(Models(settings).announce([SCENES, TURBO]))
    known = runner.run(Models(settings).known())
    assert list(known) == ["scenes", "turbo"]
    assert known["turbo"].aliases == ("dall-e-3",)
    assert known.state("turbo") is ModelState.ABSENT
    assert runner.run(Models(settings).forget("turbo"))
    assert not runner.run(Models(settings).forget("turbo"))
    assert list(runner.run(Models(settings).known())) == ["scenes"]


WORDS = Vocabulary.of(["dogs", "dog", "cat"], ["a", "dog", "dogs", "cat", *map(str, range(9_000))])


def test_a_list_of_models_has_few_words_and_one_model_has_all(
    settings: Settings, runner: Runner
) -> None:
    models = Models(settings)
    loaded = model("turbo", load_s=9.0, vocabulary=WORDS)
    runner.run(models.announce([loaded, SCENES]))
    listed = runner.run(models.known())
    few = listed["turbo"].vocabulary
    assert few is not None
    assert (few.count, few.objects) == (9_004, ("dog", "cat", "dogs"))
    assert few.words == ("a", *map(str, range(LISTED_WORDS - 4)))
    assert runner.run(models.with_words(listed["turbo"])).vocabulary == WORDS
    assert runner.run(models.with_words(listed["scenes"])).vocabulary is None


def test_the_words_stay_known_while_the_model_is_not_loaded_but_not_those_of_another_version(
    settings: Settings, runner: Runner
) -> None:
    models = Models(settings)
    runner.run(models.announce([model("turbo", load_s=9.0, vocabulary=WORDS)]))
    runner.run(models.announce([TURBO]))
    known = runner.run(models.known(max_age_s=0))["turbo"]
    assert runner.run(models.with_words(known)).vocabulary == WORDS
    few = known.vocabulary
    other = model("turbo", version="2", vocabulary=few)
    assert runner.run(models.with_words(other)).vocabulary == few
    runner.run(models.forget("turbo"))
    assert runner.run(models.with_words(known)).vocabulary == few


def test_no_more_words_are_told_than_anybody_reads() -> None:
    many = Vocabulary.of(["w7"], [f"w{i}" for i in range(MAX_WORDS + 9)])
    assert (many.count, len(many.objects) + len(many.words)) == (MAX_WORDS + 9, MAX_WORDS)
    assert not many.is_whole
    assert WORDS.is_whole


def test_what_was_measured_stays_known_while_the_model_is_not_loaded(
    settings: Settings, runner: Runner
) -> None:
    served = ServedKind(params=schema_of(Txt2ImgParams), run_s=3.0)
    kinds = {"kinds": {"txt2img": served}}
    loaded = model("turbo", load_s=9.0, peak_bytes=5).model_copy(update=kinds)
    models = Models(settings)
    runner.run(models.announce([loaded]))
    runner.run(models.announce([TURBO]))
    known = runner.run(models.known(max_age_s=0))["turbo"]
    assert (known.kinds["txt2img"], known.load_s, known.peak_bytes) == (served, 9.0, 5)
    assert known.aliases == ("dall-e-3",)
    runner.run(models.announce([TURBO.model_copy(update={"version": "2"})]))
    assert runner.run(models.known(max_age_s=0))["turbo"].load_s is None


def test_what_is_known_is_asked_for_again_after_a_while(settings: Settings, runner: Runner) -> None:
    models = Models(settings)
    assert list(runner.run(models.known())) == []
    runner.run(Models(settings).announce([TURBO]))
    assert list(runner.run(models.known(max_age_s=3_600))) == []
    assert list(runner.run(models.known(max_age_s=0))) == ["turbo"]


@pytest.mark.parametrize("name", ["turbo", "dall-e-3"])
def test_a_model_is_found_by_its_name_and_by_its_aliases(name: str) -> None:
    params = KNOWN.build(TXT2IMG, {"prompt": "a", "model": name})
    assert params.model == "turbo"
    assert str(KNOWN.queue(Task("txt2img"), {"model": name})) == "txt2img.turbo"


def test_jobs_of_the_default_model_wait_in_its_queue_whether_or_not_they_name_it() -> None:
    for raw in ({}, {"model": None}, {"model": "scenes"}):
        assert str(KNOWN.queue(Task("txt2img.bulk"), raw)) == "txt2img.bulk"


def test_jobs_may_wait_in_the_queues_of_all_models_and_in_those_without_a_name() -> None:
    own = ["txt2img.scenes", "img2txt.scenes", "txt2img.scenes.bulk", "img2txt.scenes.bulk"]
    turbo = ["txt2img.turbo", "txt2img.turbo.bulk"]
    assert {str(queue) for queue in KNOWN.queues} == {*map(str, tasks()), *own, *turbo}
    assert [name for name in map(str, KNOWN.queues) if KNOWN.is_unusual(name)] == own


def test_what_was_the_default_model_has_a_queue_of_its_own() -> None:
    newer = model("newer", default_for=("txt2img",), noted_at=9.0)
    known = KnownModels([newer, SCENES])
    assert str(known.queue(Task("txt2img"), {"model": "scenes"})) == "txt2img.scenes"
    assert str(known.queue(Task("txt2img"), {"model": "newer"})) == "txt2img"
    assert str(known.queue(Task("img2txt"), {"model": "scenes"})) == "img2txt"


def test_of_two_models_with_one_alias_the_first_has_it() -> None:
    known = KnownModels([model("a", aliases=("x",)), model("b", aliases=("x",))])
    assert known.named(TXT2IMG, "x").name == "a"


def test_a_name_that_no_model_of_the_kind_has_is_refused_with_the_nearest() -> None:
    with pytest.raises(ModelNotFound, match="'tubro': did you mean 'turbo'"):
        KNOWN.build(TXT2IMG, {"prompt": "a", "model": "tubro"})
    with pytest.raises(
        ModelNotFound, match="no model of img2txt is called 'turbo': known models: scen"
    ):
        KNOWN.named(IMG2TXT, "turbo")
    with pytest.raises(InvalidParams, match=r"model is 5 \(int\)"):
        KNOWN.build(TXT2IMG, {"prompt": "a", "model": 5})


def test_params_of_a_model_that_was_never_loaded_are_not_known_yet() -> None:
    params = KNOWN.build(TXT2IMG, {"prompt": "a", "model": "turbo", "steps": 4})
    assert params.model_dump()["steps"] == 4
    KNOWN.check_fields(TXT2IMG, {"model": "turbo", "steps": 4}, "body")


def test_where_no_default_is_known_only_the_kinds_own_params_are() -> None:
    with pytest.raises(InvalidParams, match="unknown field 'steps'"):
        KnownModels().build(TXT2IMG, {"prompt": "a", "steps": 4})
    assert KnownModels().build(TXT2IMG, {"prompt": "a"}) == Txt2ImgParams(prompt="a")


def test_params_are_checked_by_what_the_model_has_told() -> None:
    told = ServedKind(params=schema_of(Txt2ImgParams))
    known = KnownModels([SCENES.model_copy(update={"kinds": {"txt2img": told}})])
    with pytest.raises(InvalidParams, match="body: unknown field 'steps'"):
        known.build(TXT2IMG, {"prompt": "a", "steps": 4}, "body")
    with pytest.raises(InvalidParams, match="body: unknown field 'sede': did you mean 'seed'"):
        known.check_fields(TXT2IMG, {"prompt": "a", "sede": 4}, "body")


@pytest.mark.parametrize(
    ("said", "state", "waits_for"),
    [
        ({"queues": ("txt2img.turbo",), "models": ("turbo",)}, ModelState.LOADED, None),
        ({"loading": ("turbo",)}, ModelState.LOADING, "loading turbo"),
        ({"unloaded": ("turbo",)}, ModelState.UNLOADED, "a device for turbo"),
        ({}, ModelState.ABSENT, "a worker"),
    ],
)
def test_what_a_job_waits_for_is_told(
    said: dict[str, Any], state: ModelState, waits_for: str | None
) -> None:
    known = KnownModels([SCENES, TURBO], [worker(**said)])
    assert (known.state("turbo"), known.waits_for("txt2img.turbo")) == (state, waits_for)


def test_a_model_is_broken_where_no_other_worker_has_it() -> None:
    failed = worker(failures={"turbo": Failure(code="model_invalid", message="no weights")})
    known = KnownModels([TURBO], [failed])
    assert known.state("turbo") is ModelState.BROKEN
    with pytest.raises(ModelBroken, match="turbo cannot be loaded: no weights"):
        known.build(TXT2IMG, {"prompt": "a", "model": "turbo"})
    for where in ("models", "loading", "unloaded"):
        other = worker("other", **{where: ("turbo",)})
        assert KnownModels([TURBO], [failed, other]).build(
            TXT2IMG, {"prompt": "a", "model": "turbo"}
        )
