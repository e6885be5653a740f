"""Models on a CUDA device, then efficiency, latency and batching of the queue in front of it.

    python benchmarks/gpu.py [--json] [--parts models,efficiency,latency,batching]
    python benchmarks/gpu.py --parts models --device cpu --small      # a dry run

Models: Stable Diffusion 1.5 in its true dimensions with random weights, in float16, and the
shipped ones. Without a device the script says so and ends. Results go to the folder in OUT, if set.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from harness import RESULTS, Report, arguments, median, percentile

from crossmodal.console import print_json, say
from crossmodal.kinds.task import Task
from crossmodal.models.catalog import open_folder
from crossmodal.settings import load_settings
from tests.tiny import sd15
from worker.devices import gpu_names
from worker.host.device import open_device, peak_bytes
from worker.host.models import loaded
from worker.host.pipeline import Drawn, HostRequest, ModelPipeline

PARTS = ("efficiency", "latency", "batching")
SD15_BATCHES, SHIPPED_BATCHES = (1, 4), (1, 16, 64)
TRIAL_S = 2.0


class Clock:
    """The times of steps, each after the device has finished its queued work."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._at: list[float] = []

    def step(self, done: int, of: int) -> None:
        synchronize(self._device)
        self._at.append(time.perf_counter())

    @property
    def steps_ms(self) -> list[float]:
        """Durations of all steps but the first, which includes encoding the prompt."""
        return [(b - a) * 1e3 for a, b in zip(self._at, self._at[1:], strict=False)]


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def made(folder: Path, args: argparse.Namespace) -> Path:
    """Write Stable Diffusion 1.5, or a small version of it, into `folder`."""
    size, dtype = (sd15.SMALL, "bfloat16") if args.small else (sd15.TRUE, "float16")
    sd15.make(folder, size, torch.float16)
    side, steps = (64, 4) if args.small else (512, 20)
    (folder / "crossmodal.toml").write_text(
        f'dtype = "{dtype}"\nmax_batch = {max(SD15_BATCHES)}\n'
        f"[defaults]\nwidth = {side}\nheight = {side}\nsteps = {steps}\n"
    )
    return folder


def runs_s(run: Callable[[], object], rounds: int) -> list[float]:
    """Return durations of runs after a warm-up: at least `rounds`, for at least `TRIAL_S`."""
    run()
    took: list[float] = []
    while len(took) < rounds or sum(took) < TRIAL_S:
        begun = time.perf_counter()
        run()
        took.append(time.perf_counter() - begun)
    return took


def of_one(pipeline: ModelPipeline, seed: int) -> HostRequest:
    """Return the model's own example request, with count 1 and a seed."""
    example = pipeline.example()
    update = {"count": 1} | ({"seed": seed} if "seed" in type(example.params).model_fields else {})
    return example._replace(params=example.params.model_copy(update=update))


def measured(
    pipeline: ModelPipeline, batch: int, rounds: int, device: torch.device
) -> dict[str, Any]:
    """Measure runs of a batch, results copied to the CPU, and the steps of one more."""
    asked = [of_one(pipeline, seed) for seed in range(batch)]
    took = runs_s(lambda: pipeline.run(asked), rounds)
    clock = Clock(device)
    outcomes = pipeline.run(asked, clock)
    assert not any(isinstance(one, Exception) for one in outcomes), outcomes
    steps = clock.steps_ms
    return {
        "batch": batch,
        "runs": len(took),
        "a_second": round(batch / median(took), 3),
        "run_ms": round(median(took) * 1e3, 2),
        "run_p95_ms": round(percentile(took, 95) * 1e3, 2),
        "steps": len(steps) + 1 if steps else 0,
        "draws": isinstance(outcomes[0], Drawn),
        "step_p50_ms": round(median(steps), 2) if steps else None,
        "step_p95_ms": round(percentile(steps, 95), 2) if steps else None,
    }


