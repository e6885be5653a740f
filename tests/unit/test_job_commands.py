"""The commands that submit jobs, wait for them and ask about them, where no worker is."""

import io
import json
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rich.console import Console

from crossmodal import console
from crossmodal.jobs.acl import Role
from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.names import new_job_id, result_key
from crossmodal.jobs.record import (
    Failure,
    GeneratedCaption,
    ImageRef,
    JobResult,
    JobState,
    JobStatus,
    Timings,
)
from crossmodal.jobs.workers import Workers
from crossmodal.kinds.task import Task
from crossmodal.settings import Settings
from producer import Client, patience
from producer.batches.jsonl import BatchFile
from producer.patience import Unserved
from producer.place import duration, place
from tests.commands import Done, run_command
from tests.servers import Server
from tests.waiting import until
from tests.workers import environment

NOTE = "no worker serves the queue txt2img: start one with `crossmodal worker`"
TIMINGS = Timings(queued_s=0, batch_wait_s=0, inference_s=0, store_s=0, total_s=0)

Run = Callable[..., Done]


@pytest.fixture
def run(
    settings: Settings, redis_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Runs a command in an empty folder, as a user of Redis who may not do what workers may."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    url = redis_server.url(Role.PRODUCER, settings.key_prefix)
    env = environment(settings) | {"CELERY_BROKER_URL": url}
    return lambda *args, **more: run_command(env | more, *args)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told a person who waits is told within a blink."""
    monkeypatch.setattr(patience, "NOBODY_AFTER_S", 0.0)
    monkeypatch.setattr(patience, "POLL_S", 0.02)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The queues of each check that has ended: what it had to tell has been printed."""
    ended: list[set[str]] = []
    check = Unserved.check

    def counted(self: Unserved, is_run: Callable[[str], bool] = lambda queue: False) -> None:
        queues = self._queues()
        check(self, is_run)
        ended.append(queues)

    monkeypatch.setattr(Unserved, "check", counted)
    return ended


def started(client: Client, job_id: str) -> Attempt:
    attempt = client.run(client.ledger.start(job_id, "cpu@test"))
    assert isinstance(attempt, Attempt)
    return attempt


def png(shade: int = 0) -> bytes:
    """A picture as a worker makes it: it says what it was drawn from."""
    text, file = PngInfo(), io.BytesIO()
    text.add_text("parameters", "a circle")
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(file, "PNG", pnginfo=text)
    return file.getvalue()


def draw(
    client: Client, job_id: str, *pictures: bytes, captions: tuple[str, ...] = (), kind: str = "png"
) -> None:
    """End a job as a worker would that has made these."""
    attempt = started(client, job_id)
    refs = tuple(
        ImageRef(
            **client.storage.put(
                result_key(job_id, f"{i}.{kind}", 1), data, f"image/{kind}"
            ).model_dump(),
            width=8,
            height=8,
        )
        for i, data in enumerate(pictures)
    )
    result = JobResult(
        job=job_id,
        task=Task("txt2img"),
        params={},
        images=refs,
        model="m",
        bundle_version="v",
        captions=tuple(GeneratedCaption(text=text, log_probability=-1) for text in captions),
        timings=TIMINGS,
        batch_size=1,
        attempt=1,
    )
    assert client.run(client.ledger.succeed(attempt, result))


def drawn(client: Client, *pictures: bytes) -> str:
    job_id = client.txt2img("a circle").id
    draw(client, job_id, *(pictures or (png(),)))
    return job_id


def somebody_waits() -> bool:
    return any(thread.name == "patience" for thread in threading.enumerate())


@contextmanager
def meanwhile(
    act: Callable[[], object], when: Callable[[], object] = somebody_waits
) -> Iterator[None]:
    """Do something in a thread as soon as `when` is true; what fails there fails the test."""
    failed: list[BaseException] = []
    over = threading.Event()

    def run() -> None:
        try:
            until(lambda: bool(when()) or over.is_set(), 30)
            assert not over.is_set(), "the command ended before"
            act()
        except BaseException as e:  # noqa: BLE001 - it is raised below
            failed.append(e)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        assert not failed, failed


def press_ctrl_c() -> None:
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, signal.SIGINT)


