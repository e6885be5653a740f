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
going_on = partial(typer.Option, rich_help_panel="Going on with a run")
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
        help="Name of the bundle, which results give as their model; else its folder's.",
        metavar="NAME",
    ),
]
TrainedOn = Annotated[
    str, in_run("--dataset", help=f"What to train on: {DATASETS}.", metavar="DATA")
]
Minutes = Annotated[float | None, in_run(min=0.01, help="How long to train.", metavar="N")]
Steps = Annotated[int | None, in_run(min=1, help="How many steps to train.", metavar="N")]
Judged = Annotated[
    int | None,
    in_run(
        min=1,
        metavar="N",
        help="Judge by N examples of each split, however long it takes; else by up to 500, "
        "within a quarter of the minutes.",
    ),
]
Seed = Annotated[int, in_run(min=0, help="Of weights, data and noise.", metavar="N")]

Resume = Annotated[
    bool,
    going_on(
        "--resume", help="Go on with what was killed, as if it had not been; skip what is done."
    ),
]
StartFrom = Annotated[
    Path | None,
    going_on(help="Begin with the weights in this folder; may be --out.", metavar="DIR"),
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
    int | None, drawing(min=16, max=512, help="Of drawn pictures, in pixels.", metavar="N")
]
Grids = Annotated[
    str, drawing(help="Latents of the picture decoder; 1 is one flat latent.", metavar="N,N")
]
Width = Annotated[int, drawing(min=16, help="Channels of the picture decoder.", metavar="N")]
TextSource = Annotated[
    str, drawing(help="What reads prompts: word2vec or bert:DIR.", metavar="SOURCE")
]
Words = Annotated[
    Path | None,
    drawing(
        help="Take vectors from a file (word2vec's .bin or text, fastText's .vec, GloVe's .txt, "
        "each also .gz) instead of training.",
        metavar="FILE",
    ),
]
Ordered = Annotated[bool, drawing(help="Read words in order, or only their mean.")]

Depth = Annotated[
    Literal["18", "34", "50"], captioning(help="Of the ResNet: 18, 34 or 50.", metavar="N")
]
CaptionStages = Annotated[
    int, captioning(min=1, max=4, help="Stages of the ResNet that are used.", metavar="N")
]
Pretrained = Annotated[bool, captioning("--pretrained", help="Begin with torchvision's ResNet.")]
CaptionSide = Annotated[
    int, captioning(min=32, max=512, help="Of pictures to caption, in pixels.", metavar="N")
]
Cell = Annotated[CellName, captioning(help="Of the decoder: lstm, gru or rnn.", metavar="C")]
Attention = Annotated[bool, captioning(help="Look at places, or at the whole only.")]

Batch = Annotated[int | None, learning(min=2, help="Examples in a batch.", metavar="N")]
Rate = Annotated[
    float | None, learning(min=1e-8, help="Of learning; else the stage's own.", metavar="N")
]
Amp = Annotated[
    bool | None, learning(help="bfloat16 where it is safe; on a GPU unless said otherwise.")
]

Served = Annotated[Path | None, typer.Argument(help="Its folder; else the one served.")]
Split = Annotated[
    str, typer.Option(help="seen, pairs, relations (val, test) or all.", metavar="SPLIT")
]
MeasuredOn = Annotated[
    str | None,
    typer.Option("--dataset", help=f"{DATASETS}; else what it was trained on.", metavar="DATA"),
]
Count = Annotated[int, typer.Option(min=1, help="Examples of each split.", metavar="N")]
Save = Annotated[bool, typer.Option("--save", help="Write figures and model card to the bundle.")]
