"""The queue's overhead: jobs per second through it, relative to the bare pipeline.

    python benchmarks/efficiency.py [--json]

The bare side calls the same pipeline in a loop in this process, with its best batch size and
number of threads, and does not store its pictures and captions. The other sides run end to end:
interactive jobs are submitted one by one and awaited, bulk ones are `map_txt2img` and
`map_img2txt`, and every result goes to the object store.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from harness import Report, device_arguments, median, save_plot, take_turns
from stack import Running, real_stack

from crossmodal.kinds.fields import BlobRef
from crossmodal.kinds.img2txt import Img2TxtParams
from crossmodal.kinds.txt2img import Txt2ImgParams
from crossmodal.models.catalog import open_folder
from crossmodal.settings import Settings
from crossmodal.vision.encode import encode_png
from crossmodal.vision.preprocess import fit_square
from producer import JobHandle
from worker.host.models import loaded
from worker.host.pipeline import Drawn, HostRequest, ModelPipeline

COLORS = ("red", "green", "blue", "yellow")
PLACES = ("at the top", "on the left", "in the center", "in the bottom right")
PROMPTS = [
    f"a {size} {color} {shape} {place} on a {ground} background"
    for size in ("big", "small")
    for color in COLORS
    for shape in ("circle", "square")
    for place in PLACES
    for ground in ("white", "black")
]
BATCHES = (1, 4, 16, 64)
TRIAL_S, BARE_S = 1.0, 5.0
JOBS = 384


def requests(
    settings: Settings, device: str = "cpu"
) -> tuple[dict[str, ModelPipeline], dict[str, list[HostRequest]], list[bytes]]:
    """Return both pipelines, requests for them, and the pictures as files."""
    draw, describe = loaded(open_folder(settings.bundle), device).values()
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(JOBS)]
    drawing = [HostRequest(Txt2ImgParams(prompt=p, seed=i)) for i, p in enumerate(prompts)]
    pictures = [o.images[0] for o in draw.run(drawing[:128]) if isinstance(o, Drawn)]
    params = Img2TxtParams(image=BlobRef(key="bench"))
    describing = [HostRequest(params, fit_square(p, describe.model.side or 0)) for p in pictures]
    files = [encode_png(p, "") for p in pictures]
    return (
        {"txt2img": draw, "img2txt": describe},
        {"txt2img": drawing, "img2txt": describing},
        files,
    )


def bare(
    pipeline: ModelPipeline, work: Sequence[HostRequest], batch: int, threads: int, s: float
) -> float:
    """Return items per second of the pipeline alone, in a loop for `s` seconds."""
    torch.set_num_threads(threads)
    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < s:
        some = [work[(done + i) % len(work)] for i in range(batch)]
        pipeline.run(some)
        done += batch
    return done / (time.perf_counter() - begun)


def best(pipeline: ModelPipeline, work: Sequence[HostRequest]) -> tuple[int, int]:
    """Return the batch size and the number of threads at which the pipeline is fastest."""
    choices = [(b, t) for b in BATCHES for t in sorted({1, len(os.sched_getaffinity(0))})]
    pipeline.run(work[:4])
    return max(choices, key=lambda c: bare(pipeline, work, *c, s=TRIAL_S))


def rate(count: int, run: Callable[[], Iterable[Any]]) -> float:
    """Return the items per second that `run` yields, which must be `count` in all."""
    begun = time.perf_counter()
    made = sum(1 for _ in run())
    assert made == count, f"{made} of {count}"
    return count / (time.perf_counter() - begun)


def interactive(running: Running, submit: Callable[[int], JobHandle]) -> float:
    """Return the rate of single jobs, from the first submit to the last end."""
    return rate(JOBS, lambda: running.client.as_completed([submit(i) for i in range(JOBS)]))


def measure(running: Running, rounds: int, device: str) -> dict[str, dict[str, Any]]:
    """Measure the rates and ratios of both kinds."""
    pipelines, work, files = requests(running.settings, device)
    client = running.client
    pictures = [files[i % len(files)] for i in range(JOBS)]
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(JOBS)]
    ways: dict[str, dict[str, Callable[[], float]]] = {
        "txt2img": {
            "bulk": lambda: rate(JOBS, lambda: client.map_txt2img(prompts)),
            "interactive": lambda: interactive(running, lambda i: client.txt2img(prompts[i])),
        },
        "img2txt": {
            "bulk": lambda: rate(JOBS, lambda: client.map_img2txt(pictures)),
            "interactive": lambda: interactive(running, lambda i: client.img2txt(pictures[i])),
        },
    }
    found = {}
    for task, through in ways.items():
        batch, threads = best(pipelines[task], work[task])
        contestants = {
            "bare": lambda t=task, b=batch, n=threads: bare(pipelines[t], work[t], b, n, BARE_S),
            **through,
        }
        rates = {k: median(v) for k, v in take_turns(contestants, rounds).items()}
        found[task] = {
            "bulk": round(rates["bulk"] / rates["bare"], 3),
            "interactive": round(rates["interactive"] / rates["bare"], 3),
            "rates": {k: round(v, 1) for k, v in rates.items()},
            "bare_batch": batch,
            "bare_threads": threads,
        }
    return found


def plot(found: dict[str, dict[str, Any]], prefix: str) -> None:
    """Plot the rates as bars."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2))
    axes = figure.subplots()
    ways = ("bare", "bulk", "interactive")
    for i, way in enumerate(ways):
        axes.bar(
            [x + (i - 1) * 0.27 for x in range(2)],
            [f["rates"][way] for f in found.values()],
            0.25,
            label=way,
        )
    axes.set_xticks(range(2), list(found))
    axes.set_ylabel("a second")
    axes.legend()
    save_plot(prefix + "efficiency", figure)


def main() -> None:
    """Measure, print and save the results."""
    args = device_arguments(__doc__).parse_args()
    with real_stack(args.device) as running:
        list(running.client.map_txt2img(PROMPTS))  # warm up: start processes, load models
        found = measure(running, args.rounds, args.device)
    report = Report(
        args.prefix + "efficiency",
        "Through the queue, beside the bare model",
        ("task", "way", "a second", "of the bare model"),
        figures=found,
        notes="Bare: the pipeline in a loop, at its best batch size and number of threads "
        + ", ".join(f"({t}: {f['bare_batch']} and {f['bare_threads']})" for t, f in found.items())
        + ". Medians of the rounds. Ratios above 1 are possible on a CPU: the model host runs a "
        "batch on each core, side by side, which is faster than one batch on all of them.",
    )
    for task, f in found.items():
        for way, r in f["rates"].items():
            report.rows.append((task, way, r, round(r / f["rates"]["bare"], 3)))
    report.finish(args.json)
    plot(found, args.prefix)


if __name__ == "__main__":
    main()
