"""The MCP server, spoken to by the SDK's own client, over a real Redis."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client as Agent
from mcp_types import CallToolResult, ImageContent, TextContent

from crossmodal.errors import BrokerUnavailable, InvalidSetting, JobCanceled, UnknownWords
from crossmodal.jobs.access import ANYBODY, ApiKey
from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.models import Models
from crossmodal.jobs.record import Job, JobState, JobStatus, ModelInfo, Progress, ServedKind
from crossmodal.kinds.img2txt import Img2TxtParams
from crossmodal.kinds.schema import schema_of
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.settings import Settings
from producer import Client
from producer.fake.worker import FakeWorker, plain_captions, plain_pictures
from producer.http.keys_needed import needs_keys
from producer.mcp.arguments import Draw
from producer.mcp.desk import AgentsClient, Call, Desk
from producer.mcp.http import Keys, anybody, make_app
from producer.mcp.server import Context, make_server
from producer.mcp.waiting import Progress as Told
from producer.pictures.png import write_png
from tests.conftest import settings_of, stack_environment
from tests.servers import start_server

WAIT_S = 20.0
PNG = write_png(b"\xff\0\0" * 64, 8, 8, 3)
SCHEMA = schema_of(Txt2ImgParams)
MODEL = ModelInfo(
    name="turbo",
    version="1",
    format="code",
    default_for=("txt2img", "img2txt"),
    aliases=("fast",),
    kinds={
        "txt2img": ServedKind(params=SCHEMA, run_s=0.5),
        "img2txt": ServedKind(params=schema_of(Img2TxtParams)),
    },
)
MODES = pytest.mark.parametrize("mode", ["legacy", "auto"])  # before 2026-07-28, and since


class Hand:
    """A worker's hand: takes jobs when a test says so."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.worker = FakeWorker(
            client.runner, client.ledger, client.storage, plain_pictures, plain_captions
        )

    def jobs(self, owner: str = "") -> list[Job]:
        return list(self.client.jobs(owner).jobs)

    async def next(self, state: JobState = JobState.QUEUED) -> Job:
        async with asyncio.timeout(WAIT_S):
            while not (found := [job for job in self.jobs() if job.state is state]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return found[0]

    async def run(self) -> None:
        job = await self.next()
        await asyncio.to_thread(self.worker.run, job.id)

    async def start(self) -> Attempt:
        job = await self.next()
        attempt = self.client.run(self.client.ledger.start(job.id, "hand"))
        assert isinstance(attempt, Attempt)
        return attempt


@pytest.fixture
def hand(settings: Settings) -> Iterator[Hand]:
    with Client(settings) as client:
        client.run(Models(settings).announce([MODEL]))
        yield Hand(client)


@asynccontextmanager
async def agent(
    settings: Settings,
    mode: Any = "auto",
    *,
    key: ApiKey = ANYBODY,
    patience_s: float = WAIT_S,
    folders: tuple[Path, ...] = (),
    is_public: bool = False,
) -> AsyncIterator[Agent]:
    async def who(_: Context) -> ApiKey:
        return key

    async with AgentsClient(settings) as client:
        desk = Desk(client, patience_s=patience_s, folders=folders)
        async with Agent(make_server(desk, who, is_public=is_public), mode=mode) as found:
            yield found


def said(result: CallToolResult) -> str:
    [text] = [block.text for block in result.content if isinstance(block, TextContent)]
    return text


def pictures(result: CallToolResult) -> list[bytes]:
    return [base64.b64decode(b.data) for b in result.content if isinstance(b, ImageContent)]


def line(result: CallToolResult, name: str) -> str:
    lines = dict(one.split(": ", 1) for one in said(result).splitlines())
    return lines[name]


def error(result: CallToolResult) -> tuple[str, str]:
    assert result.is_error
    told = result.structured_content
    assert told is not None
    assert said(result) == f"{told['code']}: {told['message']}"
    return told["code"], told["message"]


def call(
    settings: Settings, tool: str, arguments: dict[str, Any], **options: Any
) -> CallToolResult:
    async def main() -> CallToolResult:
        async with agent(settings, **options) as client:
            return await client.call_tool(tool, arguments)

    return asyncio.run(main())


async def beside(work: Awaitable[None], asked: Awaitable[CallToolResult]) -> CallToolResult:
    """The answer of a call that another does its part for."""
    result, _ = await asyncio.gather(asked, work)
    return result


@MODES
def test_it_draws(settings: Settings, hand: Hand, mode: str) -> None:
    async def main() -> CallToolResult:
        given = {"prompt": "a red circle", "seed": 7, "count": 2, "params": {"temperature": 0.5}}
        async with agent(settings, mode) as client:
            return await beside(hand.run(), client.call_tool("draw", given))

    found = asyncio.run(main())
    [job] = hand.jobs()
    assert not found.is_error
    assert [data[:4] for data in pictures(found)] == [b"\x89PNG"] * 2
    assert (line(found, "job"), line(found, "seed")) == (job.id, "7")
    assert line(found, "model") == "fake"
    assert (job.params["temperature"], job.params["count"]) == (0.5, 2)


def test_it_describes_what_it_is_shown_and_what_was_drawn(settings: Settings, hand: Hand) -> None:
    drawn = hand.client.txt2img("a red circle")
    hand.worker.run(drawn.id)
    key = drawn.result().images[0].key
    data = base64.b64encode(PNG).decode()

    async def main() -> list[str]:
        async with agent(settings) as client:
            return [
                line(await beside(hand.run(), client.call_tool("describe", given)), "caption")
                for given in (
                    {"data": data},
                    {"data": f"data:image/png;base64,{data}"},
                    {"key": key},
                )
            ]

    first, second, third = asyncio.run(main())
    assert first.startswith("caption 1 of picture")
    assert first == second != third


def test_a_file_is_described_where_its_folder_was_named(
    settings: Settings, hand: Hand, tmp_path: Path
) -> None:
    open_, closed = tmp_path / "open", tmp_path / "closed"
    for folder in (open_, closed):
        folder.mkdir()
        (folder / "a.png").write_bytes(PNG)
    (open_ / "link.png").symlink_to(closed / "a.png")
    (open_ / "notes.txt").write_text("secret")

    async def main() -> None:
        async with agent(settings, folders=(open_,)) as client:
            for path in ("a.png", str(open_ / "a.png")):
                found = await beside(hand.run(), client.call_tool("describe", {"path": path}))
                assert "caption" in said(found)
            for path in (str(closed / "a.png"), "../closed/a.png", "link.png"):
                code, message = error(await client.call_tool("describe", {"path": path}))
                assert (code, "none of the folders" in message) == ("forbidden", True)
            for path in ("notes.txt", "nothing.png", "a\0b", "x" * 300, "~nobody-of-here/a.png"):
                code, message = error(await client.call_tool("describe", {"path": path}))
                assert (code, "secret" in message) == ("invalid_image", False)

    asyncio.run(main())
    code, message = error(call(settings, "describe", {"path": str(open_ / "a.png")}))
    assert (code, "unknown field 'path'" in message) == ("invalid_params", True)


def test_who_does_not_wait_asks_for_the_job(settings: Settings, hand: Hand) -> None:
    async def main() -> None:
        async with agent(settings) as client:
            job = line(await client.call_tool("draw", {"prompt": "a", "wait": False}), "job")
            found = await client.call_tool("job", {"job": job})
            assert line(found, "state").startswith("queued, next")
            waiting = client.call_tool("job", {"job": job, "wait": True})
            found = await beside(hand.run(), waiting)
            assert (line(found, "job"), len(pictures(found))) == (job, 1)

    asyncio.run(main())


def test_who_has_waited_for_long_is_told_how_to_go_on(settings: Settings, hand: Hand) -> None:
    found = call(settings, "draw", {"prompt": "a"}, patience_s=0.1)
    [job] = hand.jobs()
    assert not found.is_error
    assert (line(found, "job"), job.state) == (job.id, JobState.QUEUED)
    assert "call `job` with this id" in said(found)


@MODES
def test_progress_is_told_step_by_step(settings: Settings, hand: Hand, mode: str) -> None:
    told: list[tuple[float, float | None, str | None]] = []
    second = asyncio.Event()

    async def listen(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))
        if progress == 2:
            second.set()

    async def work() -> None:
        ledger, attempt = hand.client.ledger, await hand.start()
        hand.client.run(ledger.progress(attempt, Progress(step=2, of=5, left_s=6.2)))
        async with asyncio.timeout(WAIT_S):
            await second.wait()
        hand.client.cancel(attempt.job)

    async def main() -> CallToolResult:
        async with agent(settings, mode) as client:
            asked = client.call_tool("draw", {"prompt": "a"}, progress_callback=listen)
            return await beside(work(), asked)

    assert error(asyncio.run(main()))[0] == JobCanceled.code
    amounts = [progress for progress, _, _ in told]
    assert amounts == sorted(set(amounts))
    assert (2, 5, "running, step 2 of 5, about 6 s left") in told
    assert all(total is None for progress, total, _ in told if progress < 1)


