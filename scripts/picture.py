"""Plot a language model's run: the learning curves, and the surprise at each test character.

    python scripts/picture.py RUN_FOLDER docs/images/python_docs.png    # of `make train`

Needs matplotlib (pip install 'seqnets[plot]').
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from seqnets.cli.trained import load_data, load_module

COLUMNS, LINES = 76, 11
INK, ACCENT, PALE = "#22303c", "#c8553d", "#8fa3b0"

Curves = dict[str, tuple[list[int], list[float]]]
"""Steps and values of each curve by its name."""


def curves(run: Path) -> Curves:
    """Steps and bits per character of training and validation."""
    events = EventAccumulator(str(run)).Reload()
    found = {}
    for name, tag in {"training": "train/loss", "validation": "val/loss"}.items():
        points = events.Scalars(tag)
        found[name] = ([p.step for p in points], [p.value / math.log(2) for p in points])
    return found


def surprises(checkpoint: Path) -> tuple[str, list[float], dict[str, float]]:
    """An excerpt of the test text, the bits of its characters, and the baselines."""
    module = load_module(checkpoint, allow=[])
    data = load_data(module, checkpoint)
    ids = torch.cat([batch.x[0] for batch in data.loader("test")])[: 4 * COLUMNS * LINES]
    with torch.no_grad():
        logits, _ = module.model.eval()(ids[None, :-1])
        bits = F.cross_entropy(logits[0], ids[1:], reduction="none") / math.log(2)
    text = data.vocabulary.decode(ids[1:])
    begin = text.index("\n", 2 * COLUMNS) + 1  # skips the warm-up of the state
    return text[begin:], bits.tolist()[begin:], data.baselines()


def draw(run: Path, picture: Path) -> None:
    """Plot both panels into one image."""
    text, bits, baselines = surprises(run / "checkpoints" / "best.ckpt")
    plt.rcParams.update({"font.family": "DejaVu Sans", "text.color": INK, "axes.edgecolor": PALE})
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(13, 4.2), width_ratios=(1, 1.75), layout="constrained"
    )
    draw_learning(left, curves(run), baselines)
    draw_surprise(right, text, bits)
    figure.savefig(picture, dpi=130)


def draw_learning(axis: Axes, losses: Curves, baselines: dict[str, float]) -> None:
    """Plot the losses over the steps, and the baselines."""
    for (name, (steps, values)), style in zip(
        losses.items(),
        ({"color": PALE, "lw": 1}, {"color": ACCENT, "lw": 2, "marker": "."}),
        strict=True,
    ):
        axis.plot(steps, values, label=name, **style)
    for name, value in baselines.items():
        if value < 5:
            axis.axhline(value, color=INK, lw=0.7, ls=":")
            axis.annotate(
                name, (1, value), (-4, 2), xycoords=("axes fraction", "data"), ha="right",
                textcoords="offset points", fontsize=8,
                bbox={"fc": "white", "ec": "none", "pad": 0.5},
            )  # fmt: skip
    axis.set(xlabel="step", ylabel="bits per character", ylim=(1, 5), title="Learning")
    axis.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.62))
    axis.spines[["top", "right"]].set_visible(False)


def draw_surprise(axis: Axes, text: str, bits: list[float]) -> None:
    """Write the text, on a colour for the bits of each character."""
    column = line = 0
    colours = matplotlib.colormaps["Oranges"]
    for character, cost in zip(text, bits, strict=False):
        if line >= LINES:
            break
        if character != "\n":
            shade = colours(min(cost, 8.0) / 11)
            axis.add_patch(Rectangle((column, -line - 0.5), 1, 0.94, facecolor=shade, lw=0))
            axis.text(column + 0.5, -line, character, ha="center", va="center",
                      family="DejaVu Sans Mono", fontsize=8.5)  # fmt: skip
            column += 1
        if character == "\n" or column == COLUMNS:
            column, line = 0, line + 1
    axis.set(
        xlim=(0, COLUMNS),
        ylim=(-LINES + 0.4, 0.6),
        title="Surprise at each character of the test text",
    )
    axis.set_axis_off()
    scale = plt.cm.ScalarMappable(norm=plt.Normalize(0, 11), cmap=colours)
    bar = axis.figure.colorbar(
        scale, ax=axis, shrink=0.7, pad=0.01, boundaries=[i / 10 for i in range(81)]
    )
    bar.set_ticks([0, 2, 4, 6, 8], labels=["0 bits", "2", "4", "6", "8+"])
    bar.outline.set_visible(False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("picture", type=Path, help="the PNG file to write")
    arguments = parser.parse_args()
    draw(arguments.run, arguments.picture)
