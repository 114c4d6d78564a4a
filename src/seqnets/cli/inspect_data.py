"""``seqnets inspect dataset=…``: a dataset as a model would see it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from seqnets.checks import is_whole
from seqnets.cli import report
from seqnets.cli.arguments import key_of
from seqnets.cli.assemble import make_data
from seqnets.cli.build import build
from seqnets.cli.console import terminal
from seqnets.cli.names import UsageError
from seqnets.cli.options import Config, check_seed, check_truths
from seqnets.datasets import DataModule
from seqnets.datasets.parts import PARTS, Part
from seqnets.datasets.sequences.base import SequenceData
from seqnets.errors import cut_short
from seqnets.insight.rounded import rounded
from seqnets.insight.visible import visible
from seqnets.training import Objective
from seqnets.typing import BLANK

OWN = ("samples", "baselines")
"""Keys that are no part of a training's configuration."""

_ROWS, _BAR, _BINS = 12, 24, 10
"""The most lines of a table, characters of a bar in 80 columns, and bars of a histogram."""

_EIGHTHS = "▏▎▍▌▋▊▉"

_CHARACTERS, _LINES = 240, 30
"""The most characters and lines of a sample's text."""


def inspect_data(options: Config) -> None:
    """Print a dataset's description, sizes, statistics, samples and baselines.

    Raises:
        SeqnetsError: An option or the data are faulty.
    """
    _check(options)
    data = make_data(options, options["allow"])
    objective: Objective = build(options["objective"], options["allow"], "objective")
    console = terminal()
    name, about = type(data).__name__, (type(data).__doc__ or "").strip().partition("\n\n")[0]
    about = " ".join(about.replace("``", "").split()).removeprefix(f"{name}: ")
    console.print(Text(f"{name}: ", "bold") + Text(about))
    sizes = ", ".join(f"{name} {size:,}" for name, size in data.sizes.items())
    console.print(Text(f"Sizes that a model is given: {sizes}."))
    for title, shown in _sections(data, objective, options):
        console.print(f"\n{title}", style="bold")
        console.print(shown)
    own = (*OWN, "checkpoint")
    given = [argument for argument in sys.argv[2:] if key_of(argument) not in own]
    report.show(console, "To train:", report.command("seqnets", "train", *given))


def _check(options: Config) -> None:
    check_seed(options["seed"])
    samples, baselines = (options[key] for key in OWN)
    if not is_whole(samples) or samples < 0:
        raise UsageError(f"samples: is {samples!r}, expected a whole number of at least 0.")
    check_truths(baselines=baselines)


def _sections(
    data: DataModule, objective: Objective, options: Config
) -> Iterator[tuple[str, RenderableType]]:
    """Yield each section of the output with its title."""
    lengths = {part: found for part in PARTS if (found := data.lengths(part)) is not None}
    yield "Parts", _parts(data, lengths)
    if features := data.features():
        yield "Columns of the training part", _features(features)
    if lengths and lengths["train"].min() < lengths["train"].max():
        yield "Steps of the training sequences", _histogram(lengths["train"])
        yield "Padding", Text(_padding(data))
    targets = {part: found for part in PARTS if (found := data.target_lengths(part)) is not None}
    if targets:
        yield "Transcripts", _transcripts(targets, lengths)
    classes = {part: found for part in PARTS if (found := data.class_counts(part)) is not None}
    if classes:
        names = data.labels or [str(number) for number in range(len(classes["train"]))]
        what = "Classes"
        if targets:  # the blank is not a label
            what, names = "Labels", names[BLANK + 1 :]
            classes = {part: counts[BLANK + 1 :] for part, counts in classes.items()}
        yield f"{what}, {len(names):,}", _classes(classes, names)
    tokens = data.token_counts("train")
    if tokens is not None:
        yield f"Tokens, {len(tokens):,} in the vocabulary", _tokens(tokens, data)
    for number, sample in enumerate(data.examples("train", options["samples"]), start=1):
        yield f"Training sample {number}", _sample(sample)
    if isinstance(data, SequenceData):
        for number, sample in enumerate(data.augmented_examples(options["samples"]), start=1):
            yield f"Training sample {number}, augmented", _sample(sample)
    if options["baselines"]:
        yield (
            f"What simple baselines reach in {objective.metric.replace('_', ' ')}",
            _baselines(data, objective),
        )


