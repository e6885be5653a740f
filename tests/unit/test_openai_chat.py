"""A picture in a chat, as fields of a job."""

from typing import Any

import pytest
from pydantic import Field, create_model

from crossmodal.errors import InvalidParams
from crossmodal.kinds.img2txt import Img2TxtParams
from crossmodal.kinds.schema import Schema, schema_of
from producer.gateway.body import built
from producer.gateway.openai.chat import ChatRequest, translated

Asking: Any = create_model(
    "Asking",
    __base__=Img2TxtParams,
    prompt=(str, Field(default="")),
    temperature=(float, Field(default=1.0)),
    max_words=(int, Field(default=20, le=40)),
)
SCHEMA = schema_of(Asking)
URL = "data:image/png;base64,aGVsbG8="
PICTURE = {"type": "image_url", "image_url": {"url": URL, "detail": "low"}}
TEXT = {"type": "text", "text": "What is it?"}
USER = {"role": "user", "content": [TEXT, PICTURE]}
IMAGE = {"image": {"data": URL}}


def asked(*messages: Any, schema: Schema | None = None, **body: Any) -> dict[str, Any]:
    return translated(built(ChatRequest, {"messages": messages or [USER], **body}), schema)


def test_a_picture_is_the_image() -> None:
    assert asked() == IMAGE


def test_a_picture_by_its_url_is_fetched_as_one_of_a_job() -> None:
    url = "https://example.com/a.png"
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
    assert asked(message) == {"image": {"url": url}}


def test_a_text_is_the_prompt_of_a_model_that_has_one() -> None:
    assert asked(schema=SCHEMA) == {**IMAGE, "prompt": "What is it?"}


def test_what_the_system_says_comes_before_it() -> None:
    system = {"role": "system", "content": "Be brief."}
    assert asked(system, USER, schema=SCHEMA)["prompt"] == "Be brief.\nWhat is it?"


def test_what_steers_a_chat_is_for_models_that_have_such_a_param() -> None:
    steering: dict[str, Any] = {"temperature": 0.2, "top_p": 0.9, "seed": 7}
    assert asked(**steering) == IMAGE
    assert asked(schema=SCHEMA, **steering) == {
        **IMAGE,
        "prompt": "What is it?",
        "temperature": 0.2,
    }


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_tokens": 12}, 12),
        ({"max_tokens": 300}, 40),
        ({"max_tokens": 12, "max_completion_tokens": 30}, 30),
    ],
)
def test_tokens_are_words_as_many_as_the_model_has(limits: dict[str, int], words: int) -> None:
    assert asked(schema=SCHEMA, **limits)["max_words"] == words
    assert asked(schema=None, **limits) == IMAGE


def test_several_answers_are_several_captions_and_other_fields_are_params() -> None:
    assert asked(n=3, beam_width=2) == {**IMAGE, "count": 3, "beam_width": 2}


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "hello"}],
        [{"role": "system", "content": "hello"}],
        [{"role": "user", "content": [PICTURE, PICTURE]}],
        [USER, {"role": "assistant", "content": "A circle."}, USER],
        [USER, {"role": "tool", "content": "7"}],
        [USER, USER],
    ],
)
def test_no_picture_several_and_a_history_are_refused(messages: list[Any]) -> None:
    with pytest.raises(InvalidParams, match="send one") as refused:
        asked(*messages)
    assert refused.value.field == "messages"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "messages.0.content: give a text, or a list of parts"),
        ([{"type": "image_url", "image_url": URL}], "0.content.0.image_url: Input should be an o"),
        ([{"type": "input_image"}], "messages.0.content.0.type: Input should be 'text' or 'image_"),
        (["a"], "messages.0.content.0: Input should be an object"),
    ],
)
def test_what_is_no_message_is_said_in_words_of_the_request(content: Any, says: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        asked({"role": "user", "content": content})
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "name", ["task", "image", "priority", "keep_s", "expires_in_s", "webhook_url"]
)
def test_what_only_jobs_have_is_unknown_here(name: str) -> None:
    with pytest.raises(InvalidParams, match=f"unknown field '{name}'"):
        translated(built(ChatRequest, {"messages": [USER], name: 1}), None)


def test_what_is_said_twice_is_refused() -> None:
    with pytest.raises(InvalidParams, match=r"^count: n sets the same param"):
        asked(n=2, count=3)
    assert asked(count=3)["count"] == 3


def test_metadata_is_kept_with_the_job() -> None:
    assert asked(metadata={"a": "b"}) == {**IMAGE, "metadata": {"a": "b"}}
