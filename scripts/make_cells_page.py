"""Write docs/cells.md: every cell that `seqnets list cells` shows, from its class.

    python scripts/make_cells_page.py    # a test says when the page is out of date

Equations, states and differences come from the docstrings, the number of parameters from cells of
several sizes, and the backends from what the engine refuses.
"""

import argparse
import inspect
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

import seqnets
from seqnets import cells
from seqnets.cells import Cell
from seqnets.cli.build import build
from seqnets.cli.listing import configs, options

PAGE = Path(__file__).parent.parent / "docs" / "cells.md"
HEAD = """\
# Cells

Every cell that comes with seqnets. `seqnets list cells` prints the names, `seqnets train
model/cell=NAME` trains one, and `seqnets.cells` has the classes. To add your own, see
[writing a cell](writing-a-cell.md); `scripts/make_cells_page.py` generates this page from the
classes.

- **Symbols.** B is the number of rows, I of input features, H of units. σ is the logistic function.
  W and b belong to the input, U and d to the last output.
- **Parameters** are counted with default options, for I other than H. For convolutions, I and H are
  channels.
- **Backends** are those that can run the cell on a CPU, besides the plain loop `reference`, which
  runs all of them.
- **Matrix memories**, cells with a state S or C, need a norm between the layers of a stack:
  `norm="rms"`, or `model.norm=rms` ([blocks](layers.md#blocks)).
"""
SIZES = [(2, 4), (3, 4), (2, 8), (4, 8), (5, 16), (7, 16), (3, 12), (9, 12), (3, 32)]
TERMS = ("I·H", "H²", "I²", "H", "I", "1")
PURPOSES = {
    "a first try": "lstm gru",
    "training that is unstable, or deep stacks": (
        "layer_norm_lstm layer_norm_gru star rru residual_lstm"
    ),
    "few parameters": "mgu light_gru light_ru min_gru fast_grnn atr",
    "long sequences, in parallel over time": (
        "lru s4d s5 linoss s6 rg_lru hgrn min_gru min_lstm sru qrnn"
    ),
    "recall of many things seen once": "mlstm gated_delta_net kimi_delta_attention rwkv7 ssd hgrn2",
    "states that must be tracked, in parallel over time": "delta_product rwkv7",
    "what happened hundreds of steps ago": "exprnn lem unicornn cornn lmu indrnn",
    "time that passes unevenly, values that are missing": "ltc ncp cfc phased_lstm grud",
    "frames of video, rows and volumes": "conv_lstm conv_gru peephole_conv_lstm",
    "models of brains, and hardware for spikes": "lif rlif cuba_lif alif li ctrnn leaky_rnn",
    "amounts that are conserved, such as water or energy": "mass_conserving_lstm",
    "characters": "multiplicative_lstm recurrent_highway on_lstm",
    "a study of the LSTM's parts": "odyssey_vanilla odyssey_cifg no_forget_lstm janet",
}
"""Cells by what they are good for: where to begin, not all that there are."""


def class_of(config: Any) -> tuple[type[Cell], list[str]]:
    """The class of a cell, and the names of the options around it."""
    around = [option._target_.rpartition(".")[2] for option in config.get("options", [])]
    target = config.cell._target_ if around else config._target_
    return getattr(cells, target.removeprefix("seqnets.cells.")), around


def parameters(maker: Any, square: bool) -> str:
    """A cell's number of parameters, as a formula of I and H."""
    rows, counts = [], []
    for I, H in [(H, H) for _, H in SIZES] if square else SIZES:
        cell = maker(input_size=I, hidden_size=H)
        rows.append([I * H, H * H, I * I, H, I, 1])
        counts.append(sum(p.numel() for p in cell.parameters()))
    table = np.array(rows, float)
    if square:  # I is H
        table[:, [0, 2, 4]] = 0
    found = np.linalg.lstsq(table, np.array(counts, float), rcond=None)[0]
    whole = [round(float(n), 2) for n in found]
    if np.abs(table @ np.array(whole) - counts).max() > 0.5:
        return "see the class"
    parts = [
        (f"{n:g}\N{NO-BREAK SPACE}" if n != 1 or t == "1" else "") + ("" if t == "1" else t)
        for n, t in zip(whole, TERMS, strict=True)
        if n
    ]
    return " + ".join(part.strip() for part in parts).replace("+ -", "− ")


