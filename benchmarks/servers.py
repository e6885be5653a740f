"""Pictures per second of two model servers and this project, on the same cores.

    python benchmarks/servers.py [--json] [--jobs N]

The same pipeline draws one picture per request, and the client receives the PNG file. Each turn
starts the server, warms it up, and measures the time from the first job to the last picture.
"""

import base64
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from environments import CONTENDERS, environment
from harness import Report, arguments, median, save_plot, take_turns
from stack import Running, real_stack

from crossmodal.local.valkey import free_port
from crossmodal.processes import Child, wait_until

CORES = 2
CLIENTS = 16
START_S, LIMIT_S, POLL_S = 120.0, 60.0, 0.02
WARM_JOBS = 64
PROMPTS = [
    f"a {size} {color} {shape} on a white background"
    for size in ("big", "small")
    for color in ("red", "green", "blue")
    for shape in ("circle", "square")
]
PNG = b"\x89PNG"

Draw = Callable[[HTTPConnection, list[dict[str, Any]]], int]


def jobs_of(count: int) -> list[dict[str, Any]]:
    """Return `count` prompts with seeds."""
    return [{"prompt": PROMPTS[i % len(PROMPTS)], "seed": i} for i in range(count)]


def ask(connection: HTTPConnection, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    """Send a request; return the response's status and body."""
    text = None if body is None else json.dumps(body)
    connection.request(method, path, text, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def draw_litserve(connection: HTTPConnection, jobs: list[dict[str, Any]]) -> int:
    """Send one request after the other; return the number of pictures."""
    answers = [ask(connection, "POST", "/predict", job) for job in jobs]
    return sum(status == 200 and body.startswith(PNG) for status, body in answers)


def draw_bentoml(connection: HTTPConnection, jobs: list[dict[str, Any]]) -> int:
    """Submit all jobs before polling the first, to poll little; return the number of pictures."""
    tasks = []
    for job in jobs:
        _, body = ask(connection, "POST", "/draw/submit", {"jobs": [job]})
        tasks.append(json.loads(body)["task_id"])
    return sum(_fetch(connection, task).startswith(PNG) for task in tasks)


def _fetch(connection: HTTPConnection, task: str) -> bytes:
    def has_ended() -> bool:
        _, body = ask(connection, "GET", f"/draw/status?task_id={task}")
        return bool(json.loads(body)["status"] != "in_progress")

    assert wait_until(has_ended, LIMIT_S, POLL_S), f"the task {task} did not end"
    _, body = ask(connection, "GET", f"/draw/get?task_id={task}")
    return base64.b64decode(json.loads(body)[0])


def over_http(port: int, draw: Draw, count: int) -> float:
    """Return pictures per second with all clients at work."""
    jobs = jobs_of(count)
    begun = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as threads:
        made = sum(threads.map(lambda n: _client(port, draw, jobs[n::CLIENTS]), range(CLIENTS)))
    assert made == count, f"{made} of {count}"
    return count / (time.perf_counter() - begun)


def _client(port: int, draw: Draw, jobs: list[dict[str, Any]]) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    try:
        return draw(connection, jobs)
    finally:
        connection.close()


@contextmanager
def serving(argv: list[str], port: int) -> Iterator[None]:
    """Run a server until the block ends, once it answers."""
    with TemporaryDirectory(prefix="bench-") as name, (Path(name) / "log").open("wb") as log:
        env = {
            "PYTHONPATH": str(CONTENDERS),
            "BENTOML_HOME": name,
            "BENTOML_DO_NOT_TRACK": "True",
            "OMP_NUM_THREADS": "1",
            "BENCH_THREADS": str(CORES),
        }
        child = Child("server", argv, env, log)
        child.start()
        try:
            assert wait_until(lambda: _answers(port) or not child.is_alive, START_S)
            assert child.is_alive, (Path(name) / "log").read_text()
            yield
        finally:
            child.stop(20)
            # LitServe's workers and HTTP processes live on after the process that started them.
            if child.pid is not None:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    with suppress(OSError, HTTPException):
        return any(ask(connection, "GET", path)[0] == 200 for path in ("/health", "/readyz"))
    return False


def through_server(new_argv: Callable[[int], list[str]], draw: Draw, count: int) -> float:
    """Start a server, warm it up, and return its pictures per second."""
    port = free_port()
    with serving(new_argv(port), port):
        over_http(port, draw, WARM_JOBS)
        return over_http(port, draw, count)


def litserve(programs: Path, port: int) -> list[str]:
    """Return LitServe's command, with one process per core."""
    script = str(CONTENDERS / "litserve_server.py")
    return [str(programs / "python"), script, str(port), str(CORES)]


def bentoml(programs: Path, port: int) -> list[str]:
    """Return BentoML's command, with one thread per core: bentoml_server.py says why."""
    return [
        str(programs / "bentoml"),
        "serve",
        "bentoml_server:Drawing",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--working-dir",
        str(CONTENDERS),
    ]


def through_ours(run: Callable[[Running, int], int], count: int) -> float:
    """Return pictures per second of this project."""
    with real_stack() as running:
        run(running, WARM_JOBS)
        begun = time.perf_counter()
        made = run(running, count)
        assert made == count, f"{made} of {count}"
        return count / (time.perf_counter() - begun)


def interactive(running: Running, count: int) -> int:
    """Submit single jobs, and read each picture."""
    client = running.client
    handles = [client.txt2img(**job) for job in jobs_of(count)]
    ended = (handle.result(LIMIT_S) for handle in client.as_completed(handles))
    return sum(client.read(job.images[0]).startswith(PNG) for job in ended)


def bulk(running: Running, count: int) -> int:
    """Run one batch, and read each picture."""
    client = running.client
    results = client.map_txt2img([job["prompt"] for job in jobs_of(count)], seed=0)
    return sum(client.read(result.images[0]).startswith(PNG) for result in results)


def measure(rounds: int, count: int) -> dict[str, float | None]:
    """Return the rates; None for a server that could not be installed."""
    ways: dict[str, Callable[[], float]] = {}
    servers: tuple[tuple[str, Callable[[Path, int], list[str]], Draw], ...] = (
        ("litserve", litserve, draw_litserve),
        ("bentoml", bentoml, draw_bentoml),
    )
    for name, argv, draw in servers:
        if programs := environment(name, with_ours=True):
            ways[name] = partial(through_server, partial(argv, programs), draw, count)
    ways["crossmodal"] = partial(through_ours, interactive, count)
    ways["crossmodal_bulk"] = partial(through_ours, bulk, count)
    rates = {name: median(values) for name, values in take_turns(ways, rounds).items()}
    return {name: rates.get(name) for name, *_ in servers} | rates


def plot(rates: dict[str, float | None]) -> None:
    """Plot the rates as bars."""
    from matplotlib.figure import Figure

    known = {name: rate for name, rate in rates.items() if rate is not None}
    figure = Figure(figsize=(6, 2.2))
    axes = figure.subplots()
    colors = ["tab:orange" if name.startswith("crossmodal") else "tab:blue" for name in known]
    axes.bar_label(
        axes.barh(list(known), list(known.values()), color=colors), fmt="{:,.0f}", padding=2
    )
    axes.set_xlabel("pictures a second")
    axes.margins(x=0.15)
    save_plot("servers", figure)


NOTES = f"""Medians of the rounds. All on {CORES} cores: the server, its clients, and for crossmodal
its Valkey and object store. LitServe has a process for each core, BentoML a thread for each, both
batches of up to 16, and {CLIENTS} clients with a connection each. LitServe answers the request with
the picture and keeps nothing. BentoML's jobs are batchable tasks, which it keeps in SQLite; clients
submit all, then ask for each. crossmodal's jobs survive a crash of any process, and its pictures
are read from the object store."""


def main() -> None:
    """Measure, print and save the results."""
    parser = arguments(__doc__)
    parser.add_argument("--jobs", type=int, default=300)
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])  # children inherit it
    rates = measure(args.rounds, args.jobs)
    figures: dict[str, Any] = {name: rate and round(rate, 1) for name, rate in rates.items()}
    ours = rates["crossmodal"] or 0.0
    for name in ("litserve", "bentoml"):
        rate = rates[name]
        figures[f"over_{name}"] = rate and round(ours / rate, 2)
    report = Report(
        "servers",
        "Pictures a second, beside model servers",
        ("server", "pictures a second"),
        figures=figures,
        notes=NOTES,
    )
    for name in reversed(rates):
        report.rows.append((name.replace("_", " "), figures[name]))
    report.finish(args.json)
    plot(rates)


if __name__ == "__main__":
    main()
