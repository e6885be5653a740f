"""The MCP server: the list of its tools, and the handling of their calls."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from mcp.server import Server, ServerRequestContext
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    Tool,
    ToolAnnotations,
)

from crossmodal.errors import CrossmodalError, InvalidParams
from crossmodal.extras import DISTRIBUTION
from crossmodal.jobs.access import ApiKey
from crossmodal.unknown import nearest
from producer.mcp.answers import Content, refusal
from producer.mcp.arguments import (
    Arguments,
    Ask,
    Cancel,
    Describe,
    DescribeFile,
    Draw,
    ListModels,
    read,
)
from producer.mcp.desk import Call, Desk

Context = ServerRequestContext[Any, Any]
Who = Callable[[Context], Awaitable[ApiKey]]
"""Returns the API key of a call. Raises `Unauthorized` or `RateLimited`."""

INSTRUCTIONS = (
    "Draws pictures and describes them, as jobs of a queue. `models` lists the available models "
    "and their params; `draw` and `describe` wait for a while, and then return the id of a job "
    "that is still running: call `job` with it."
)


@dataclass(frozen=True)
class Way:
    """A tool: its arguments, function, title, description and hints."""

    takes: type[Arguments]
    does: Callable[[Any, Call], Awaitable[Content]]
    title: str
    about: str
    hints: ToolAnnotations


def make_server(desk: Desk, who: Who, *, is_public: bool) -> Server[Any]:
    """Make the server of a desk; if `is_public`, its errors contain no internal addresses."""
    ways = _ways(desk)

    async def list_tools(_: Context, __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[_tool(name, way) for name, way in ways.items()])

    async def call_tool(context: Context, asked: CallToolRequestParams) -> CallToolResult:
        try:
            call = Call(await who(context), context.session.report_progress)
            way = _named(asked.name, ways)
            given = read(way.takes, asked.name, asked.arguments or {})
            return CallToolResult(content=await way.does(given, call))
        except CrossmodalError as e:
            return refusal(e, is_public=is_public)

    return Server(
        "crossmodal",
        version=version(DISTRIBUTION),
        title="crossmodal",
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _ways(desk: Desk) -> dict[str, Way]:
    new = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
    looks = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    ends = ToolAnnotations(
        read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
    )
    describe = DescribeFile if desk.folders else Describe
    return {
        "draw": Way(
            Draw,
            desk.draw,
            "Draw pictures",
            "Draw pictures of a prompt; returns them "
            "with the job's id, the seed, the model and its warnings.",
            new,
        ),
        "describe": Way(
            describe,
            desk.describe,
            "Describe a picture",
            "Caption one picture: a file, or one drawn by `draw`.",
            new,
        ),
        "job": Way(
            Ask,
            desk.job,
            "Show a job",
            "Show a job's state, its place in the queue and its progress; once it has ended, its "
            "result.",
            looks,
        ),
        "cancel": Way(
            Cancel,
            desk.cancel,
            "Cancel a job",
            "Cancel a job that has not ended; returns its current state.",
            ends,
        ),
        "models": Way(
            ListModels,
            desk.models,
            "List models",
            "List the models: the kinds of jobs each runs, whether it is loaded, and the JSON "
            "schema of its params.",
            looks,
        ),
    }


def _tool(name: str, way: Way) -> Tool:
    return Tool(
        name=name,
        title=way.title,
        description=way.about,
        annotations=way.hints,
        input_schema=way.takes.model_json_schema(),
    )


def _named(name: str, ways: dict[str, Way]) -> Way:
    if name not in ways:
        near = nearest(name, ways)
        remedy = f"did you mean {near!r}?" if near else f"known tools: {', '.join(ways)}"
        raise InvalidParams(f"there is no tool {name[:100]!r}: {remedy}")
    return ways[name]
