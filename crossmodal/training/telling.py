"""Messages of `train` and `evaluate`: the plan, progress, warnings, the next command."""

import math
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import TaskID

from crossmodal.console import note, progress, stderr
from crossmodal.datasets.base import TRAIN, Dataset
from crossmodal.networks.bundle import WORDS
from crossmodal.text.coverage import Coverage
from crossmodal.text.tokens import is_dense, is_undivided
from crossmodal.text.word_vectors import load_vectors
from crossmodal.training.loop import Budget

LINE_EVERY_S = 10.0  # interval of progress lines without a terminal
# For each task, the metric that is 0 if nothing is right: on scenes, on other data sets.
TELLING = {
    "txt2img": (
        ("scene", "no picture shows everything in its prompt"),
        ("sharpness", "no picture has an edge"),
    ),
    "img2txt": (
        ("scene", "no caption describes exactly what its picture shows"),
        ("bleu4", "no caption shares four consecutive words with a person's"),
    ),
}


def plan(budgets: Mapping[str, Budget], judging: str) -> str:
    """Return the plan as text: the stages to run, in order, with the length of each."""
    parts = [f"{stage} ({_length(stage, budget)})" for stage, budget in budgets.items()]
    return f"plan: {', then '.join([*parts, *([judging] if judging else [])])}"


def _length(stage: str, budget: Budget) -> str:
    if stage == "word2vec":
        return "not counted in --minutes: seconds, or minutes for a million captions"
    limits = [f"{budget.steps} step{'s' * (budget.steps > 1)}"] if budget.steps else []
    if budget.minutes:
        limits.append(
            f"{budget.minutes:.3g} min" if budget.minutes >= 2 else f"{60 * budget.minutes:.0f} s"
        )
    return " or ".join(limits)


@contextmanager
def counted(label: str, limit_s: float = math.inf) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that reports (done, total): as a bar on stderr, in a pipe as plain lines.

    The estimate of the time left accounts for the work ending after `limit_s` seconds."""
    begun = told = time.monotonic()
    with progress(label, 0) as bar:

        def tell(done: int, total: int) -> None:
            nonlocal told
            now = time.monotonic()
            took = now - begun
            left = min(took * (total - done) / max(done, 1), max(limit_s - took, 0.0))
            shown = f"{label}, about {left:.0f} s left" if done else label
            bar.update(TaskID(0), completed=done, total=total, description=shown)
            if not stderr.is_terminal and done and (now - told >= LINE_EVERY_S or done == total):
                told = now
                note(f"{label}: {done} of {total} after {took:.0f} s, about {left:.0f} s left")

        yield tell


def tell_coverage(out: Path, data: Dataset, seed: int) -> None:
    """Print how many caption words have vectors in `out`; warn of scripts without spaces."""
    texts = list(data.texts(TRAIN, seed))
    found = Coverage.of(set(load_vectors(out / WORDS).words), texts)
    note(f"{'warning ' if found.is_poor else ''}{found}")
    warn(warnings_of_scripts(texts))


def warnings_of_scripts(texts: Sequence[str]) -> Iterator[str]:
    """Yield a warning for each script whose words the tokenizer cannot separate."""
    if count := sum(map(is_dense, texts)):
        yield f"{count} captions are in Chinese or Japanese: each character counts as a word"
    if count := sum(map(is_undivided, texts)):
        yield (
            f"{count} captions are in Thai, Lao, Khmer or Burmese, whose words are separated only "
            "by spaces: put a space, or U+200B, between them"
        )


def warnings_of(quality: Mapping[str, Any], judged: Sequence[str] = ()) -> list[str]:
    """Return warnings about a bundle with the metrics `quality`; empty if there are none.

    `judged` are the splits that it should have been judged by.
    """
    return [text for task in TELLING for text in _warnings(task, quality, judged)]


def _warnings(task: str, quality: Mapping[str, Any], judged: Sequence[str]) -> Iterator[str]:
    splits: dict[str, dict[str, float]] = quality.get(task) or {}
    if not splits and not judged:
        yield f"{task}: nothing was measured, as {quality['dataset']} has no split to evaluate on"
    if nothing := [split for split in judged if split not in splits]:
        yield f"{task}, {' and '.join(nothing)}: nothing was measured, as no picture can be read"
    for split, figures in splits.items():
        if odd := [name for name, value in figures.items() if not math.isfinite(value)]:
            yield f"{task}, {split}: {', '.join(odd)} is not finite"
    for name, meaning in TELLING[task]:
        if nothing := [split for split, figures in splits.items() if figures.get(name) == 0]:
            yield f"{task}, {' and '.join(nothing)}: {meaning} ({name} 0): train it for longer"
            return


def warn(warnings: Iterable[str]) -> None:
    """Print each warning on its own line."""
    for text in warnings:
        note(f"warning {text}")


def how_to_serve(folder: Path) -> str:
    """Return the command that serves the bundle in `folder`, valid in any working directory."""
    return f"CROSSMODAL_BUNDLE={shlex.quote(str(folder.resolve()))} crossmodal up"
