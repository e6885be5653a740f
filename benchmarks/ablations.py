"""Ablations of the models: short training runs that change one choice at a time.

    python benchmarks/ablations.py --work runs/ablations

Takes an hour on two cores. Every run is `crossmodal train` with the options shown; finished runs
are not repeated. Figures go to `ablations.json` in the bundle, and from there to its model card.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from crossmodal.console import print_table, say
from crossmodal.datasets.scenes import Scenes
from crossmodal.networks.bundle import Bundle, open_bundle, seal
from crossmodal.settings import SHIPPED_BUNDLE
from crossmodal.training.card import ABLATIONS
from crossmodal.training.inference import Models
from crossmodal.training.tallies import Asked, JudgedCaptions, JudgedPictures, asked_of

SCENES = 300  # of the split `seen`, to evaluate each run
PICTURE = "--decoder picture --steps 300 --batch 24"
SPATIAL = "spatial (4, 8, 16)"
# choice, variant, stage, options
RUNS = (
    ("cell", "LSTM", "img2txt", "--cell lstm --steps 350"),
    ("cell", "GRU", "img2txt", "--cell gru --steps 350"),
    ("cell", "RNN", "img2txt", "--cell rnn --steps 350"),
    ("attention", "without (LSTM)", "img2txt", "--no-attention --steps 350"),
    ("text", "ordered", "txt2img", "--steps 1500"),
    ("text", "mean-pooled", "txt2img", "--no-ordered --steps 1500"),
    ("latent", SPATIAL, "txt2img", PICTURE),
    ("latent", "flat (1)", "txt2img", PICTURE + " --grids 1"),
    ("adversarial", "with (spatial)", "txt2img", PICTURE + " --adversarial"),
)
ORDER = ("text", "latent", "adversarial", "cell", "attention", "search")  # rows of the table
OTHER = {"txt2img": "img2txt", "img2txt": "txt2img"}


def main(work: Annotated[Path, typer.Option()] = Path("runs/ablations")) -> None:
    """Train missing runs, evaluate all, print the table and save it in the shipped bundle."""
    rows = []
    for choice, variant, stage, options in RUNS:
        bundle = trained(work / f"{choice}-{variant.split()[0].lower()}", stage, options)
        rows += judged(bundle, choice, variant, stage, options)
        say(str(rows[-1]))
    rows.sort(key=lambda row: ORDER.index(row["choice"]))
    path = SHIPPED_BUNDLE / ABLATIONS
    path.write_text(json.dumps({"scenes": SCENES, "rows": rows}, indent=2) + "\n")
    figures = [" ".join(f"{k} {v}" for k, v in row["figures"].items()) for row in rows]
    print_table(
        ("choice", "variant", "figures"),
        [(r["choice"], r["variant"], f) for r, f in zip(rows, figures, strict=True)],
    )


def trained(folder: Path, stage: str, options: str) -> Bundle:
    """Train a run; return a bundle of its model and the other task's shipped model."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(SHIPPED_BUNDLE / "words.bin", folder)
    if not (folder / f"{stage}.json").is_file():
        subprocess.run(
            [
                sys.executable,
                "-m",
                "crossmodal.cli",
                "train",
                stage,
                "--out",
                str(folder),
                "--resume",
                *options.split(),
            ],
            check=True,
        )
    for suffix in ("json", "safetensors"):
        shutil.copy(SHIPPED_BUNDLE / f"{OTHER[stage]}.{suffix}", folder)
    training = json.loads((folder / "training.json").read_text())
    return seal(folder, folder.name, "scenes", training, {})


def judged(bundle: Bundle, choice: str, variant: str, stage: str, options: str) -> list[Any]:
    """Evaluate a run. Returns its table rows: several if it stands for several variants."""
    models, asked = Models.of(bundle), list(asked_of(Scenes(), "seen", SCENES))
    record = bundle.manifest.training[stage][-1]
    row = {
        "choice": choice,
        "variant": variant,
        "options": options,
        "minutes": record["minutes_taken"],
    }
    if stage == "txt2img":
        pictures = JudgedPictures(models, apart=len(asked))
        pictures.add(asked)
        figures = pictures.figures() | {"pixel_error": record["final"]["pixels"]}
        rows = [row | {"figures": figures}]
        if variant == SPATIAL:
            rows.append(rows[0] | {"choice": "adversarial", "variant": "without (spatial)"})
        return rows
    rows = [row | {"figures": of_captions(models, asked)}]
    if variant == "LSTM":
        search = row | {"choice": "search"}
        rows.append(search | {"variant": "beam of 4", "figures": rows[0]["figures"]})
        greedy = of_captions(models, asked, beam_width=1)
        rows.append(search | {"variant": "greedy", "figures": greedy})
    return rows


def of_captions(models: Models, asked: list[Asked], beam_width: int = 4) -> dict[str, float]:
    """Return the quality figures of captions found with this beam width."""
    captions = JudgedCaptions(models, beam_width)
    captions.add(asked)
    return captions.figures()


if __name__ == "__main__":
    open_bundle(SHIPPED_BUNDLE)
    typer.run(main)
