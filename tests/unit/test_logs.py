"""What the programs of a stack write, run as programs."""

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BEGIN = """
import logging
from crossmodal import logs
from crossmodal.settings import load_settings
logs.configure(load_settings(), process="host", device="cpu")
log = logging.getLogger("worker.host")
"""


def said(program: str, **env: str) -> str:
    """What a program writes that logs, to something that is no terminal."""
    return subprocess.run(
        [sys.executable, "-c", BEGIN + program],
        env={**os.environ, **env},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    ).stderr


def said_at_a_terminal(program: str, **env: str) -> str:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", BEGIN + program], stderr=theirs, env={**os.environ, **env}
    ):
        os.close(theirs)
        text = b""
        try:
            while chunk := os.read(ours, 65_536):
                text += chunk
        except OSError:  # how Linux says that the other end is closed
            os.close(ours)
    return text.decode()


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_is_an_object_that_says_who_said_what_and_when() -> None:
    [line] = lines(said("log.info('ready on %s', 'é\\ncpu')"))
    assert line.pop("timestamp")[:2] == "20"
    assert line.pop("pid") > 0
    assert line == {
        "level": "info",
        "logger": "worker.host",
        "process": "host",
        "device": "cpu",
        "event": "ready on é\ncpu",
    }


def test_times_are_those_of_greenwich() -> None:
    [line] = lines(said("log.info('x')", TZ="Pacific/Auckland"))
    now = time.strftime("%Y-%m-%dT%H", time.gmtime())
    hour_ago = time.strftime("%Y-%m-%dT%H", time.gmtime(time.time() - 3_600))
    assert line["timestamp"].startswith((now, hour_ago))
    assert line["timestamp"].endswith("Z")


def test_a_context_is_in_all_lines_until_it_is_left() -> None:
    inside, after = lines(
        said("""
with logs.context(job="j", attempt=2, task="txt2img"):
    logging.getLogger("deeper").warning("inside")
log.warning("after")
""")
    )
    assert (inside["job"], inside["attempt"], inside["task"]) == ("j", 2, "txt2img")
    assert not {"job", "attempt", "task"} & after.keys()


def test_a_context_within_another_gives_way_to_it_again() -> None:
    inner, outer = lines(
        said("""
with logs.context(job="outer"):
    with logs.context(job="inner"):
        log.warning("x")
    log.warning("y")
""")
    )
    assert (inner["job"], outer["job"]) == ("inner", "outer")


def test_threads_of_an_attempt_speak_in_its_context() -> None:
    [line] = lines(
        said("""
import asyncio
from crossmodal.settings import load_settings
from worker.blobs import Blobs
async def main():
    with logs.context(job="j"):
        await Blobs(load_settings()).call(log.warning, "from a thread")
asyncio.run(main())
""")
    )
    assert line["job"] == "j"


def test_an_exception_is_part_of_its_line_without_what_variables_held() -> None:
    program = """
prompt = "my " + "secret"
try:
    len(prompt) / 0
except ZeroDivisionError:
    log.exception("it failed")
"""
    [line] = lines(said(program))
    assert line["event"] == "it failed"
    assert line["exception"].splitlines()[-1] == "ZeroDivisionError: division by zero"
    for text in (line["exception"], said(program, CROSSMODAL_LOG_FORMAT="human")):
        assert "Traceback" in text
        assert "my secret" not in text


def test_what_ends_a_process_is_a_line_too() -> None:
    [line] = lines(said("raise ValueError('so be it')"))
    assert line["level"] == "critical"
    assert "ValueError: so be it" in line["exception"]


def test_warnings_are_lines_too() -> None:
    [line] = lines(said("import warnings; warnings.warn('mind the gap')"))
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "mind the gap" in line["event"]


def test_only_known_fields_come_from_extra() -> None:
    [line] = lines(said("log.info('x', extra={'job': 'j', 'prompt': 'my secret'})"))
    assert line["job"] == "j"
    assert "prompt" not in line


def test_the_level_is_that_of_the_settings() -> None:
    assert said("log.info('x')", CROSSMODAL_LOG_LEVEL="WARNING") == ""
    assert lines(said("log.debug('x')", CROSSMODAL_LOG_LEVEL="DEBUG"))


def test_people_at_a_terminal_get_columns_in_color() -> None:
    text = said_at_a_terminal("log.info('ready')")
    assert "ready" in text
    assert "\x1b[" in text
    assert not text.startswith("{")


def test_the_format_can_be_chosen() -> None:
    text = said("log.info('ready')", CROSSMODAL_LOG_FORMAT="human")
    assert "ready" in text
    assert "\x1b[" not in text
    assert not text.startswith("{")
    [line] = lines(said_at_a_terminal("log.info('ready')", CROSSMODAL_LOG_FORMAT="json"))
    assert line["event"] == "ready"


def test_a_file_takes_the_lines_when_there_is_one(tmp_path: Path) -> None:
    file = tmp_path / "log"
    assert said(f"logs.configure(load_settings(), file={str(file)!r}); log.info('x')") == ""
    assert [line["event"] for line in lines(file.read_text())] == ["x"]


def test_a_line_names_the_span_in_which_it_was_said() -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    inside, after = lines(
        said(
            f"""
from crossmodal import tracing
tracing.configure("worker")
with tracing.span("work", {parent!r}):
    log.info("inside")
log.info("after")
""",
            OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        )
    )[:2]
    assert inside["trace_id"] == parent.split("-")[1]
    assert len(inside["span_id"]) == 16
    assert not {"trace_id", "span_id"} & after.keys()