def _grid(*headings: str, left: int = 1) -> Table:
    """A table without rules, whose first columns are aligned to the left."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < left else "right", no_wrap=True)
    return table


def _parts(data: DataModule, lengths: Mapping[Part, np.ndarray]) -> Table:
    """How large each part is, of how many groups, and how long its sequences are."""
    table = _grid("", *PARTS)
    counts = data.counts()
    table.add_row(data.unit, *(f"{counts[part]:,}" for part in PARTS))
    if groups := data.group_counts():
        table.add_row("groups", *(f"{groups[part]:,}" for part in PARTS))
    if lengths:
        _add_lengths(table, "steps", lengths)
    return table


def _transcripts(targets: Mapping[Part, np.ndarray], lengths: Mapping[Part, np.ndarray]) -> Table:
    """How many labels transcripts have, for each and for each step of their sequences."""
    table = _grid("", *PARTS)
    _add_lengths(table, "labels", targets)
    table.add_row("labels per step", *(f"{targets[p].sum() / lengths[p].sum():.3f}" for p in PARTS))
    table.add_row("  most", *(f"{(targets[p] / lengths[p]).max():.3f}" for p in PARTS))
    return table


def _add_lengths(table: Table, what: str, lengths: Mapping[Part, np.ndarray]) -> None:
    """Add the total of some lengths, and their distribution."""
    table.add_row(what, *(f"{lengths[part].sum():,}" for part in PARTS))
    for name, share in (("shortest", 0), ("median", 0.5), ("95 %", 0.95), ("longest", 1)):
        found = (np.quantile(lengths[part], share, method="lower") for part in PARTS)
        table.add_row(f"  {name}", *(f"{length:,}" for length in found))


def _features(features: Sequence[Mapping[str, str]]) -> Table:
    """A line for each feature; only the first ones if there are many."""
    headings = list(features[0])
    table = _grid(*headings, left=headings.index("mean") if "mean" in headings else 1)
    for feature in features[:_ROWS]:
        table.add_row(*(Text(_named(text)) for text in feature.values()))
    if len(features) > _ROWS:
        table.add_row(Text(f"{len(features) - _ROWS:,} others", "dim"))
    return table


def _histogram(lengths: np.ndarray) -> Table:
    """A histogram of the sequences' lengths."""
    low, high = int(lengths.min()), int(lengths.max())
    width = -(-(high - low + 1) // _BINS)
    counts = np.bincount((lengths - low) // width)
    table = _grid("steps", "sequences", "", left=0)
    table.columns[2].justify = "left"
    for place, count in enumerate(counts):
        first = low + place * width
        last = min(first + width - 1, high)
        steps = f"{first:,}" if first == last else f"{first:,} to {last:,}"
        table.add_row(steps, f"{count:,}", _bar(count / counts.max()))
    return table


def _padding(data: DataModule) -> str:
    """The share of padding in training batches, and what it would be without buckets."""
    told = f"{data.loader('train').padding:.1%} of the training steps"
    if not isinstance(data, SequenceData) or data.bucket_batches == 1:
        return f"{told}."
    kept, data.bucket_batches = data.bucket_batches, 1
    without = data.loader("train").padding
    data.bucket_batches = kept
    return f"{told}; {without:.1%} if lengths were not put together (bucket_batches {kept})."


def _classes(classes: Mapping[Part, np.ndarray], labels: Sequence[str]) -> Table:
    """How often each class occurs in each part; only the commonest if there are many."""
    train = classes["train"]
    table = _grid("", *PARTS, "share of training")
    table.columns[-1].justify = "left"
    shown = np.arange(len(train))
    if len(train) > _ROWS:
        shown = np.argsort(-train, kind="stable")[: _ROWS - 1]
    for number in shown.tolist():
        share = train[number] / max(1, train.sum())
        bar = _bar(train[number] / max(1, train.max())) + Text(f" {share:.1%}")
        name = Text(_spelled(labels[number]))
        table.add_row(name, *(f"{classes[part][number]:,}" for part in PARTS), bar)
    if len(shown) < len(train):
        rest = (f"{np.delete(classes[part], shown).sum():,}" for part in PARTS)
        table.add_row(Text(f"{len(train) - len(shown):,} others", "dim"), *rest, "")
    return table


def _tokens(counts: np.ndarray, data: DataModule) -> Table:
    """The most frequent tokens of the training part."""
    table = _grid("", "times", "share of training", left=1)
    table.columns[-1].justify = "left"
    frequent = np.argsort(-counts, kind="stable")[: min(_ROWS, np.count_nonzero(counts))]
    for number in frequent.tolist():
        name = repr(data.token_name(number))[1:-1]
        bar = _bar(counts[number] / max(1, counts.max()))
        share = Text(f" {counts[number] / max(1, counts.sum()):.1%}")
        table.add_row(Text(_spelled(name)), f"{counts[number]:,}", bar + share)
    return table


def _spelled(name: str) -> str:
    """The name of a class or token; a space is said in words."""
    return "space" if name == " " else _named(name)


def _named(text: str) -> str:
    """A name; of a long one its beginning and its end, since many that begin alike end apart."""
    text = visible(text)
    return text if len(text) <= 24 else f"{text[:10]}...{text[-11:]}"


def _sample(sample: Mapping[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in sample.items():
        lines = text.expandtabs(4).splitlines()[:_LINES]
        longest = max(_CHARACTERS, len(lines) ** 3)
        table.add_row(name, Text(cut_short(visible("\n".join(lines)), longest)))
    return table


def _baselines(data: DataModule, objective: Objective) -> RenderableType:
    baselines = objective.in_metric(data.baselines(), data.describe())
    if not baselines:
        return "none"
    table = _grid("", "")
    for name, value in baselines.items():
        table.add_row(name, rounded(value))
    return table


def _bar(share: float) -> Text:
    """A bar of a share of the greatest length, drawn in eighths of a character."""
    longest = _BAR * min(terminal().width, 80) // 80
    whole, eighths = divmod(round(8 * longest * share), 8)
    return Text("█" * whole + (_EIGHTHS[eighths - 1] if eighths else ""), "cyan")
