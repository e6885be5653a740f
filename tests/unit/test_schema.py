"""The params of a model, told as a JSON schema and checked by it as its own class would."""

from typing import Any, Literal

import pytest
from pydantic import Field, create_model

from crossmodal.errors import InvalidParams, InvalidPrompt
from crossmodal.kinds.fields import text_of
from crossmodal.kinds.schema import build_by, class_by, properties_of, schema_of
from crossmodal.kinds.txt2img import TXT2IMG, Txt2ImgParams

SCHEDULER: Any = Literal["euler", "ddim"]
Turbo: Any = create_model(
    "Turbo",
    __base__=Txt2ImgParams,
    steps=(int, Field(default=4, ge=1, le=50)),
    guidance=(float, Field(default=0.0, ge=0, le=20)),
    width=(int, Field(default=512, ge=8, le=2_048, multiple_of=8)),
    scheduler=(SCHEDULER, "euler"),
    negative_prompt=(text_of(0, 2_000) | None, None),
    prompt=(text_of(1, 4_000), ...),
    temperature=(float, Field(default=1.0, ge=1, le=1)),
    weights=(list[float], Field(default=[], max_length=3)),
    nested=(dict[str, int], {}),
)
SCHEMA = schema_of(Turbo)


def built(**fields: Any) -> dict[str, Any]:
    return build_by(class_by(TXT2IMG, SCHEMA), {"prompt": "a fox", **fields}, "here").model_dump()


def test_what_is_not_said_is_as_the_model_has_it_by_default() -> None:
    found = built()
    assert (found["steps"], found["width"], found["scheduler"]) == (4, 512, "euler")
    assert (found["negative_prompt"], found["weights"]) == (None, [])


def test_a_default_that_is_made_anew_for_each_is_told_too() -> None:
    made: Any = create_model(
        "Made", __base__=Txt2ImgParams, sizes=(list[int], Field(default_factory=lambda: [64, 32]))
    )
    found = build_by(class_by(TXT2IMG, schema_of(made)), {"prompt": "a fox"}, "here")
    assert found.model_dump()["sizes"] == [64, 32]


def test_what_is_built_is_what_the_models_own_class_builds() -> None:
    fields = {
        "prompt": "  a \n fox ",
        "steps": 2,
        "guidance": 3,
        "width": 64,
        "scheduler": "ddim",
        "negative_prompt": " a  dog",
        "weights": [0.5, 1],
        "nested": {"a": 1},
        "seed": 7,
    }
    assert built(**fields) == Turbo(**fields).model_dump()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"steps": 0}, "steps: Input should be greater than or equal to 1"),
        ({"steps": 4.5}, "steps: Input should be a valid integer"),
        ({"steps": "4"}, "steps: Input should be a valid integer"),
        ({"width": 60}, "width: Input should be a multiple of 8"),
        ({"scheduler": "heun"}, "scheduler: Input should be 'euler' or 'ddim'"),
        ({"weights": [1.0] * 4}, "weights: List should have at most 3 items"),
        ({"weights": ["a"]}, r"weights\.0: Input should be a valid number"),
        ({"temperature": 0.5}, "temperature: Input should be greater than or equal to 1"),
        ({"count": 17}, "count: Input should be less than or equal to 16"),
        ({"stepz": 3}, "here: unknown field 'stepz': did you mean 'steps'"),
    ],
)
def test_what_the_model_does_not_take_is_named(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidParams, match=says):
        built(**wrong)


def test_a_prompt_is_as_long_as_the_model_allows() -> None:
    assert len(built(prompt="a" * 4_000)["prompt"]) == 4_000
    with pytest.raises(InvalidPrompt, match="4001 characters, 4000 are allowed"):
        built(prompt="a" * 4_001)
    with pytest.raises(InvalidPrompt, match="is empty"):
        built(prompt=" ")


def test_a_model_without_params_of_its_own_has_its_kinds() -> None:
    own = schema_of(Txt2ImgParams)
    assert class_by(TXT2IMG, own) is class_by(TXT2IMG, None) is Txt2ImgParams
    assert "model" not in properties_of(own)
    assert properties_of(None) == {}


def test_what_a_schema_says_in_other_ways_is_left_to_the_model() -> None:
    odd: dict[str, Any] = {
        "type": "object",
        "required": ["prompt"],
        "properties": {"prompt": {"type": "string"}, "mask": {"$ref": "#/$defs/Mask"}},
    }
    found = build_by(class_by(TXT2IMG, odd), {"prompt": "a", "mask": {"x": [1]}}, "")
    assert found.model_dump()["mask"] == {"x": [1]}