def of_folder(
    folder: Path, batches: tuple[int, ...], rounds: int, device: torch.device
) -> dict[Task, list[dict[str, Any]]]:
    """Measure each model of a folder with each batch size."""
    pipelines = loaded(open_folder(folder), str(device))
    return {
        task: [measured(pipeline, batch, rounds, device) for batch in batches]
        for task, pipeline in pipelines.items()
    }


def name_of(device: torch.device) -> str:
    """Return the device's product name."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else "CPU"


def models(args: argparse.Namespace) -> dict[str, Any]:
    """Measure all models. Returns the figures, with the device's name."""
    device = open_device(args.device)
    with tempfile.TemporaryDirectory(prefix="crossmodal-gpu-") as scratch:
        begun = time.monotonic()
        folder = made(Path(scratch) / "sd15", args)
        made_s = round(time.monotonic() - begun, 1)
        drawing = of_folder(folder, SD15_BATCHES, args.rounds, device)
        peak = peak_bytes(device)
    shipped = of_folder(load_settings().bundle, SHIPPED_BATCHES, args.rounds, device)
    size = "small parts" if args.small else "true dimensions"
    found = {f"Stable Diffusion 1.5, {size}": drawing[Task("txt2img")]}
    found |= {f"shipped, {task}": figures for task, figures in shipped.items()}
    return {"device": name_of(device), "made_s": made_s, "peak_bytes": peak, "models": found}


def notes(found: dict[str, Any], args: argparse.Namespace) -> str:
    """Return the notes below the table."""
    of_sd = "small parts in bfloat16, 64 x 64" if args.small else "in float16 at 512 x 512"
    return (
        "A run is from the request to pixels or texts in the memory of the CPU; steps are timed in "
        "a run of their own, in which the device is waited for after each. Stable Diffusion, "
        f"{of_sd}, took at most {found['peak_bytes'] / 1e9:.1f} GB; PNDM makes one step more than "
        "it is asked for. A step of the shipped models is a picture, or a word."
    )


def report(args: argparse.Namespace) -> None:
    """Measure the models, and save the table."""
    found = models(args)
    table = Report(
        "gpu" if args.device == "cuda" else "gpu-dry-run",
        f"Models on {found['device']}",
        (
            "model",
            "batch",
            "a second",
            "a run (ms)",
            "p95 (ms)",
            "steps",
            "a step (ms)",
            "p95 of steps (ms)",
        ),
        figures=found,
        notes=notes(found, args),
    )
    for name, figures in found["models"].items():
        for f in figures:
            table.rows.append(
                (
                    name,
                    f["batch"],
                    f["a_second"],
                    f["run_ms"],
                    f["run_p95_ms"],
                    f["steps"] or None,
                    f["step_p50_ms"],
                    f["step_p95_ms"],
                )
            )
    table.finish(args.json)


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = arguments(__doc__)
    parser.add_argument("--parts", default=",".join(("models", *PARTS)))
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--small", action="store_true", help="small parts: to try this out")
    return parser.parse_args()


def main() -> None:
    """Measure the models, and run the other benchmarks with results named `gpu-…`."""
    args = options()
    if args.device == "cuda" and not gpu_names():
        text = "there is no CUDA device here: nothing was measured"
        print_json({"skipped": text}) if args.json else say(text)
        return
    parts = args.parts.split(",")
    if "models" in parts:
        report(args)
    chosen = [part for part in PARTS if part in parts]
    for part in chosen:
        argv = [
            sys.executable,
            str(Path(__file__).with_name(f"{part}.py")),
            "--device",
            args.device,
            "--prefix",
            "gpu-",
            "--rounds",
            str(args.rounds),
        ]
        subprocess.run(argv, check=True)
    if args.json and chosen:
        files = [RESULTS / f"gpu-{part}.json" for part in chosen]
        print_json([json.loads(file.read_text()) for file in files])


if __name__ == "__main__":
    main()
