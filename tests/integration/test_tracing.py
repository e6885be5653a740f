"""One trace from the request through the worker and the model host, as a collector gets it."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from celery import Celery

from crossmodal.jobs.bulk import BulkItem
from crossmodal.jobs.origin import Origin
from crossmodal.jobs.record import JobState
from crossmodal.kinds.img2txt import Img2TxtParams
from crossmodal.kinds.task import Task
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.processes import Child
from producer import Client, JobFailed, JobHandle
from tests.collector import Collector, SpanSeen, collecting
from tests.conftest import settings_of, stack_environment
from tests.gateway import running_gateway
from tests.servers import start_server
from tests.waiting import until
from tests.workers import host_of, running_worker, suspended
from worker.devices import cores

PROMPT = "a large red circle on a white background"
SECRET = "zanzibar"  # no word that the models know
CALLER = "b7ad6b7169203331"
CROWD = 2 * cores()  # as many jobs as make batches of two
WAIT_S = 60
SINGLE = {"job.attempt", "infer", "batch wait", "inference", "store", "record"}


@dataclass(frozen=True)
class Traced:
    """A worker that tells a collector all."""

    client: Client
    collector: Collector
    worker: Child
    env: dict[str, str]

    def submit(self, params: Txt2ImgParams | Img2TxtParams, trace: str) -> JobHandle:
        origin = Origin(traceparent=f"00-{trace}-{CALLER}-01")
        return self.client.submit(params, origin=origin)

    def wait_for(self, trace: str, names: set[str]) -> dict[str, SpanSeen]:
        """The spans of a job that was attempted once, by name."""
        until(lambda: names <= {span.name for span in self.collector.of(trace)}, WAIT_S)
        return {span.name: span for span in self.collector.of(trace)}


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    yield from running(
        tmp_path_factory.mktemp("traced"),
        {"CROSSMODAL_MAX_BATCH": str(CROWD), "CROSSMODAL_MAX_WAIT_S": "0.3"},
    )


def running(folder: Path, settings: dict[str, str]) -> Iterator[Traced]:
    server = start_server(folder / "valkey")
    with collecting() as collector:
        env = stack_environment(server.port, folder) | collector.environment | settings
        with (
            running_worker(env, folder / "worker", CROWD) as worker,
            Client(settings_of(env)) as client,
        ):
            yield Traced(client, collector, worker, env)
    server.stop()


def new_trace() -> str:
    return secrets.token_hex(16)


def test_a_picture_is_one_trace_through_all_processes(traced: Traced) -> None:
    trace = new_trace()
    job = traced.submit(Txt2ImgParams(prompt=PROMPT, seed=7), trace)
    job.result(timeout_s=WAIT_S)
    spans = traced.wait_for(trace, SINGLE)
    assert spans.keys() == SINGLE
    attempt, infer = spans["job.attempt"], spans["infer"]
    assert attempt.parent == CALLER
    assert {spans[name].parent for name in ("infer", "store", "record")} == {attempt.id}
    assert {spans[name].parent for name in ("batch wait", "inference")} == {infer.id}
    assert not any(span.failed for span in spans.values())
    about = attempt.attributes
    assert about["crossmodal.job"] == job.id
    assert (about["crossmodal.task"], about["crossmodal.attempt"]) == ("txt2img", 1)
    assert about["crossmodal.queued_s"] >= 0


def test_a_request_over_http_is_one_trace_from_the_caller_to_the_store(
    traced: Traced, tmp_path: Path
) -> None:
    trace = new_trace()
    wanted = {"task": "txt2img", "prompt": PROMPT}
    headers = {"traceparent": f"00-{trace}-{CALLER}-01", "Prefer": "wait=60"}
    with running_gateway(traced.env, tmp_path) as gateway:
        reply = gateway.http.post("/v1/jobs", json=wanted, headers=headers)
        assert reply.status_code == 200, reply.text
        spans = traced.wait_for(trace, SINGLE)
        until(lambda: len(traced.collector.of(trace)) > len(SINGLE), WAIT_S, "the gateway's span")
        [request] = [s for s in traced.collector.of(trace) if s.name not in SINGLE]
    assert request.parent == CALLER
    assert request.resource["service.name"] == "crossmodal-gateway"
    assert spans["job.attempt"].parent == request.id


def test_its_inference_is_told_by_the_model_host(traced: Traced) -> None:
    trace = new_trace()
    traced.submit(Txt2ImgParams(prompt=PROMPT), trace).result(timeout_s=WAIT_S)
    spans = traced.wait_for(trace, SINGLE)
    host = host_of(traced.worker)
    for name, span in spans.items():
        of_host = name in ("batch wait", "inference")
        assert (span.pid == host.pid) == of_host
        role = "host" if of_host else "worker"
        assert span.resource["service.name"] == f"crossmodal-{role}"
    infer, wait, inference = spans["infer"], spans["batch wait"], spans["inference"]
    slack = 50_000_000  # ns, between the clock that goes and the one that is set
    assert infer.began - slack < wait.began < wait.ended <= inference.began
    assert inference.began < inference.ended < infer.ended + slack


def test_a_caption_also_fetches_its_picture(traced: Traced) -> None:
    drawn = traced.client.txt2img(PROMPT, seed=7).result(timeout_s=WAIT_S)
    trace = new_trace()
    traced.submit(Img2TxtParams(image=drawn.images[0]), trace).result(timeout_s=WAIT_S)
    spans = traced.wait_for(trace, SINGLE | {"fetch input"})
    assert spans["fetch input"].parent == spans["job.attempt"].id


def test_jobs_of_one_batch_keep_their_traces_and_the_batch_names_them_all(traced: Traced) -> None:
    traces = [new_trace() for _ in range(CROWD)]
    with suspended(host_of(traced.worker)):  # until all can be in one batch
        jobs = [traced.submit(Txt2ImgParams(prompt=PROMPT, seed=7), trace) for trace in traces]
        until(lambda: all(job.status().state is JobState.RUNNING for job in jobs), WAIT_S)
    sizes = [job.result(timeout_s=WAIT_S).batch_size for job in jobs]
    assert max(sizes) > 1
    together = [trace for trace, size in zip(traces, sizes, strict=True) if size > 1]
    seen = [traced.wait_for(trace, SINGLE) for trace in together]
    for spans in seen:
        assert spans.keys() == SINGLE
        [batch] = [s for s in traced.collector.spans if {s.id} == spans["inference"].links]
        assert batch.name == "batch"
        assert spans["infer"].id in batch.links
        assert batch.attributes["crossmodal.batch_size"] == len(batch.links) > 1
        assert (batch.began, batch.ended) == (spans["inference"].began, spans["inference"].ended)
        assert batch.trace not in traces


def test_a_failure_is_told_by_its_code_and_nothing_tells_the_prompt(traced: Traced) -> None:
    trace = new_trace()
    job = traced.submit(Txt2ImgParams(prompt=f"{SECRET} {SECRET}"), trace)
    with pytest.raises(JobFailed, match=SECRET):
        job.result(timeout_s=WAIT_S)
    spans = traced.wait_for(trace, SINGLE - {"store"})
    for name in ("job.attempt", "infer", "inference"):
        assert spans[name].failed
        assert spans[name].attributes["error.type"] == "unknown_words"
    assert not spans["record"].failed
    assert "store" not in spans
    received = list(traced.collector.received)
    assert not any(text in body for body in received for text in (SECRET.encode(), b"red circle"))


def test_a_bulk_message_is_an_attempt_with_its_parts_in_it(traced: Traced) -> None:
    trace = new_trace()
    origin = Origin(traceparent=f"00-{trace}-{CALLER}-01")
    items = [(Task("txt2img"), BulkItem(str(i), {"prompt": PROMPT, "seed": i})) for i in range(40)]
    results = traced.client.map_items(items, origin=origin)
    assert [result.failure for result in results if result.failure] == []
    spans = traced.wait_for(
        trace, {"job.attempt", "fetch input", "prepare", "infer", "store", "record", "inference"}
    )
    attempt = spans["job.attempt"]
    assert attempt.attributes["crossmodal.task"] == "txt2img.bulk"
    parts = [s for s in traced.collector.of(trace) if s.name in ("prepare", "infer", "store")]
    assert {span.parent for span in parts} == {attempt.id}
    for name in ("prepare", "infer", "store"):
        assert sum(s.attributes["crossmodal.items"] for s in parts if s.name == name) == 40


def test_a_plain_celery_message_may_bring_its_trace(traced: Traced) -> None:
    trace = new_trace()
    with Celery(broker=traced.env["CELERY_BROKER_URL"]) as app:
        app.send_task(
            "crossmodal.txt2img",
            kwargs={"prompt": PROMPT},
            headers={"traceparent": f"00-{trace}-{CALLER}-01"},
        )
    spans = traced.wait_for(trace, SINGLE)
    assert spans["job.attempt"].parent == CALLER


def test_who_does_not_record_is_not_recorded(traced: Traced) -> None:
    off, on = new_trace(), new_trace()
    unsampled = Origin(traceparent=f"00-{off}-{CALLER}-00")
    quiet = traced.client.submit(Txt2ImgParams(prompt=PROMPT), origin=unsampled)
    quiet.result(timeout_s=WAIT_S)
    traced.submit(Txt2ImgParams(prompt=PROMPT), on).result(timeout_s=WAIT_S)
    traced.wait_for(on, SINGLE)
    assert traced.collector.of(off) == []


def test_a_second_attempt_is_in_the_same_trace_and_a_stop_sends_what_is_left(
    tmp_path: Path,
) -> None:
    trace = new_trace()
    later = {"OTEL_BSP_SCHEDULE_DELAY": "600000"}  # ms: only the end sends anything
    stack = running(tmp_path, later)
    traced = next(stack)
    host = host_of(traced.worker)
    traced.submit(Txt2ImgParams(prompt=PROMPT), new_trace()).result(
        timeout_s=WAIT_S
    )  # it is joined
    with suspended(host):
        job = traced.submit(Txt2ImgParams(prompt=PROMPT), trace)
        until(lambda: job.status().state is JobState.RUNNING, WAIT_S)
        host.kill()
    assert job.result(timeout_s=WAIT_S).attempt == 2
    assert traced.collector.of(trace) == []
    traced.worker.stop(WAIT_S)
    spans = traced.collector.of(trace)
    attempts = sorted((s for s in spans if s.name == "job.attempt"), key=lambda s: s.began)
    assert [s.attributes["crossmodal.attempt"] for s in attempts] == [1, 2]
    assert [s.parent for s in attempts] == [CALLER, CALLER]
    assert [s.failed for s in attempts] == [True, False]
    assert attempts[0].attributes["error.type"] == "model_host_crashed"
    [inference] = [s for s in spans if s.name == "inference"]
    [infer] = [s for s in spans if s.id == inference.parent]
    assert infer.parent == attempts[1].id
    next(stack, None)
