"""This project against a plain script that loads the models for every item.

    python benchmarks/seed_baseline.py [--json]

An app without workers starts a program for each request, which loads the word vectors, the VAE,
the ResNet and the LSTM from disk, makes one picture or caption, and saves it.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from efficiency import PROMPTS, requests
from harness import Report, arguments, median, save_plot, take_turns
from stack import Running, real_stack

JOBS = 192
CALLS = 3  # calls of the script per round: each takes seconds
SCRIPT = Path(__file__).with_name("seed_script.py")


def script(task: str, given: Callable[[int], str], folder: Path) -> float:
    """Return items per second of the script, called once per item."""
    begun = time.perf_counter()
    for i in range(CALLS):
        out = folder / f"{task}-{i}.out"
        subprocess.run([sys.executable, str(SCRIPT), task, given(i), str(out)], check=True)
    return CALLS / (time.perf_counter() - begun)


def measure(running: Running, rounds: int) -> dict[str, dict[str, float]]:
    """Return the rates of both, and their ratio."""
    _, _, files = requests(running.settings)
    client, folder = running.client, running.folder
    paths = []
    for i, data in enumerate(files[:CALLS]):
        paths.append(folder / f"{i}.png")
        paths[i].write_bytes(data)

    def drawn() -> float:
        begun = time.perf_counter()
        jobs = [client.txt2img(PROMPTS[i % len(PROMPTS)], seed=i) for i in range(JOBS)]
        return len(list(client.as_completed(jobs))) / (time.perf_counter() - begun)

    def described() -> float:
        begun = time.perf_counter()
        jobs = [client.img2txt(files[i % len(files)]) for i in range(JOBS)]
        return len(list(client.as_completed(jobs))) / (time.perf_counter() - begun)

    drawn(), described()  # warm up
    found = take_turns(
        {
            "txt2img script": lambda: script("txt2img", lambda i: PROMPTS[i], folder),
            "txt2img": drawn,
            "img2txt script": lambda: script("img2txt", lambda i: str(paths[i]), folder),
            "img2txt": described,
        },
        rounds,
    )
    return {
        task: {
            "script": round(median(found[f"{task} script"]), 3),
            "crossmodal": round(median(found[task]), 1),
            "ratio": round(median(found[task]) / median(found[f"{task} script"]), 1),
        }
        for task in ("txt2img", "img2txt")
    }


def main() -> None:
    """Measure, print and save the results."""
    from matplotlib.figure import Figure

    args = arguments(__doc__).parse_args()
    with real_stack() as running:
        found = measure(running, args.rounds)
    report = Report(
        "seed_baseline",
        "Beside the straightforward script",
        ("task", "script (a second)", "crossmodal (a second)", "times as fast"),
        figures=found,
        notes="The script is `benchmarks/seed_script.py`, started for every item; ours are "
        "interactive jobs, submitted one by one.",
    )
    report.rows = [(task, *figures.values()) for task, figures in found.items()]
    report.finish(args.json)
    figure = Figure(figsize=(5, 2.6))
    axes = figure.subplots()
    axes.barh(
        [f"{t}, {w}" for t in found for w in ("script", "crossmodal")],
        [found[t][w] for t in found for w in ("script", "crossmodal")],
    )
    axes.set_xscale("log")
    axes.set_xlabel("a second")
    save_plot("seed_baseline", figure)


if __name__ == "__main__":
    main()