# -- silence ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
def test_where_no_worker_is_that_is_said_once_and_how_to_start_one(
    run: Run, checks: list[set[str]]
) -> None:
    with meanwhile(press_ctrl_c, lambda: len(checks) >= 3):
        done = run("txt2img", "a circle")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.startswith(NOTE)
    assert "`crossmodal up`" in done.stderr
    assert done.stderr.count("no worker serves") == 1


@pytest.mark.usefixtures("impatient")
def test_of_a_model_it_says_where_its_folder_belongs(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    Unserved(client, lambda: {"txt2img.turbo"}).check()
    said = capsys.readouterr().err
    assert said.startswith("no worker serves the model turbo: start one with its folder in")
    assert "CROSSMODAL_ALLOW_MODEL_CODE=turbo" in said
    assert "`crossmodal models forget turbo`" in said


@pytest.mark.usefixtures("impatient")
def test_a_batch_says_it_too_and_how_to_go_on(run: Run, checks: list[set[str]]) -> None:
    requests = Path("requests.jsonl")
    requests.write_text('{"url": "/v1/txt2img", "body": {"prompt": "a circle"}}\n')
    with meanwhile(press_ctrl_c, lambda: any(checks)):
        done = run("batch", "run", "requests.jsonl", "-o", "out.jsonl", "--id", "mine")
    assert done.returncode == 130
    assert "no worker serves the queue txt2img.bulk: start one" in done.stderr
    assert "the same command with --id mine resumes the batch" in done.stderr
    assert "`crossmodal batch cancel mine` cancels it" in done.stderr


def test_a_queue_that_is_served_is_not_said_to_be_unserved_until_its_worker_leaves(
    client: Client, settings: Settings, capsys: pytest.CaptureFixture[str], impatient: None
) -> None:
    workers = Workers(settings)
    client.run(workers.announce("cpu", queues=["txt2img"]))
    unserved = Unserved(client, lambda: {"txt2img"})
    unserved.check()
    assert capsys.readouterr().err == ""
    client.run(workers.leave("cpu"))
    unserved.check(is_run=lambda queue: True)  # it finishes what it has
    assert capsys.readouterr().err == ""
    for _ in range(2):
        unserved.check()
    said = capsys.readouterr().err
    assert said.startswith("no worker serves the queue txt2img any more: start one")
    assert said.count("\n") == 1


@pytest.mark.usefixtures("impatient")
def test_of_a_job_that_is_run_nothing_is_said(
    run: Run, client: Client, checks: list[set[str]]
) -> None:
    job = client.txt2img("a circle")
    started(client, job.id)
    with meanwhile(press_ctrl_c, lambda: checks):
        done = run("wait", job.id)
    assert (done.returncode, "no worker" in done.stderr) == (130, False)


def test_nothing_is_said_in_the_first_seconds(
    run: Run, checks: list[set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert patience.NOBODY_AFTER_S == 3
    monkeypatch.setattr(patience, "NOBODY_AFTER_S", 600)  # however slow the machine is
    monkeypatch.setattr(patience, "POLL_S", 0.02)
    with meanwhile(press_ctrl_c, lambda: checks):
        done = run("txt2img", "a circle")
    assert (done.returncode, "no worker" in done.stderr) == (130, False)


def test_ctrl_c_says_which_job_goes_on_and_how(run: Run, client: Client) -> None:
    with meanwhile(press_ctrl_c):
        done = run("txt2img", "a circle")
    [job] = client.jobs().jobs
    assert (done.returncode, done.stdout) == (130, "")
    assert f"error interrupted job {job.id} goes on" in done.stderr
    assert f"`crossmodal result {job.id}` waits for it" in done.stderr
    assert f"`crossmodal cancel {job.id}` cancels it" in done.stderr
    assert job.state is JobState.QUEUED


def test_ctrl_c_names_all_jobs(run: Run, client: Client) -> None:
    ids = [client.txt2img("a circle").id for _ in range(2)]
    with meanwhile(press_ctrl_c):
        done = run("wait", *ids, "--json")
    assert (done.returncode, done.stdout) == (130, "")
    error = json.loads(done.stderr)
    assert (error["code"], error["retryable"]) == ("interrupted", True)
    assert f"2 jobs go on: `crossmodal wait {' '.join(ids)}` waits for them" in error["message"]


def test_a_wait_that_is_over_says_how_to_go_on(run: Run, client: Client) -> None:
    job = client.txt2img("a circle")
    done = run("wait", job.id, "--timeout", "0.1")
    assert done.stderr.startswith(
        f"error result_timeout job {job.id} has not ended within 0.1 s and goes on: `crossmodal "
    )
    other = client.txt2img("a circle")
    done = run("wait", job.id, other.id, "--timeout", "0")
    assert "2 of 2 jobs have not ended yet and go on, among them" in done.stderr


def test_a_live_line_in_a_terminal_shows_state_and_place(
    run: Run, client: Client, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr(console, "stderr", terminal)
    client.txt2img("a square")
    job = client.txt2img("a circle")

    with meanwhile(job.cancel, lambda: "queued, 1 job before it" in screen.getvalue()):
        run("wait", job.id)


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (JobStatus(id="x", state=JobState.QUEUED, attempt=0, position=0), "queued, next"),
        (
            JobStatus(id="x", state=JobState.QUEUED, attempt=2, position=3, estimated_wait_s=12.3),
            "queued, 3 jobs before it, about 12 s, attempt 2",
        ),
        (JobStatus(id="x", state=JobState.RUNNING, attempt=1), "running"),
    ],
)
def test_a_place_in_words(status: JobStatus, shown: str) -> None:
    assert place(status) == shown


def test_times_are_said_as_people_say_them() -> None:
    assert [duration(s) for s in (0.2, 63, 600, 9_000)] == ["1 s", "63 s", "10 min", "2.5 h"]


# -- results ----------------------------------------------------------------------------------


def test_result_waits_until_the_job_has_ended(run: Run, client: Client) -> None:
    job = client.txt2img("a circle")
    with meanwhile(lambda: draw(client, job.id, png())):
        done = run("result", job.id)
    assert done.returncode == 0, done.stderr
    assert "(8 × 8)" in done.stdout


def test_result_without_waiting_says_where_the_job_is(run: Run, client: Client) -> None:
    job = client.txt2img("a circle")
    done = run("result", job.id, "--timeout", "0")
    assert done.returncode == 1
    assert (
        f"job {job.id} is queued, next, waits for a worker: `crossmodal result {job.id}` waits"
        in done.stderr
    )
    client.cancel(job.id)
    assert f"canceled job {job.id} was canceled" in run("result", job.id, "--timeout", "0").stderr


def test_a_png_is_written_as_the_worker_made_it(run: Run, client: Client) -> None:
    job_id = drawn(client, png(1), png(2))
    done = run("result", job_id, "-o", "circle.png", "--json")
    assert json.loads(done.stdout)["files"] == ["circle-0.png", "circle-1.png"]
    assert Path("circle-1.png").read_bytes() == png(2)


@pytest.mark.parametrize(
    ("name", "kind"), [("x.jpg", "JPEG"), ("x.JPEG", "JPEG"), ("x.webp", "WEBP")]
)
def test_a_picture_has_the_format_of_its_name(
    run: Run, client: Client, name: str, kind: str
) -> None:
    done = run("result", drawn(client), "-o", name)
    assert (done.returncode, f"wrote {name}" in done.stdout) == (0, True), done.stderr
    with Image.open(name) as image:
        assert (image.format, image.size) == (kind, (8, 8))


def drawn_as(client: Client, kind: str) -> tuple[str, bytes]:
    """A job that asked for a format, and its picture."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (90, 0, 0)).save(file, kind, quality=30)
    job_id = client.submit("txt2img", prompt="a circle", format=kind, quality=30).id
    draw(client, job_id, file.getvalue(), kind=kind)
    return job_id, file.getvalue()


@pytest.mark.parametrize(("kind", "name"), [("webp", "x.webp"), ("jpeg", "x.jpg")])
def test_a_picture_that_has_the_format_of_its_name_is_written_as_it_is(
    run: Run, client: Client, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    job_id, picture = drawn_as(client, kind)
    done = run("result", job_id, "-o", "x.png")
    assert done.returncode == 0, done.stderr
    with Image.open("x.png") as image:
        assert (image.format, image.size) == ("PNG", (8, 8))
    monkeypatch.setitem(sys.modules, "PIL", None)
    done = run("result", job_id, "-o", name)
    assert (done.returncode, Path(name).read_bytes() == picture) == (0, True), done.stderr
    done = run("result", job_id, "-o", "x.png")
    assert (done.returncode, f"a name that ends in .{kind}" in done.stderr) == (2, True)


def test_the_options_say_what_files_are_to_be(run: Run, client: Client) -> None:
    options = ("--format", "webp", "--quality", "80", "--no-embed-metadata", "--no-wait")
    done = run("txt2img", "a circle", *options)
    assert done.returncode == 0, done.stderr
    params = client.record(done.stdout.strip()).params
    assert [params[name] for name in ("format", "quality", "embed_metadata")] == ["webp", 80, False]
    for wrong, says in (
        (
            ("--quality", "80", "-o", "x.webp"),
            "invalid_params invalid params: quality: png has no quality",
        ),
        (("--format", "gif"), "'gif' is not one of"),
        (("--format", "webp", "--quality", "0"), "bad_usage Invalid value for '--quality'"),
    ):
        done = run("txt2img", "a circle", *wrong)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-o", "x.gif"), "-o x.gif: give a name that ends in .png, .jpg, .jpeg or .webp"),
        (("-o", "circle"), "-o circle: give a name that ends in"),
        (("-o", "none/x.png"), "-o none/x.png: none does not exist"),
        (("-o", "file/x.png"), "-o file/x.png: file is not a folder"),
        (("-o", "folder.png"), "-o folder.png is a folder"),
        (("-n", "2", "-o", "y.png"), "-o y-1.png is a folder"),
        (("-o", "x.png", "--no-wait"), "-o x.png cannot be used with --no-wait"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused_before_anything_is_submitted(
    run: Run, client: Client, options: tuple[str, ...], message: str
) -> None:
    Path("file").touch()
    for name in ("folder.png", "y-1.png"):
        Path(name).mkdir()
    done = run("txt2img", "a circle", *options)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert client.jobs().jobs == []


def test_a_format_that_takes_pillow_is_refused_where_that_is_missing(
    run: Run, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    done = run("txt2img", "a circle", "-o", "x.jpg")
    assert (done.returncode, "pip install pillow" in done.stderr) == (2, True), done.stderr
    assert client.jobs().jobs == []
    done = run("result", drawn_before(client), "-o", "x.png")
    assert done.returncode == 0, done.stderr


def drawn_before(client: Client) -> str:
    """A job that made a picture which takes no Pillow here."""
    job_id = client.txt2img("a circle").id
    draw(client, job_id, b"\x89PNG")
    return job_id


@pytest.mark.parametrize(
    "args",
    [
        ("txt2img", "a circle", "-n", "17"),
        ("txt2img", "a circle", "-n", "0"),
        ("img2txt", "x.png", "-n", "6"),
        ("img2txt", "x.png", "--beam-width", "11"),
    ],
)
def test_a_number_that_no_job_may_have_is_refused_before_anything_is_looked_at(
    run: Run, args: tuple[str, ...]
) -> None:
    options = ("-o", "none/x.png") if args[0] == "txt2img" else ()
    done = run(*args, *options)
    assert (done.returncode, "bad_usage Invalid value for" in done.stderr) == (2, True), done.stderr


def test_a_write_that_fails_says_how_to_get_the_picture(run: Run, client: Client) -> None:
    Path("x-1.png").mkdir()
    job_id = drawn(client, png(1), png(2))  # how many there are is known only now
    done = run("result", job_id, "-o", "x.png")
    assert done.returncode == 1
    assert "output_not_writable x-1.png cannot be written" in done.stderr
    assert f"`crossmodal result {job_id} -o FILE`" in done.stderr


def test_a_store_that_cannot_be_opened_is_refused_before_anything_is_submitted(
    run: Run, client: Client
) -> None:
    job_id = client.txt2img("a square").id
    for args in (("txt2img", "a circle"), ("result", job_id)):
        done = run(*args, "-o", "x.png", "--timeout", "0", CROSSMODAL_STORAGE_URL="ftp://x")
        assert (done.returncode, "invalid_setting" in done.stderr) == (2, True), done.stderr
    assert [job.id for job in client.jobs().jobs] == [job_id]


def test_a_read_that_fails_says_how_to_get_the_picture(
    run: Run, client: Client, tmp_path: Path
) -> None:
    job_id = drawn(client)
    other = (tmp_path / "other").as_uri()  # not where the worker has put it
    done = run("result", job_id, "-o", "x.png", CROSSMODAL_STORAGE_URL=other)
    assert done.returncode == 1
    assert done.stderr.startswith("error blob_not_found there is nothing at ")
    assert f"`crossmodal result {job_id} -o FILE`" in done.stderr
    assert not Path("x.png").exists()


def test_captions_are_not_written_to_a_picture(run: Run, client: Client) -> None:
    job_id = client.txt2img("a circle").id
    draw(client, job_id, captions=("a circle",))
    done = run("result", job_id, "-o", "x.png")
    assert (done.returncode, "made no pictures" in done.stderr) == (2, True)


# -- lists, and what is done to jobs ------------------------------------------------------------


def test_jobs_are_listed_the_latest_first_by_state_and_kind(run: Run, client: Client) -> None:
    ids = [client.txt2img(prompt).id for prompt in ("a circle", "a square", "a star")]
    client.cancel(ids[1])

    def listed(*options: str) -> list[str]:
        return [job["id"] for job in json.loads(run("jobs", "--json", *options).stdout)["jobs"]]

    assert listed() == ids[::-1]
    assert listed("--state", "canceled") == [ids[1]]
    assert listed("--task", "img2txt") == []
    assert listed("--owner", "somebody") == []
    shown = run("jobs", "--limit", "2").stdout
    assert "a star" in shown
    cursor = shown.strip().rpartition("--cursor ")[2]
    assert listed("--cursor", cursor) == [ids[0]]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("jobs",), "no jobs"),
        (("jobs", "--state", "failed"), "no jobs"),
        (("keys", "list"), "no API keys: `crossmodal keys create NAME` makes one"),
        (("dead", "list"), "no dead letters"),
        (("dead", "list", "--code", "x"), "no dead letters with the code x"),
        (("dead", "replay", "--all"), "no dead letters to replay"),
    ],
)
def test_an_empty_list_says_that_it_is_empty(run: Run, args: tuple[str, ...], said: str) -> None:
    done = run(*args)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{said}\n", "")
    json.loads(run(*args, "--json").stdout)


def test_what_failed_is_run_again_as_a_new_job(run: Run, client: Client) -> None:
    job = client.txt2img("a circle")
    refused = run("retry", job.id)
    assert (refused.returncode, "wrong_state" in refused.stderr) == (1, True)
    client.run(
        client.ledger.fail(
            started(client, job.id), Failure(code="timed_out", message="it took long")
        )
    )
    new = run("retry", job.id).stdout.strip()
    assert client.record(new).state is JobState.QUEUED
    again = json.loads(run("retry", job.id, "--json").stdout)
    assert again == {"id": new, "retry_of": job.id}


def test_an_ended_job_is_deleted_with_its_pictures(run: Run, client: Client) -> None:
    waiting = client.txt2img("a circle")
    refused = run("delete", waiting.id, "--json")
    assert (refused.returncode, json.loads(refused.stderr)["code"]) == (1, "wrong_state")
    job_id = drawn(client)
    assert run("delete", job_id).stdout == f"{job_id} deleted\n"
    assert run("status", job_id).returncode == 1
    assert not list(client.storage.list(f"results/{job_id}"))


@pytest.mark.parametrize("command", ["status", "wait", "result", "cancel", "retry", "delete"])
def test_an_id_that_nobody_has_is_no_bad_usage(run: Run, command: str) -> None:
    done = run(command, new_job_id(), "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert json.loads(done.stderr)["code"] == "job_not_found"


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("dead", "show", "x"), "dead_letter_not_found"),
        (("keys", "revoke", "x"), "api_key_not_found"),
        (("batch", "status", "x"), "job_not_found"),
    ],
)
def test_nor_is_any_other_thing_that_is_not_there(
    run: Run, args: tuple[str, ...], code: str
) -> None:
    done = run(*args)
    assert (done.returncode, done.stderr.startswith(f"error {code} ")) == (1, True), done.stderr


# -- output -----------------------------------------------------------------------------------


def test_data_is_printed_as_it_is(run: Run, client: Client) -> None:
    prompt = ":cat: [red]circle[/] " + "very " * 60 + "much"
    job = client.txt2img(prompt)
    client.run(
        client.ledger.fail(started(client, job.id), Failure(code="timed_out", message=prompt))
    )
    assert prompt in run("status", job.id).stdout  # in one line
    assert prompt in run("result", job.id).stderr
    done = run("img2txt", ":cat:.png")
    assert ":cat:.png: invalid_image: the picture :cat:.png cannot be read" in done.stdout


@pytest.mark.usefixtures("impatient")
def test_with_json_what_is_told_is_json_too(run: Run, checks: list[set[str]]) -> None:
    with meanwhile(press_ctrl_c, lambda: checks):
        done = run("txt2img", "a circle", "--json")
    told, error = map(json.loads, done.stderr.splitlines())
    assert told["note"].startswith(NOTE)
    assert error["code"] == "interrupted"
    assert done.stdout == ""


def test_a_gateway_says_that_another_program_listens_at_its_port(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run("gateway", "--port", str(port))
    assert done.returncode == 2
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use" in done.stderr
    assert "another --port" in done.stderr


def test_a_batch_whose_output_cannot_be_written_is_not_begun(run: Run, client: Client) -> None:
    Path("requests.jsonl").write_text('{"url": "/v1/txt2img", "body": {"prompt": "a circle"}}\n')
    Path("file").touch()
    for options in (("-o", "none/out"), ("-o", "out", "--images", "file/pictures")):
        done = run("batch", "run", "requests.jsonl", *options)
        assert (done.returncode, "cannot be" in done.stderr) == (2, True), done.stderr
    assert client.queue(Task("txt2img.bulk")).depth == 0


def test_a_disk_that_is_full_in_mid_batch_says_how_to_go_on(run: Run) -> None:
    Path("requests.jsonl").write_text("no JSON\n")  # has failed at once
    options = ("-o", "/dev/full", "--task", "txt2img", "--id", "mine")
    done = run("batch", "run", "requests.jsonl", *options)
    assert done.returncode == 1
    assert "output_not_writable /dev/full cannot be written" in done.stderr
    assert "the same command with --id mine resumes the batch" in done.stderr


def test_a_file_of_requests_that_goes_away_is_not_said_to_be_the_output(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two checks of it: how many lines it has, and what they say."""

    def items(file: BatchFile) -> Any:
        file.path.unlink()
        return all_items(file)

    all_items = BatchFile.items
    monkeypatch.setattr(BatchFile, "items", items)
    Path("requests.jsonl").write_text("no JSON\n")
    done = run("batch", "run", "requests.jsonl", "-o", "out", "--task", "txt2img")
    says = "error invalid_params requests.jsonl cannot be read: No such file or directory"
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr
