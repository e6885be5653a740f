"""Spans of programs, as they arrive at a collector."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from crossmodal import tracing
from tests.at_once import at_once
from tests.collector import Collector, SpanSeen, collecting
from tests.unit.bad_host import Serve, ask_once, receive, reply

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{CALLER}-01"
CONSUMER = 5  # OTLP's number


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def run(
    program: str,
    env: dict[str, str],
    begin: str = "tracing.configure('worker')",
    flush_s: float = 30.0,
) -> str:
    """What a program says that traces and then tells all."""
    whole = (
        f"from crossmodal import tracing\ntracing.FLUSH_S = {flush_s}\n{begin}\n{program}\n"
        "tracing.flush()"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", whole],
        env=clean | env,
        timeout=60,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ).stdout


def test_a_span_has_the_parent_it_is_given_and_its_attributes(collector: Collector) -> None:
    run(
        f"""
with tracing.span("job.attempt", {PARENT!r}, kind="consumer", job="j", attempt=2) as span:
    span.set(queued_s=0.5)
""",
        collector.environment,
    )
    [span] = collector.spans
    assert (span.name, span.trace, span.parent) == ("job.attempt", TRACE, CALLER)
    assert (span.kind, span.failed) == (CONSUMER, False)
    assert span.attributes == {
        "crossmodal.job": "j",
        "crossmodal.attempt": 2,
        "crossmodal.queued_s": 0.5,
    }


def test_a_span_within_another_is_its_child_also_in_a_thread(collector: Collector) -> None:
    run(
        f"""
import asyncio
from crossmodal.settings import load_settings
from worker.blobs import Blobs
def work():
    with tracing.span("grandchild"): pass
async def main():
    with tracing.span("root", {PARENT!r}), tracing.span("child"):
        await Blobs(load_settings()).call(work)
asyncio.run(main())
""",
        collector.environment,
    )
    spans = by_name(collector)
    assert spans["child"].parent == spans["root"].id
    assert spans["grandchild"].parent == spans["child"].id
    assert {span.trace for span in spans.values()} == {TRACE}


def test_a_span_without_a_parent_begins_a_trace(collector: Collector) -> None:
    run(
        "with tracing.span('x'): pass\nwith tracing.span('y', 'garbage'): pass",
        collector.environment,
    )
    assert [span.parent for span in collector.spans] == ["", ""]
    assert len({span.trace for span in collector.spans}) == 2


def test_what_raises_has_failed_with_its_code_and_without_its_text(collector: Collector) -> None:
    run(
        """
from contextlib import suppress
from crossmodal.errors import UnknownWords
for error in (UnknownWords("my secret prompt"), ValueError("my secret prompt")):
    with suppress(Exception), tracing.span("x"):
        raise error
""",
        collector.environment,
    )
    assert [span.failed for span in collector.spans] == [True, True]
    errors = [span.attributes["error.type"] for span in collector.spans]
    assert errors == ["unknown_words", "ValueError"]
    assert not any(b"secret" in body for body in collector.received)


def test_work_that_is_over_is_told_with_its_times_and_links(collector: Collector) -> None:
    said = run(
        f"""
batch = tracing.record("batch", 1000.25, 1001.5, links=[{PARENT!r}], batch_size=2)
tracing.record("inference", 1000.5, 1001.5, {PARENT!r}, links=[batch], code="timed_out")
print(batch)
""",
        collector.environment,
    )
    spans = by_name(collector)
    batch, inference = spans["batch"], spans["inference"]
    assert said.startswith(f"00-{batch.trace}-{batch.id}-")
    assert (batch.began, batch.ended) == (1_000_250_000_000, 1_001_500_000_000)
    assert batch.links == {CALLER}
    assert batch.trace != TRACE
    assert (inference.trace, inference.parent) == (TRACE, CALLER)
    assert inference.links == {batch.id}
    assert inference.attributes["error.type"] == "timed_out"
    assert inference.failed


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({}, "crossmodal-worker"),
        ({"OTEL_SERVICE_NAME": "mine"}, "mine"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=ours"}, "ours"),
    ],
)
def test_a_service_has_the_name_of_its_role_or_the_one_it_is_given(
    collector: Collector, env: dict[str, str], name: str
) -> None:
    run("with tracing.span('x'): pass", collector.environment | env)
    [span] = collector.spans
    assert span.resource["service.name"] == name


def test_who_does_not_record_is_not_recorded_here_either(collector: Collector) -> None:
    said = run(
        f"""
with tracing.span("x", "00-{TRACE}-{CALLER}-00"):
    print(tracing.current())
with tracing.span("y"): pass
""",
        collector.environment,
    )
    assert said.strip().startswith(f"00-{TRACE}-")
    assert said.strip().endswith("-00")
    assert [span.name for span in collector.spans] == ["y"]


def test_the_sampler_is_that_of_the_environment(collector: Collector) -> None:
    env = collector.environment | {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}
    run(f"with tracing.span('x'): pass\nwith tracing.span('y', {PARENT!r}): pass", env)
    assert [span.name for span in collector.spans] == ["y"]


def test_a_forked_process_sends_its_own_spans(collector: Collector) -> None:
    said = run(
        """
import os
tracing.prepare()
if (child := os.fork()) == 0:
    tracing.configure("worker")
    with tracing.span("x"): pass
    tracing.flush()
    os._exit(0)
os.waitpid(child, 0)
print(child)
""",
        collector.environment,
        begin="",
    )
    [span] = collector.spans
    assert span.pid == int(said)


def test_a_span_of_the_app_that_submits_is_found(collector: Collector) -> None:
    said = run(
        """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
print(tracing.current())
with TracerProvider().get_tracer("app").start_as_current_span("request") as span:
    print(tracing.current())
    print(f"00-{span.get_span_context().trace_id:032x}-{span.get_span_context().span_id:016x}-")
""",
        {},
        begin="",
    ).split()
    assert said[0] == "None"
    assert said[1].startswith(said[2])


def test_a_provider_that_the_program_has_set_is_used(collector: Collector) -> None:
    said = run(
        """
with tracing.span("x"): pass
print([span.name for span in exporter.get_finished_spans()])
""",
        collector.environment,
        begin="""
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
tracing.configure("gateway")
""",
    )
    assert said.strip() == "['x']"
    assert collector.spans == []


OFF = [
    {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    {"OTEL_SDK_DISABLED": "true"},
    {"OTEL_TRACES_EXPORTER": "none"},
]
USE = """
import sys
with tracing.span("x", kind="client", job="j") as span:
    span.set(a=1)
    span.fail("code")
    print(tracing.is_on(), tracing.current(), tracing.record("y", 0, 1))
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


@pytest.mark.parametrize("env", OFF, ids=lambda env: next(iter(env)))
def test_where_tracing_is_off_nothing_of_it_is_loaded(
    collector: Collector, env: dict[str, str]
) -> None:
    assert run(USE, collector.environment | env).split("\n")[:2] == ["False None None", "[]"]
    assert collector.received == []


def test_a_missing_package_is_said_and_harms_nothing(collector: Collector) -> None:
    begin = "import sys; sys.modules['opentelemetry.sdk'] = None\ntracing.configure('worker')"
    said = run("with tracing.span('x'): print('done')", collector.environment, begin)
    assert "pip install 'crossmodal-jobs[otel]'" in said
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in said
    assert "done" in said


def test_another_protocol_is_said_and_harms_nothing(collector: Collector) -> None:
    env = collector.environment | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert "not as grpc" in run("with tracing.span('x'): pass", env)
    assert collector.received == []


@pytest.mark.parametrize("refuses", [False, True], ids=["silent", "refuses"])
def test_a_collector_that_is_away_holds_up_nothing(refuses: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if refuses:
            listener.close()
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
        said = run(
            """
import time
begun = time.monotonic()
for _ in range(3_000):
    with tracing.span("x"): pass
tracing.flush()
print("took", time.monotonic() - begun)
""",
            env,
            flush_s=0.3,
        )
    took_s = float(said.rpartition("took ")[2].split()[0])
    assert took_s < 8


@at_once("text", ["", "garbage", PARENT[:-1], f"{PARENT}-", PARENT.upper(), None, 5])
def test_what_is_no_traceparent_is_not_taken_for_one(text: object) -> None:
    assert tracing.checked(text) is None
    assert not tracing.is_sampled(str(text))


def test_a_traceparent_says_whether_it_is_sampled() -> None:
    assert tracing.checked(PARENT) == PARENT
    assert tracing.is_sampled(PARENT)
    assert tracing.is_sampled(f"{PARENT[:-2]}03")
    assert not tracing.is_sampled(f"{PARENT[:-2]}00")


def test_a_request_to_the_model_host_carries_nothing_more_where_tracing_is_off(
    serve: Serve,
) -> None:
    asked: list[dict[str, object]] = []

    def behave(connection: socket.socket, number: int) -> None:
        asked.append(receive(connection))
        connection.sendall(reply(asked[0]["id"]))

    ask_once(serve(behave))
    assert asked[0].keys() == {"id", "op", "task", "alone", "bulk", "requests"}


def by_name(collector: Collector) -> dict[str, SpanSeen]:
    return {span.name: span for span in collector.spans}
