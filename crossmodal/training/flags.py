"""The options of `crossmodal train` and `crossmodal evaluate`, in the panels of `--help`.

The metavar of a number is `N`, to leave room for the help text in a terminal of 80 columns.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from crossmodal.networks.captioner import CellName

DATASETS = "scenes, coco:DIR or flickr30k:DIR"

in_run = partial(typer.Option, rich_help_panel="The run")
going_on = partial(typer.Option, rich_help_panel="Resuming a run")
drawing = partial(typer.Option, rich_help_panel="Text to image")
captioning = partial(typer.Option, rich_help_panel="Image to text")
learning = partial(typer.Option, rich_help_panel="Learning")

What = Annotated[
    str, typer.Argument(metavar="STAGE", help="word2vec, txt2img, img2txt, or all of them.")
]
Out = Annotated[Path, in_run(help="Folder of the bundle; made if missing.", metavar="DIR")]
Name = Annotated[
    str | None,
    in_run(
        help="Name of the bundle, reported as the model of results; default: the folder's name.",
        metavar="NAME",
    ),
]
TrainedOn = Annotated[
    str, in_run("--dataset", help=f"Data to train on: {DATASETS}.", metavar="DATA")
]
Minutes = Annotated[float | None, in_run(min=0.01, help="Minutes to train.", metavar="N")]
Steps = Annotated[int | None, in_run(min=1, help="Steps to train.", metavar="N")]
Judged = Annotated[
    int | None,
    in_run(
        min=1,
        metavar="N",
        help="Evaluate on exactly N examples per split; default: up to 500, within a quarter of "
        "--minutes.",
    ),
]
Seed = Annotated[int, in_run(min=0, help="Random seed of weights, data and noise.", metavar="N")]

Resume = Annotated[
    bool,
    going_on(
        "--resume", help="Resume an interrupted run from its checkpoint; skip finished stages."
    ),
]
StartFrom = Annotated[
    Path | None,
    going_on(help="Start from the weights in this folder; may be --out.", metavar="DIR"),
]
CheckpointEvery = Annotated[
    float, going_on(min=0, help="Seconds between checkpoints.", metavar="N")
]

Decoder = Annotated[
    Literal["auto", "scene", "picture"],
    drawing(help="auto, scene or picture; scene needs groundings.", metavar="KIND"),
]
Adversarial = Annotated[bool, drawing("--adversarial", help="Add a discriminator: a VAE-GAN.")]
Side = Annotated[
    int | None, drawing(min=16, max=512, help="Side of drawn pictures, in pixels.", metavar="N")
]
Grids = Annotated[
    str, drawing(help="Latents of the picture decoder; 1 is one flat latent.", metavar="N,N")
]
Width = Annotated[int, drawing(min=16, help="Channels of the picture decoder.", metavar="N")]
TextSource = Annotated[
    str, drawing(help="Text vectors for prompts: word2vec or bert:DIR.", metavar="SOURCE")
]
Words = Annotated[
    Path | None,
    drawing(
        help="Take vectors from a file (word2vec's .bin or text, fastText's .vec, GloVe's .txt, "
        "each also .gz) instead of training.",
        metavar="FILE",
    ),
]
Ordered = Annotated[bool, drawing(help="Read the words in order, or only their mean.")]

Depth = Annotated[
    Literal["18", "34", "50"], captioning(help="Depth of the ResNet: 18, 34 or 50.", metavar="N")
]
CaptionStages = Annotated[
    int, captioning(min=1, max=4, help="Stages of the ResNet that are used.", metavar="N")
]
Pretrained = Annotated[
    bool, captioning("--pretrained", help="Start from torchvision's ResNet weights.")
]
CaptionSide = Annotated[
    int, captioning(min=32, max=512, help="Side of pictures to caption, in pixels.", metavar="N")
]
Cell = Annotated[CellName, captioning(help="Recurrent cell: lstm, gru or rnn.", metavar="C")]
Attention = Annotated[bool, captioning(help="Attend to a grid, or use only its mean.")]

Batch = Annotated[int | None, learning(min=2, help="Examples in a batch.", metavar="N")]
Rate = Annotated[
    float | None, learning(min=1e-8, help="Learning rate; default: the stage's.", metavar="N")
]
Amp = Annotated[bool | None, learning(help="Mixed precision (bfloat16); default: only on a GPU.")]

Served = Annotated[
    Path | None, typer.Argument(help="Folder of the bundle; default: the served one.")
]
Split = Annotated[
    str, typer.Option(help="seen, pairs, relations (val, test) or all.", metavar="SPLIT")
]
MeasuredOn = Annotated[
    str | None,
    typer.Option("--dataset", help=f"{DATASETS}; default: the training data.", metavar="DATA"),
]
Count = Annotated[int, typer.Option(min=1, help="Examples per split.", metavar="N")]
Save = Annotated[
    bool, typer.Option("--save", help="Write the metrics and the model card to the bundle.")
]
