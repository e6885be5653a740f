from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossmodal.errors import InvalidParams, InvalidPrompt
from crossmodal.jobs.names import check_job_id, new_job_id
from crossmodal.jobs.params import fingerprint, fix_seed, parse_params, recorded
from crossmodal.kinds.base import build, build_many
from crossmodal.kinds.fields import MAX_METADATA, MAX_PROMPT, MAX_SEED, clean_prompt
from crossmodal.kinds.schema import class_by, schema_of
from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import TXT2IMG, Txt2ImgParams
from tests.at_once import at_once

IMAGE = {"key": "inputs/ab/abc"}


class Turbo(Txt2ImgParams):
    steps: int = 4
    count: int = 2


def test_a_prompt_is_cleaned() -> None:
    params = build(Txt2ImgParams, {"prompt": "  a\tred\n\x00 circle \ud800 "})
    assert params.prompt == "a red circle"


@at_once("prompt", ["", "   ", "\n\t\x00"])
def test_an_empty_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(InvalidParams, match="prompt is empty"):
        build(Txt2ImgParams, {"prompt": prompt})


def test_an_empty_prompt_has_a_code_of_its_own() -> None:
    with pytest.raises(InvalidPrompt) as caught:
        build(Txt2ImgParams, {"prompt": ""})
    assert caught.value.code == "invalid_prompt"


def test_the_longest_prompt_is_accepted_and_one_more_character_is_not() -> None:
    build(Txt2ImgParams, {"prompt": "x" * MAX_PROMPT})
    with pytest.raises(InvalidPrompt, match=r"1001 characters, 1000 are allowed"):
        build(Txt2ImgParams, {"prompt": "x" * (MAX_PROMPT + 1)})


@at_once(
    "field, value",
    [
        ("count", 0),
        ("count", 17),
        ("count", "3"),
        ("count", 2.5),
        ("count", True),
        ("seed", -1),
        ("seed", MAX_SEED + 1),
        ("seed", "7"),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", float("nan")),
        ("prompt", 7),
        ("prompt", None),
        ("prompt", ["a"]),
        ("metadata", {"x": "y" * MAX_METADATA}),
        ("metadata", {"x": float("nan")}),
    ],
)
def test_a_field_of_a_wrong_type_or_out_of_range_is_named(field: str, value: object) -> None:
    with pytest.raises(InvalidParams, match=field):
        parse_params(Task("txt2img"), {"prompt": "a circle", field: value})


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ("x" * 3_000, "metadata: is 3002 bytes of JSON, 2048 are allowed (got "),
        (float("nan"), "metadata: Out of range float values are not JSON compliant"),
    ],
)
def test_what_a_validator_of_ours_refuses_is_said_in_its_words(metadata: Any, says: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        build(Txt2ImgParams, {"prompt": "a circle", "metadata": metadata})
    assert str(caught.value).startswith(f"invalid params: {says}")


def test_where_a_value_is_nested_deeply_only_the_beginning_is_said() -> None:
    metadata: Any = object()
    for _ in range(900):
        metadata = [metadata]
    with pytest.raises(InvalidParams, match="metadata") as caught:
        build(Txt2ImgParams, {"prompt": "a circle", "metadata": metadata})
    assert len(str(caught.value)) < 600


@at_once(
    "field, value",
    [
        ("image", None),
        ("image", "x.png"),
        ("image", {}),
        ("count", 6),
        ("beam_width", 11),
        ("max_words", 0),
    ],
)
def test_captioning_has_limits_too(field: str, value: object) -> None:
    with pytest.raises(InvalidParams, match=field):
        parse_params(Task("img2txt"), {"image": IMAGE, field: value})


def test_fields_of_a_newer_version_are_tolerated() -> None:
    parse_params(Task("txt2img"), {"prompt": "a circle", "style": "etching"})


@given(st.text(max_size=200))
def test_cleaning_twice_changes_nothing(text: str) -> None:
    assert clean_prompt(clean_prompt(text)) == clean_prompt(text)


@given(st.text(max_size=200))
def test_a_cleaned_prompt_can_be_sent(text: str) -> None:
    clean_prompt(text).encode()


def test_the_seed_is_fixed_once() -> None:
    params = build(Txt2ImgParams, {"prompt": "a circle"})
    fixed = fix_seed(params)
    assert isinstance(fixed, Txt2ImgParams)
    assert fixed.seed is not None
    assert fix_seed(fixed) == fixed


def test_requests_are_equal_whatever_seed_was_fixed_for_them() -> None:
    a = build(Txt2ImgParams, {"prompt": "a circle"})
    b = build(Txt2ImgParams, {"prompt": " a  circle"})
    c = build(Txt2ImgParams, {"prompt": "a circle", "seed": 1})
    assert fingerprint(Task("txt2img"), a) == fingerprint(Task("txt2img"), b)
    assert fingerprint(Task("txt2img"), a) != fingerprint(Task("txt2img"), c)


def test_a_record_has_of_a_models_own_params_those_that_were_given() -> None:
    turbo = class_by(TXT2IMG, schema_of(Turbo))
    given = recorded(build(turbo, {"prompt": "a circle", "steps": 4}))
    assert given == recorded(build(turbo, {"prompt": "a circle"})) | {"steps": 4}
    assert given["count"] == 2


def test_requests_are_equal_whatever_a_model_has_by_default() -> None:
    """A model's schema may change between two submissions that share a key."""
    turbo = class_by(TXT2IMG, schema_of(Turbo))
    before = build(Txt2ImgParams, {"prompt": "a circle"})
    after = build(turbo, {"prompt": "a circle"})
    other = build(turbo, {"prompt": "a circle", "steps": 4})
    task = Task("txt2img")
    assert fingerprint(task, before) == fingerprint(task, after) != fingerprint(task, other)


def test_job_ids_are_uuids_of_version_7_in_the_order_they_were_made() -> None:
    import uuid

    ids = [uuid.UUID(new_job_id()) for _ in range(100)]
    assert {i.version for i in ids} == {7}
    assert len(set(ids)) == 100
    assert [i.int >> 80 for i in ids] == sorted(i.int >> 80 for i in ids)


@at_once("job_id", ["", "../x", "a/b", "a b", "-a", "x" * 129, "a\n"])
def test_an_id_that_could_escape_its_key_is_refused(job_id: str) -> None:
    with pytest.raises(InvalidParams):
        check_job_id(job_id)


@at_once(
    "task, raw",
    [
        (Task("txt2img.bulk"), {"prompt": " a red  circle", "seed": 1}),
        (Task("img2txt"), {"image": IMAGE}),
    ],
)
def test_many_params_are_parsed_as_one(task: Task, raw: dict[str, object]) -> None:
    assert build_many(task.kind.params, [raw, raw]) == [task.kind.build(raw)] * 2


@at_once("wrong", [{"prompt": ""}, {"prompt": 1}, {}, "a red circle"])
def test_one_of_many_that_is_wrong_is_noticed(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidParams):
        build_many(TXT2IMG.params, [{"prompt": "a red circle"}, wrong])
