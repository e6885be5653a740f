"""The model card of a bundle, `MODEL_CARD.md`: its quality, training and limits."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import floor
from pathlib import Path
from typing import Any

from crossmodal.datasets.base import Dataset, examples
from crossmodal.datasets.scenes import Scenes
from crossmodal.datasets.scenes.first import PROMPTS
from crossmodal.files import write_whole
from crossmodal.networks.bundle import Bundle
from crossmodal.training.inference import Models
from crossmodal.training.pictures import Picture, draw_grid
from crossmodal.training.tallies import asked_of

CARD, ABLATIONS = "MODEL_CARD.md", "ablations.json"
SAMPLES, FIRST = "samples.png", "first.png"
SHOWN, COLUMNS = 24, 6
FRACTIONS = (
    "objects",
    "relations",
    "places",
    "backgrounds",
    "counts",
    "scene",
    "facts",
    "diversity",
)
NAMED = {
    "bleu1": "BLEU-1",
    "bleu2": "BLEU-2",
    "bleu3": "BLEU-3",
    "bleu4": "BLEU-4",
    "cider": "CIDEr",
}
TASKS = {
    "txt2img": "Text to image",
    "img2txt": "Image to text",
    "round_trip": "Prompt to image to caption",
}

HOW_JUDGED = {
    True: """Prompts are in any wording of the data set's grammar, and may leave facts out; only
what a prompt says is judged. Pictures are judged by color segmentation and contour geometry,
captions by parsing them: a fact that is left out is a mistake. Captioned are pictures whose
shapes are turned by up to 9 degrees and whose colors are off by 3 % of hue and 8 % of brightness;
a quarter is blurred, a quarter noisy. *Pairs* are colors of shapes, *relations* those of two
shapes, that training never showed. Sharpness is the 99th
percentile of edge strength over that of true pictures (median); diversity the fraction of
prompts whose pictures under two seeds differ visibly.""",
    False: """Captions are scored against people's by the COCO challenge's own code. Sharpness is
the 99th percentile of edge strength over that of the photographs (median).""",
}
LIMITS = {
    True: """- It knows scenes of one to three simple shapes on a plain background, and nothing of
  the world: a prompt without a shape is refused, other words are passed over and named.
- Negations, more than three objects, and places of several objects are not understood.
- The captioner names shapes in any picture, also where there are none: its log-probability says
  how sure it is only among such scenes.
- A caption names a place for a single object and relations for neighbours; nothing else.""",
    False: """- It is as good as its data and its training time, which stand above.
- A VAE's pictures of photographs are blurred: they show color and composition, not detail.
- It repeats what its captions have in common, prejudices too.""",
}


def write_card(bundle: Bundle, data: Dataset, models: Models) -> None:
    """Write the model card and its sample pictures into the bundle's folder."""
    grounded = data.looks is not None
    first = PROMPTS if isinstance(data, Scenes) else ()
    parts = (
        f"# Model card: {bundle.name}",
        f"Version `{bundle.version}`. Text to image and image to text, trained on `{data.name}`.",
        *_drawn(bundle, SAMPLES, "Prompts that training has not seen", _prompts(data), models),
        *_drawn(bundle, FIRST, "What people type first", first, models),
        "## How good it is",
        f"Measured as `crossmodal evaluate` does, on {bundle.manifest.quality.get('count', 0)} "
        "fresh examples of each split, or all there are.",
        *_quality(bundle.manifest.quality),
        HOW_JUDGED[grounded],
        *_judge(bundle.manifest.quality.get("judge")),
        "## How it was made",
        *_runs(bundle.manifest.training),
        *_ablations(bundle),
        "## What it cannot do",
        LIMITS[grounded],
    )
    write_whole(bundle.path(CARD), "\n\n".join(parts) + "\n")


def _drawn(
    bundle: Bundle, file: str, title: str, prompts: Sequence[str], models: Models
) -> Iterator[str]:
    """Draw `prompts` into the grid `file`; yield its Markdown, and that of refused prompts."""
    made = list(zip(models.draw(prompts, first_seed=1), prompts, strict=True))
    samples = [(picture, prompt) for picture, prompt in made if picture is not None]
    if samples:
        _draw_grid(bundle.path(file), samples)
        yield f"{title}:\n\n![{len(samples)} pictures and their prompts]({file})"
    if refused := [f"*{prompt}*" for picture, prompt in made if picture is None]:
        yield f"Refused, as no object in them is known: {', '.join(refused)}."


