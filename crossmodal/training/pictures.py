"""Plots of a run: loss curves, and a grid of pictures with captions."""

import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from crossmodal.files import write_whole

Picture = NDArray[np.uint8]
INCH = 1.6  # side of one picture in a grid, in inches
NOT_CURVES = ("step", "elapsed_s", "per_s")


def draw_losses(log: Path, out: Path) -> None:
    """Plot every metric of a run's log over its steps, as one PNG."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    names = [n for n in dict.fromkeys(k for line in lines for k in line) if n not in NOT_CURVES]
    if not names:
        return
    figure = Figure(figsize=(4 * len(names), 3), layout="constrained")
    for axis, name in zip(np.ravel(figure.subplots(1, len(names))), names, strict=True):
        points = [(line["step"], line[name]) for line in lines if name in line]
        axis.plot(*zip(*points, strict=True), linewidth=1.5, marker="." if len(points) < 3 else "")
        axis.set_title(name)
        axis.set_xlabel("step")
        if all(value > 0 for _, value in points):
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
    _save(figure, out)


def draw_grid(
    rows: Sequence[Sequence[Picture]], captions: Sequence[Sequence[str]], out: Path
) -> None:
    """Draw rows of pictures, uint8 RGB, as one PNG, each with its caption below, if any."""
    columns = max(map(len, rows))
    figure = Figure(figsize=(INCH * columns, INCH * 1.4 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            axis = axes[row][column]
            axis.imshow(picture)
            if row < len(captions):
                below = fill(captions[row][column], 30)
                axis.text(
                    0.5,
                    -0.04,
                    below,
                    fontsize=6,
                    ha="center",
                    va="top",
                    transform=axis.transAxes,
                    parse_math=False,
                )
    _save(figure, out)


def _save(figure: Figure, out: Path) -> None:
    file = io.BytesIO()
    with warnings.catch_warnings():  # glyphs missing from the font are drawn as boxes
        warnings.filterwarnings("ignore", "Glyph|constrained_layout", UserWarning)
        figure.savefig(file, format="png", dpi=110)
    write_whole(out, file.getvalue())
