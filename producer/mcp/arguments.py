"""The schemas of the tools' arguments, which agents see and which calls are checked against."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from crossmodal.errors import InvalidParams
from crossmodal.kinds.base import build
from crossmodal.unknown import check_fields

A = TypeVar("A", bound="Arguments")
ID = Field(max_length=200, description="The job's id, as returned by `draw` and `describe`.")
MODEL = Field(
    default=None,
    max_length=64,
    description="A model's name or alias, as `models` lists them; by default, the default model.",
)
PARAMS: Any = Field(
    default_factory=dict,
    description="Params specific to the model, by name, as `models` describes them.",
)
WAIT = Field(
    default=True,
    description="Whether to wait for the result; otherwise the job's id is returned at once.",
)


class Arguments(BaseModel):
    """The arguments of a tool; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Making(Arguments):
    """The arguments common to new jobs: model, its params, and whether to wait."""

    model: str | None = MODEL
    params: dict[str, JsonValue] = PARAMS
    wait: bool = WAIT

    def fields(self, **given: Any) -> dict[str, Any]:
        """Merge all params of the job. Raises `InvalidParams` for a param that is given twice."""
        said = {name: value for name, value in given.items() if value is not None}
        if self.model is not None:
            said["model"] = self.model
        if twice := next((name for name in self.params if name in said), None):
            raise InvalidParams(
                f"params.{twice}: {twice} is given twice, here and as an argument of the tool",
                twice,
            )
        return {**self.params, **said}


class Draw(Making):
    """Arguments of `draw`."""

    prompt: str = Field(description="What to draw.")
    seed: int | None = Field(
        default=None,
        description="The first picture's seed; the same seed draws the same picture again.",
    )
    count: int | None = Field(default=None, description="How many pictures; 1 by default.")


class Describe(Making):
    """Arguments of `describe`: one picture, by exactly one of its fields."""

    data: str | None = Field(
        default=None, min_length=1, description="A picture's file as base64, or as a data: URL."
    )
    key: str | None = Field(
        default=None,
        min_length=1,
        max_length=1_024,
        description="A stored picture: the key of an image that `draw` returned.",
    )
    count: int | None = Field(default=None, description="How many captions; 1 by default.")


class DescribeFile(Describe):
    """Arguments of `describe` on a server that may read files of some folders."""

    path: str | None = Field(
        default=None,
        min_length=1,
        max_length=4_096,
        description="The path of a picture's file, in a folder that this server may read.",
    )


class Ask(Arguments):
    """Arguments of `job`."""

    job: str = ID
    wait: bool = Field(default=False, description="Whether to wait until it has ended.")


class Cancel(Arguments):
    """Arguments of `cancel`."""

    job: str = ID


class ListModels(Arguments):
    """Arguments of `models`."""

    model: str | None = Field(
        default=None, max_length=64, description="Only the model with this name or alias."
    )


def read(kind: type[A], tool: str, raw: Mapping[str, Any]) -> A:
    """Validate the arguments of a tool. Raises `InvalidParams`."""
    try:
        check_fields(raw, kind.model_fields, tool)
    except InvalidParams as e:
        if not issubclass(kind, Making):
            raise
        more = "params specific to the model go into `params`"
        raise InvalidParams(f"{e} ({more})", e.field) from e
    return build(kind, raw)
