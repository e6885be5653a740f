"""The list of dead letters, and the commands that read, replay and empty it."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from typer.testing import CliRunner

from crossmodal.errors import DeadLetterNotFound, InvalidMessage, InvalidParams, TooManyQueued
from crossmodal.jobs.bulk import MEDIA_TYPE
from crossmodal.jobs.connection import connect
from crossmodal.jobs.dead import MAX_RAW, DeadLetters
from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.names import bulk_job_id, dead_key, job_key, letter_key, messages_key
from crossmodal.jobs.origin import NOBODY, Origin, Webhook
from crossmodal.jobs.params import BulkParams
from crossmodal.jobs.record import DeadLetter, Failure, JobState
from crossmodal.jobs.submission import Submission
from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.settings import Settings
from producer import Client
from producer.commands.dead import app
from producer.replay import replay
from tests.at_once import at_once
from tests.ledgers import Ledger
from tests.unit.test_ledger import FAILURE, WORKER

GARBAGE = InvalidMessage("not a valid Celery message")


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    with Ledger(settings) as ledger:
        yield ledger


def dead_job(
    client: Client, ledger: Ledger, code: str = "model_host_crashed", origin: Origin = NOBODY
) -> str:
    params = Txt2ImgParams(prompt="a circle", seed=3, metadata={"order": 1})
    job_id = client.submit(params, origin=origin).id
    attempt = ledger.start(job_id, WORKER)
    assert isinstance(attempt, Attempt)
    ledger.fail(attempt, Failure(code=code, message="it did"), dead=True)
    return job_id


def codes(client: Client) -> list[str]:
    return [letter.code for letter in client.dead_letters.list()]


def test_a_dead_job_is_listed_with_params_and_history(client: Client, ledger: Ledger) -> None:
    job_id = dead_job(client, ledger)
    letter = client.dead_letters.get(job_id)
    assert letter.job is not None
    assert letter.job.params["metadata"] == {"order": 1}
    assert [event.state for event in letter.history] == ["queued", "running", "failed"]


def test_a_job_that_failed_by_its_own_fault_is_no_dead_letter(
    client: Client, ledger: Ledger
) -> None:
    attempt = ledger.start(client.txt2img("a circle").id, WORKER)
    assert isinstance(attempt, Attempt)
    ledger.fail(attempt, FAILURE)
    assert codes(client) == []


def test_a_job_without_attempts_left_is_one(client: Client, ledger: Ledger) -> None:
    job_id = client.txt2img("a circle").id
    for _ in range(4):
        ledger.start(job_id, WORKER)
        ledger.abandon(WORKER, [job_id])
    assert client.record(job_id).state is JobState.FAILED
    assert codes(client) == ["worker_lost"]


def test_of_a_large_message_the_beginning_is_kept(client: Client) -> None:
    letter_id = client.dead_letters.set_aside("txt2img", b"\xff" * (MAX_RAW + 1), GARBAGE)
    letter = client.dead_letters.get(letter_id)
    assert (letter.raw, letter.size) == (b"\xff" * MAX_RAW, MAX_RAW + 1)
    with pytest.raises(InvalidParams, match="only dropped"):
        again(client, letter)
    assert codes(client) == ["invalid_message"]


def test_a_replayed_message_lies_in_its_queue_again(client: Client, settings: Settings) -> None:
    queue = "txt2img"
    letter_id = client.dead_letters.set_aside(queue, b"\xff hello", GARBAGE)
    assert again(client, client.dead_letters.get(letter_id)) is None
    with connect(settings, decode=False) as redis:
        assert redis.lrange(messages_key(settings.key_prefix, queue), 0, -1) == [b"\xff hello"]
    with pytest.raises(DeadLetterNotFound):
        client.dead_letters.get(letter_id)


def test_a_message_whose_queue_nobody_knows_is_not_replayed(client: Client) -> None:
    letter_id = client.dead_letters.set_aside("", b"garbage", GARBAGE)
    with pytest.raises(InvalidParams, match="its queue is not known"):
        again(client, client.dead_letters.get(letter_id))
    assert client.dead_letters.get(letter_id).raw == b"garbage"


def test_whoever_replays_twice_makes_one_job(client: Client, ledger: Ledger) -> None:
    letter = client.dead_letters.get(dead_job(client, ledger))
    first = again(client, letter)
    assert first is not None
    assert again(client, letter) == first  # as one who died before it took the letter off
    job = client.record(first)
    assert (job.params["seed"], job.params["metadata"]) == (3, {"order": 1})
    assert codes(client) == []


def test_whoever_retries_and_replays_makes_one_job(client: Client, ledger: Ledger) -> None:
    letter = client.dead_letters.get(dead_job(client, ledger))
    assert again(client, letter) == client.retry(letter.id).id


def again(client: Client, letter: DeadLetter, max_queued: int | None = None) -> str | None:
    """Replay a letter."""
    letters = DeadLetters(client.settings, client.ledger)
    return client.run(replay(client.calls, letters, letter, max_queued))


RunAgain = Callable[[Client, str, int | None], str | None]
RUN_AGAIN: dict[str, RunAgain] = {
    "replay": lambda client, job_id, limit: again(client, client.dead_letters.get(job_id), limit),
    "retry": lambda client, job_id, limit: client.retry(job_id, max_queued=limit).id,
}


@pytest.fixture(params=list(RUN_AGAIN.values()), ids=list(RUN_AGAIN))
def run_again(request: pytest.FixtureRequest) -> RunAgain:
    """Both ways to run a dead job again, by its id and under the limit of the caller's key."""
    found: RunAgain = request.param
    return found