def test_what_is_told_of_progress_is_always_more(settings: Settings) -> None:
    told: list[float] = []

    async def report(progress: float, total: float | None, message: str) -> None:
        told.append(progress)

    async def main() -> None:
        progress = Told(report)
        for attempt, step in ((0, None), (1, None), (1, 3), (1, 9), (2, None), (2, 3), (2, 10)):
            at = None if step is None else Progress(step=step, of=10, left_s=1)
            state = JobState.RUNNING if attempt else JobState.QUEUED
            await progress.tell(JobStatus(id="x", state=state, attempt=attempt, progress=at))

    asyncio.run(main())
    assert told == [0.0, 0.5, 3.0, 9.0, 10.0]


@MODES
def test_a_request_that_is_canceled_cancels_its_job(
    settings: Settings, hand: Hand, mode: str
) -> None:
    told = asyncio.Event()

    async def listen(progress: float, total: float | None, message: str | None) -> None:
        told.set()

    async def main() -> None:
        async with agent(settings, mode) as client:
            asked = asyncio.create_task(
                client.call_tool("draw", {"prompt": "a"}, progress_callback=listen)
            )
            await hand.start()
            await told.wait()
            asked.cancel()
            await hand.next(JobState.CANCELED)

    asyncio.run(main())


class Held(AgentsClient):
    """Its submissions are answered late."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.is_submitted, self.may_answer = asyncio.Event(), asyncio.Event()

    async def submit(self, *args: Any, **more: Any) -> Any:
        handle = await super().submit(*args, **more)
        self.is_submitted.set()
        await self.may_answer.wait()
        return handle


def test_a_task_that_ends_while_it_submits_cancels_its_job(settings: Settings, hand: Hand) -> None:
    async def report(*_: Any) -> None: ...

    async def main() -> None:
        async with Held(settings) as client:
            desk = Desk(client, patience_s=WAIT_S)
            asked = asyncio.create_task(desk.draw(Draw(prompt="a"), Call(ANYBODY, report)))
            await client.is_submitted.wait()
            asked.cancel()
            await asyncio.wait([asked], timeout=0.05)  # it has been told so
            client.may_answer.set()
            with pytest.raises(asyncio.CancelledError):
                await asked
        assert [job.state for job in hand.jobs()] == [JobState.CANCELED]

    asyncio.run(main())


def test_who_only_looks_cancels_nothing(settings: Settings, hand: Hand) -> None:
    job = hand.client.txt2img("a")
    told = asyncio.Event()

    async def listen(progress: float, total: float | None, message: str | None) -> None:
        told.set()

    async def main() -> None:
        async with agent(settings) as client:
            asked = asyncio.create_task(
                client.call_tool("job", {"job": job.id, "wait": True}, progress_callback=listen)
            )
            await told.wait()
            asked.cancel()
        assert job.status().state is JobState.QUEUED

    asyncio.run(main())


def test_who_waits_outlasts_a_restart_of_redis(tmp_path: Path) -> None:
    server = start_server(tmp_path / "valkey", is_safe=True)
    settings = settings_of(stack_environment(server.port, tmp_path))

    async def main(hand: Hand) -> CallToolResult:
        async def work() -> None:
            await hand.next()
            await asyncio.to_thread(server.stop)
            # Not in a thread of the loop's: the server would end with it.
            restarted.append(start_server(tmp_path / "valkey", port))
            await hand.run()

        async with agent(settings) as client:
            return await beside(work(), client.call_tool("draw", {"prompt": "a"}))

    port, restarted = server.port, [server]
    try:
        with Client(settings) as client:
            found = asyncio.run(main(Hand(client)))
            assert len(pictures(found)) == 1
            assert len(client.jobs().jobs) == 1
    finally:
        restarted[-1].stop()


def test_who_waits_is_told_when_the_server_ends(settings: Settings, hand: Hand) -> None:
    async def main() -> CallToolResult:
        async with AgentsClient(settings) as client:
            desk = Desk(client, patience_s=WAIT_S)
            async with Agent(make_server(desk, anybody, is_public=False)) as found:
                asked = asyncio.create_task(found.call_tool("draw", {"prompt": "a"}))
                await hand.next()
                desk.waits.end()
                return await asked

    code, message = error(asyncio.run(main()))
    assert (code, "is stopping" in message) == (BrokerUnavailable.code, True)
    assert [job.state for job in hand.jobs()] == [JobState.CANCELED]


def test_a_request_that_submits_while_the_server_ends_is_told_too(
    settings: Settings, hand: Hand
) -> None:
    async def main() -> CallToolResult:
        async with AgentsClient(settings) as client:
            desk = Desk(client, patience_s=WAIT_S)
            desk.waits.end()
            async with Agent(make_server(desk, anybody, is_public=False)) as found:
                return await found.call_tool("draw", {"prompt": "a"})

    code, message = error(asyncio.run(main()))
    assert (code, "is stopping" in message) == (BrokerUnavailable.code, True)
    assert [job.state for job in hand.jobs()] == [JobState.CANCELED]


def test_a_job_is_canceled_by_its_own_tool(settings: Settings, hand: Hand) -> None:
    job = hand.client.txt2img("a")
    assert line(call(settings, "cancel", {"job": job.id}), "state") == "canceled"
    assert line(call(settings, "job", {"job": job.id}), "state") == "canceled"
    assert job.status().state is JobState.CANCELED


def test_a_job_that_failed_says_why(settings: Settings, hand: Hand) -> None:
    hand.worker.failures.append(UnknownWords("no word of 'zorg' is known"))

    async def main() -> CallToolResult:
        async with agent(settings) as client:
            return await beside(hand.run(), client.call_tool("draw", {"prompt": "zorg"}))

    assert error(asyncio.run(main())) == ("unknown_words", "no word of 'zorg' is known")
    [job] = hand.jobs()
    found = call(settings, "job", {"job": job.id})
    assert line(found, "state") == "failed"
    assert line(found, "failure") == "unknown_words: no word of 'zorg' is known"


WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    ("draw", {}, "invalid_params", "prompt: Field required"),
    ("draw", {"prompt": ""}, "invalid_prompt", "is empty"),
    ("draw", {"prompt": "a", "count": 99}, "invalid_params", "count"),
    ("draw", {"prompt": "a", "seed": "7"}, "invalid_params", "seed"),
    ("draw", {"promt": "a"}, "invalid_params", "did you mean 'prompt'"),
    ("draw", {"prompt": "a", "temperature": 1}, "invalid_params", "go into `params`"),
    ("draw", {"prompt": "a", "params": {"tempreature": 1}}, "invalid_params", "'temperature'"),
    (
        "draw",
        {"prompt": "a", "params": {"prompt": "b"}},
        "invalid_params",
        "given twice, here and as an argument",
    ),
    ("draw", {"prompt": "a", "params": {"origin": "b"}}, "invalid_params", "'origin'"),
    ("draw", {"prompt": "a", "model": "tubro"}, "model_not_found", "did you mean 'turbo'"),
    ("describe", {}, "invalid_params", "either data or key"),
    ("describe", {"data": "?"}, "invalid_image", "data is not base64"),
    ("describe", {"data": "aGVsbG8="}, "invalid_image", ""),
    ("describe", {"key": "results/nobody/1/0.png"}, "blob_not_found", "no blob"),
    ("describe", {"key": "../secrets"}, "blob_not_found", "no blob"),
    ("job", {"job": "nobody"}, "job_not_found", "nobody"),
    ("cancel", {"job": "nobody"}, "job_not_found", "nobody"),
    ("models", {"model": "fsat"}, "model_not_found", "did you mean 'fast'"),
    ("models", {"name": "fast"}, "invalid_params", "unknown field 'name'"),
    ("drwa", {}, "invalid_params", "did you mean 'draw'"),
]


def test_what_is_wrong_is_refused_by_name(settings: Settings, hand: Hand) -> None:
    async def main() -> None:
        async with agent(settings) as client:
            for tool, given, code, words in WRONG:
                found = error(await client.call_tool(tool, given))
                assert (found[0], words in found[1]) == (code, True), (tool, given, found)

    asyncio.run(main())
    assert hand.jobs() == []


def test_a_full_queue_is_said_to_be_one(settings: Settings, hand: Hand) -> None:
    narrow = settings.model_copy(update={"max_queue_length": 1})
    given = {"prompt": "a", "wait": False}
    assert not call(narrow, "draw", given).is_error
    found = call(narrow, "draw", given)
    assert error(found)[0] == "queue_full"
    assert found.structured_content is not None
    assert found.structured_content["retryable"] is True


def test_models_are_listed_with_their_params(settings: Settings, hand: Hand) -> None:
    given: dict[str, Any]
    for given in ({}, {"model": "fast"}):
        [model] = json.loads(said(call(settings, "models", given)))
        assert (model["name"], model["aliases"], model["state"]) == ("turbo", ["fast"], "absent")
        assert model["kinds"]["txt2img"]["params"] == SCHEMA
        assert model["default_for"] == ["txt2img", "img2txt"]


def test_tools_say_what_they_take_and_do(settings: Settings) -> None:
    async def main() -> None:
        async with agent(settings) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert tools.keys() == {"draw", "describe", "job", "cancel", "models"}
            looking = {
                name for name, t in tools.items() if t.annotations and t.annotations.read_only_hint
            }
            assert looking == {"job", "models"}
            for tool in tools.values():
                assert tool.input_schema["additionalProperties"] is False
                assert all("description" in one for one in tool.input_schema["properties"].values())

    asyncio.run(main())


def test_jobs_belong_to_a_key(settings: Settings, hand: Hand) -> None:
    mine, other = (ApiKey(id=name * 12, name=name, created_at=0.0) for name in "ab")
    job = line(call(settings, "draw", {"prompt": "a", "wait": False}, key=mine), "job")
    assert hand.client.record(job).owner == mine.id
    assert line(call(settings, "job", {"job": job}, key=mine), "job") == job
    for tool in ("job", "cancel"):
        assert error(call(settings, tool, {"job": job}, key=other))[0] == "job_not_found"
    hand.worker.run(job)
    key = hand.client.job(job).result().images[0].key
    assert error(call(settings, "describe", {"key": key}, key=other))[0] == "blob_not_found"


def test_callers_from_elsewhere_are_told_no_addresses(settings: Settings) -> None:
    away = Settings(**{**settings.model_dump(), "broker_url": "redis://127.0.0.1:1"})
    near = call(away, "models", {})
    assert (error(near)[0], "127.0.0.1:1" in said(near)) == (BrokerUnavailable.code, True)
    assert "127.0.0.1" not in said(call(away, "models", {}, is_public=True))


# -- over HTTP ----------------------------------------------------------------------------

Post = Callable[..., Awaitable[httpx2.Response]]
PING = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


@asynccontextmanager
async def posting(settings: Settings, *names: str, with_keys: bool) -> AsyncIterator[Post]:
    async with AgentsClient(settings) as client:
        keys = Keys(client) if with_keys else None

        server = make_server(Desk(client, patience_s=1), anybody, is_public=True)
        app = make_app(server, settings, keys, names)
        transport = httpx2.ASGITransport(app=app)
        async with (
            server.session_manager.run(),
            httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as http,
        ):

            async def post(at: str = "/mcp", **headers: str) -> httpx2.Response:
                given = {"Accept": "application/json, text/event-stream", **headers}
                return await http.post(at, json=PING, headers=given)

            yield post


def test_over_http_a_key_is_needed(settings: Settings, hand: Hand) -> None:
    key, token = hand.client.keys.create("agent")

    async def main() -> None:
        async with posting(settings, with_keys=True) as post:
            assert (await post()).status_code == 401
            wrong = await post(Authorization="Bearer cm_nobody_0")
            assert (wrong.status_code, "Bearer" in wrong.headers["www-authenticate"]) == (401, True)
            assert (await post(Authorization=f"Bearer {token}")).status_code == 200
            hand.client.keys.revoke(key.id)
            assert (await post(Authorization=f"Bearer {token}")).status_code == 401

    asyncio.run(main())


def test_over_http_pages_of_others_are_not_answered_to(settings: Settings) -> None:
    async def main() -> None:
        async with posting(settings, "mcp.example.com", with_keys=False) as post:
            assert (await post()).status_code == 200
            assert (await post(Host="mcp.example.com")).status_code == 200
            assert (await post(Host="evil.example:1")).status_code == 421
            assert (await post(Origin="https://evil.example")).status_code == 403

    asyncio.run(main())


def test_over_http_a_slash_too_many_leads_to_where_the_caller_is(settings: Settings) -> None:
    """Behind a proxy, to whose name the server's own redirect would not lead."""

    async def main() -> None:
        async with posting(settings, with_keys=False) as post:
            reply = await post(at="/mcp/")
            assert (reply.status_code, reply.headers["location"]) == (307, "../mcp")

    asyncio.run(main())


def test_over_http_an_outage_is_no_wrong_key(settings: Settings) -> None:
    away = Settings(**{**settings.model_dump(), "broker_url": "redis://127.0.0.1:1"})

    async def main() -> None:
        async with posting(away, with_keys=True) as post:
            found = await post(Authorization="Bearer cm_nobody_0")
            assert (found.status_code, found.json()["error"]) == (503, BrokerUnavailable.code)
            assert "127.0.0.1" not in found.text

    asyncio.run(main())


def test_a_public_address_needs_keys(settings: Settings) -> None:
    with pytest.raises(InvalidSetting, match="--no-keys is for loopback"):
        needs_keys(settings, "192.0.2.1", False)
    with pytest.raises(InvalidSetting, match="needs API keys, and there are none"):
        needs_keys(settings, "192.0.2.1", None)
    assert not needs_keys(settings, "127.0.0.1", None)