def _prompts(data: Dataset) -> list[str]:
    if isinstance(data, Scenes):
        each = SHOWN // len(data.judged)
        return [a.prompt for split in data.judged for a in asked_of(data, split, each)]
    return [
        e.captions[0].text for e in islice(_all(examples(data, s, 1) for s in data.judged), SHOWN)
    ]


def _all(streams: Iterable[Iterable[Any]]) -> Iterable[Any]:
    return (item for stream in streams for item in stream)


def _draw_grid(out: Path, samples: Sequence[tuple[Picture, str]]) -> None:
    rows = [samples[i : i + COLUMNS] for i in range(0, len(samples), COLUMNS)]
    draw_grid(
        [[picture for picture, _ in row] for row in rows],
        [[prompt for _, prompt in row] for row in rows],
        out,
    )


def _quality(quality: dict[str, Any]) -> list[str]:
    """Return one table per task: a row per metric, a column per split."""
    return [
        _table((title, *quality[task]), _figures(quality[task]), numbers=True)
        for task, title in TASKS.items()
        if quality.get(task)
    ]


def _figures(splits: dict[str, dict[str, float]]) -> Iterator[tuple[str, ...]]:
    for name in dict.fromkeys(name for figures in splits.values() for name in figures):
        yield NAMED.get(name, name), *(_figure(name, f.get(name)) for f in splits.values())


def _judge(figures: dict[str, float] | None) -> list[str]:
    if not figures:
        return []
    said = ", ".join(f"{name} {_figure('facts', value)}" for name, value in figures.items())
    return [
        f"The judge itself, on true pictures, finds of all facts: {said} (blur: a deviation of "
        "1 pixel; noise: 12 levels; JPEG of quality 50)."
    ]


def _runs(training: dict[str, list[dict[str, Any]]]) -> list[str]:
    rows = [
        (
            stage,
            f"`{run['command']}`" if "command" in run else f"seed {run['seed']}",
            run.get("minutes_taken") or "",
            run.get("machine", ""),
            "; ".join(f"{k} {v:.4g}" for k, v in run.get("final", {}).items())
            or f"{run.get('words')} words of {run.get('captions')} captions",
        )
        for stage, runs in training.items()
        for run in runs
    ]
    table = _table(("stage", "run", "minutes", "on", "in the end"), rows)
    last = [runs[-1] for runs in training.values() if runs]
    most = max(last, key=lambda run: run.get("skipped", 0), default={})
    if not most.get("skipped"):
        return [table]
    first = "; ".join(most["skipped_first"])
    return [table, f"Of the data, {most['skipped']} pictures or captions were skipped: {first}."]


def _ablations(bundle: Bundle) -> list[str]:
    """Return the table measured by `benchmarks/ablations.py`; empty if it has not been run."""
    path = bundle.path(ABLATIONS)
    if not path.is_file():
        return []
    found = json.loads(path.read_text())
    rows = [
        (
            row["choice"],
            row["variant"],
            f"`{row['options']}`",
            "; ".join(f"{k} {_figure(k, v)}" for k, v in row["figures"].items() if k in COMPARED),
        )
        for row in found["rows"]
    ]
    return [
        "## What its choices are worth",
        f"Small runs, one choice changed at a time, judged on {found['scenes']} scenes of the "
        "split `seen`: far from what the models reach, near enough to compare. "
        "`python benchmarks/ablations.py` repeats them.",
        _table(("choice", "variant", "`crossmodal train` with", "figures"), rows),
    ]


COMPARED = ("objects", "relations", "backgrounds", "scene", "sharpness", "pixel_error", "bleu4")


def _figure(name: str, value: float | None) -> str:
    """Format a metric. Fractions are rounded down, so that 99.96 % does not show as 100 %."""
    if value is None:
        return "–"
    return f"{floor(value * 1000) / 10:.1f} %" if name in FRACTIONS else f"{value:.3g}"


def _table(header: Sequence[Any], rows: Iterable[Sequence[Any]], numbers: bool = False) -> str:
    lines = [header, ["---", *["--:" if numbers else "---"] * (len(header) - 1)], *rows]
    cells = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)