def test_a_job_that_is_run_again_is_its_owners_and_told_to_the_same_webhook(
    client: Client, ledger: Ledger, run_again: RunAgain
) -> None:
    hook = Webhook(url="https://receiver.example/hooks", base="https://gateway.example")
    job_id = dead_job(client, ledger, origin=Origin("somebody", webhook=hook))
    again = run_again(client, job_id, None)
    assert again is not None
    assert (client.record(again).owner, ledger.webhook(again)) == ("somebody", hook)
    assert again in [job.id for job in client.jobs("somebody").jobs]


@pytest.mark.parametrize(("own", "of_operator"), [(1, 100), (100, 1)])
def test_a_job_that_is_run_again_is_held_to_the_limit_of_its_owner(
    client: Client, ledger: Ledger, run_again: RunAgain, own: int, of_operator: int
) -> None:
    owner = client.keys.create("owner", max_queued=own)[0].id
    job_id = dead_job(client, ledger, origin=Origin(owner))
    client.submit(Txt2ImgParams(prompt="a square", seed=1), origin=Origin(owner))
    with nullcontext() if own > 1 else pytest.raises(TooManyQueued, match="1 are allowed"):
        run_again(client, job_id, of_operator)
    assert client.queue(Task("txt2img")).depth == (1 if own == 1 else 2)
    assert own > 1 or codes(client)


def test_a_message_of_a_batch_is_not_replayed_as_a_job_of_its_own(
    run: Any, client: Client, ledger: Ledger
) -> None:
    params = BulkParams(
        kind="txt2img",
        batch="b",
        number=0,
        items=1,
        most=64,
        input=client.storage.put_input(b"x", MEDIA_TYPE),
    )
    job_id = bulk_job_id("b", 0)
    ledger.submit(
        Submission(job_id, Task("txt2img.bulk"), params.model_dump_json(), "", batch=params)
    )
    ledger.refuse(job_id, FAILURE)
    with pytest.raises(InvalidParams, match="batch run --id"):
        again(client, client.dead_letters.get(job_id))
    other = dead_job(client, ledger)
    assert "message of a batch" in run("replay", "--all", status=1)
    assert [letter.id for letter in client.dead_letters.list()] == [job_id]
    assert client.record(other).state is JobState.FAILED


def test_of_too_many_letters_the_oldest_go_with_their_bytes(
    client: Client, settings: Settings
) -> None:
    with connect(settings) as redis:
        set_aside = client.dead_letters.set_aside
        first = set_aside("txt2img", b"first", GARBAGE)
        newer = {f"message-{i}": time.time() + i for i in range(9_999)}
        redis.zadd(dead_key(settings.key_prefix), newer)
        assert redis.exists(letter_key(settings.key_prefix, first))
        set_aside("txt2img", b"last", GARBAGE)
        assert redis.zcard(dead_key(settings.key_prefix)) == 10_000
        assert not redis.exists(letter_key(settings.key_prefix, first))


def test_a_letter_goes_with_its_record(client: Client, ledger: Ledger, settings: Settings) -> None:
    job_id = dead_job(client, ledger)
    with connect(settings) as redis:
        redis.delete(job_key(settings.key_prefix, job_id))
    assert codes(client) == []
    with pytest.raises(DeadLetterNotFound):
        client.dead_letters.get(job_id)


# -- commands -----------------------------------------------------------------------------


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CELERY_BROKER_URL", settings.broker_url.get_secret_value())
    monkeypatch.setenv("CROSSMODAL_KEY_PREFIX", settings.key_prefix)

    def invoke(*args: str, status: int = 0) -> str:
        done = CliRunner().invoke(app, list(args))
        assert done.exit_code == status, done.output
        return done.output

    return invoke


def test_letters_are_chosen_by_code(run: Any, client: Client, ledger: Ledger) -> None:
    dead_job(client, ledger, "timed_out")
    kept = dead_job(client, ledger, "model_host_crashed")
    [listed] = json.loads(run("list", "--code", "timed_out", "--json"))
    assert listed["code"] == "timed_out"
    assert run("drop", "--code", "timed_out") == "dropped 1\n"
    assert [letter.id for letter in client.dead_letters.list()] == [kept]


def test_a_letter_is_shown_whole(run: Any, client: Client, ledger: Ledger) -> None:
    shown = run("show", dead_job(client, ledger))
    assert "a circle" in shown
    assert "running (attempt 1)" in shown
    aside = client.dead_letters.set_aside("txt2img", b"\xff[bold]", GARBAGE)
    assert "[bold]" in run("show", aside)
    assert "timed_out" not in run("list")


@at_once("args", [[], ["--all", "--code", "x"], ["some-id", "--all"]])
def test_it_must_be_said_which(run: Any, args: list[str]) -> None:
    for command in ("replay", "drop"):
        run(command, *args, status=2)


def test_all_are_replayed(run: Any, client: Client, ledger: Ledger) -> None:
    old = {dead_job(client, ledger) for _ in range(3)}
    new = json.loads(run("replay", "--all", "--json"))
    assert new.keys() == old
    assert {client.record(job_id).state for job_id in new.values()} == {JobState.QUEUED}


def test_what_cannot_be_replayed_keeps_no_other_from_it(
    run: Any, client: Client, ledger: Ledger
) -> None:
    old = dead_job(client, ledger)
    cut = client.dead_letters.set_aside("txt2img", b"x" * (MAX_RAW + 1), GARBAGE)
    assert "only dropped" in run("replay", "--all", status=1)
    assert [letter.id for letter in client.dead_letters.list()] == [cut]
    assert client.record(old).state is JobState.FAILED


def test_an_unknown_letter_is_said_to_be_unknown(run: Any) -> None:
    run("show", "nothing", status=1)
