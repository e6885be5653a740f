"""Requests for pictures as OpenAI's clients write them, as fields of a job."""

from typing import Any

import pytest
from pydantic import Field, create_model

from crossmodal.errors import InvalidParams, InvalidPrompt
from crossmodal.kinds.schema import Schema, schema_of
from crossmodal.kinds.txt2img import TXT2IMG, Txt2ImgParams
from producer.gateway.body import built
from producer.gateway.openai.images import ImagesRequest, forms_of, translated

Sized: Any = create_model(
    "Sized",
    __base__=Txt2ImgParams,
    width=(int, Field(default=64)),
    height=(int, Field(default=64)),
    steps=(int, Field(default=2)),
    style=(str, Field(default="")),
)
ONE_SIZE, SIZED = schema_of(Txt2ImgParams), schema_of(Sized)


def asked(schema: Schema | None = SIZED, **body: Any) -> tuple[dict[str, Any], list[str]]:
    return translated(built(ImagesRequest, {"prompt": "a fox", **body}), schema)


def test_openais_names_are_those_of_params_here() -> None:
    fields, warnings = asked(n=2, output_format="webp", output_compression=80)
    assert fields == {"prompt": "a fox", "count": 2, "format": "webp", "quality": 80}
    assert warnings == []


def test_params_of_the_model_are_taken_as_they_are() -> None:
    assert asked(steps=4, seed=7, anything=[1])[0] == {
        "prompt": "a fox",
        "steps": 4,
        "seed": 7,
        "anything": [1],
    }


def test_a_size_is_width_and_height() -> None:
    assert asked(size="512x256")[0] == {"prompt": "a fox", "width": 512, "height": 256}


@pytest.mark.parametrize("size", [None, "", "auto"])
def test_no_size_is_the_models_own(size: str | None) -> None:
    assert asked(size=size) == ({"prompt": "a fox"}, [])


@pytest.mark.parametrize("schema", [ONE_SIZE, None])
def test_a_size_for_a_model_of_one_size_is_a_warning(schema: Schema | None) -> None:
    fields, warnings = asked(schema, size="512x256")
    assert fields == {"prompt": "a fox"}
    assert warnings == ["size: the model draws in one size only"]


@pytest.mark.parametrize("size", ["large", "512", "512x", "x512", "-1x1", "1 x 1", "٦٤x٦٤"])
def test_what_is_no_size_is_refused_with_an_example(size: str) -> None:
    with pytest.raises(InvalidParams, match="512x512") as refused:
        asked(size=size)
    assert refused.value.field == "size"


def test_what_a_model_has_no_param_for_is_a_warning() -> None:
    fields, warnings = asked(ONE_SIZE, style="vivid", background="transparent", quality="hd")
    assert fields == {"prompt": "a fox"}
    assert warnings == [
        f"{name}: the model has no such param" for name in ("quality", "style", "background")
    ]


def test_what_asks_for_nothing_in_particular_is_no_warning() -> None:
    assert asked(ONE_SIZE, quality="standard", background="opaque", style="auto")[1] == []


def test_what_a_model_has_a_param_for_is_given_to_it() -> None:
    assert asked(style="vivid") == ({"prompt": "a fox", "style": "vivid"}, [])


def test_who_asks_is_not_the_models_matter() -> None:
    assert asked(user="me", moderation="low", safety_identifier="x")[0] == {"prompt": "a fox"}


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"n": 0}, "n"),
        ({"partial_images": 4}, "partial_images"),
        ({"output_compression": 101}, "output_compression"),
        ({"response_format": "png"}, "response_format"),
        ({"model": 7}, "model"),
    ],
)
def test_a_wrong_value_is_refused_by_name(body: dict[str, Any], wrong: str) -> None:
    with pytest.raises(InvalidParams, match=wrong):
        asked(**body)


@pytest.mark.parametrize(
    ("body", "forms"),
    [
        ({}, {"b64_json"}),
        ({"model": "gpt-image-1"}, {"b64_json"}),
        ({"response_format": "url"}, {"url"}),
        ({"model": "dall-e-3"}, {"b64_json", "url"}),
        ({"model": "dall-e-3", "response_format": "b64_json"}, {"b64_json"}),
    ],
)
def test_pictures_are_in_the_answer_unless_urls_are_asked_for(
    body: dict[str, str], forms: set[str]
) -> None:
    assert forms_of(built(ImagesRequest, {"prompt": "a fox", **body})) == forms


@pytest.mark.parametrize(
    "body",
    [
        {"count": 3, "n": 2},
        {"format": "webp", "output_format": "png"},
        {"width": 64, "size": "512x512"},
    ],
)
def test_what_is_said_twice_is_refused(body: dict[str, Any]) -> None:
    ours, theirs = body
    with pytest.raises(InvalidParams, match=f"^{ours}: {theirs} sets the same param") as refused:
        asked(**body)
    assert refused.value.field == ours


def test_our_name_beside_what_asks_for_nothing_is_taken() -> None:
    assert asked(width=64, size="auto", count=2, n=None) == (
        {"prompt": "a fox", "width": 64, "count": 2},
        [],
    )


def test_what_the_answer_cannot_have_is_a_warning() -> None:
    assert asked(partial_images=2)[1] == ["partial_images: only streams have them"]
    assert asked(partial_images=2, stream=True)[1] == []
    assert asked(response_format="url", stream=True)[1] == [
        "response_format: streams have the pictures themselves, not URLs"
    ]


@pytest.mark.parametrize("prompt", ["", " ", "a" * 1_001, "a" * 100_000])
def test_a_wrong_prompt_is_named_as_the_field(prompt: str) -> None:
    with pytest.raises(InvalidPrompt) as refused:
        TXT2IMG.build({"prompt": prompt})
    assert refused.value.field == "prompt"