def backends(maker: Any) -> tuple[str, str]:
    """The backends that run a cell, and why the loops in C do not if they do not."""
    cell = maker(input_size=4, hidden_size=4)
    refusals = seqnets.explain(cell, torch.zeros(2, 3, 4)).refusals
    able = [f"`{name}`" for name in ("c", "scan", "native", "eager") if name not in refusals]
    reason = f" (c: {refusals['c']})" if "c" in refusals else ""
    return ", ".join(able) or "none", reason


def sections(doc: str) -> dict[str, str]:
    """The parts of a docstring: summary, equations, state, paper and differences."""
    doc = inspect.cleandoc(doc)
    math = re.search(r"\.\. math::\n((?:\n|    .*\n?)+)", doc)
    paragraphs = [p for p in re.split(r"\n\s*\n", doc) if not p.startswith((" ", ".. math"))]
    found = {
        "what": paragraphs[0],
        "math": inspect.cleandoc(math.group(1)).strip() if math else "",
        "state": next((p for p in paragraphs if p.startswith("State:")), ""),
        "paper": "",
        "differs": "",
    }
    for paragraph in paragraphs:
        if paragraph.startswith("References:"):
            found["paper"] = paragraph.removeprefix("References:")
        elif re.match(r"(Differs|As in the paper|As )", paragraph):
            found["differs"] = paragraph
    return {key: _plain(text) if key != "math" else text for key, text in found.items()}


def _plain(text: str) -> str:
    """Convert docstring markup to Markdown, on one line."""
    text = re.sub(r":math:`([^`]*)`", r"$\1$", text)
    text = re.sub(r":(?:class|meth|func):`~?([^`]*)`", r"`\1`", text)
    text = re.sub(r"(?<=\w)\*(?=\w)", "·", text)  # asterisks are emphasis
    return " ".join(text.replace("``", "`").split())


def entry(name: str, comment: str) -> tuple[str, str]:
    """A cell's row of the table, and its section."""
    config = OmegaConf.load(configs() / "model" / "cell" / f"{name}.yaml")
    maker = build(config, key=name)
    kind, around = class_of(config)
    parts = sections(inspect.getdoc(kind) or "")  # inherited together with the equation
    cell = maker(input_size=4, hidden_size=4)
    count = parameters(maker, getattr(kind, "square", False))
    able, reason = backends(maker)
    row = f"| [`{name}`](#{name}) | {comment} | {', '.join(cell.states)} | {count} | {able} |"
    text = [f"### {name}", "", f"`seqnets.cells.{kind.__name__}`. {parts['what']}", ""]
    if around:
        text += [f"With {', '.join(around)} around it: see [options](options.md).", ""]
    if parts["math"]:
        body = parts["math"]
        body = "\\begin{aligned}\n" + body + "\n\\end{aligned}" if "\\\\" in body else body
        text += ["```math", body, "```", ""]
    state = parts["state"] or f"State: `({', '.join(cell.states)})`."
    text += [f"- {state}", f"- Parameters: {count}.", f"- Backends: {able}{reason}."]
    text += [f"- {parts[part]}" for part in ("differs", "paper") if parts[part]]
    return row, "\n".join(text)


def page() -> str:
    """The page."""
    comments = options("model/cell")
    entries = [entry(name, comment) for name, comment in sorted(comments.items())]
    table = [
        "| name | cell | state | parameters | backends |",
        "|---|---|---|---|---|",
        *(row for row, _ in entries),
    ]
    texts = [text for _, text in entries]
    parts = [HEAD.strip(), *where_to_begin(comments), "## All cells", "\n".join(table)]
    return "\n\n".join([*parts, "## Each cell", *texts]) + "\n"


def where_to_begin(known: Collection[str]) -> list[str]:
    """A table of cells by purpose, under its title."""
    rows = ["| for | cells |", "|---|---|"]
    for purpose, names in PURPOSES.items():
        if unknown := set(names.split()) - set(known):
            raise KeyError(f"make_cells_page: no cells {sorted(unknown)}, expected names of files")
        links = ", ".join(f"[`{name}`](#{name})" for name in names.split())
        rows.append(f"| {purpose} | {links} |")
    return ["## Where to begin", "\n".join(rows)]


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Written: {PAGE}")
