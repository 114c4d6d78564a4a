"""The inside of a model's layers, drawn from what was seen of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.datasets.sequences.step_texts import feature_names, step_texts
from seqnets.datasets.text.codecs import read_codec
from seqnets.errors import ConfigError, DataError
from seqnets.insight.fixed_points import draw_fixed_points
from seqnets.insight.states import draw_states
from seqnets.insight.units import draw_units
from seqnets.layers import FixedPoints, WatchedLayer, fixed_points, names_of_calls
from seqnets.typing import END, IGNORE, Batch, Known

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST = 1024
"""Maximum numbers of a state whose fixed points are sought; the time grows with their cube."""

_STARTS = 64
"""Maximum number of visited states from which fixed points are sought."""

_TEXT = 100
"""The fewest tokens of a text that is written."""

_CLASSES = 10
"""Maximum number of classes that colours tell apart."""


def draw_seen(seen: Mapping[str, WatchedLayer], batch: Batch, known: Known) -> dict[str, Figure]:
    """Draw the states and calls of each layer over the steps of a batch's first row.

    Args:
        seen: What :func:`seqnets.layers.watch_layers` found in the model, in evaluation mode.
        batch: The batch that it ran over.
        known: What the dataset says of itself.

    Returns:
        A figure for each layer that has steps, by its name.
    """
    length = batch.x.shape[1] if batch.lengths is None else int(batch.lengths[0])
    x = batch.x[0, :length]
    shown = step_texts(x, known) or x.flatten(1).float().cpu().numpy()
    figures = {}
    for name, layer in seen.items():
        steps = layer.valid[0]
        parts = {f"state {part}": values for part, values in layer.states.items()}
        names = names_of_calls(layer.layer.cell)
        for role, calls in layer.calls.items():
            if role != "squash":  # which shows a state once more
                parts |= dict(zip(names[role], calls, strict=True))
        of_row = {part: _plain(values[0, steps]) for part, values in parts.items()}
        if not steps.any():
            continue
        if _decodes(name):
            read = _read_by_decoder(batch.y[0], known)
            written = {part: values[: len(read or values)] for part, values in of_row.items()}
            figures[name] = draw_states(written, read)
        else:
            figures[name] = draw_states(of_row, shown, feature_names(known))
    return figures


def _decodes(name: str) -> bool:
    """Whether a layer is a decoder's, whose steps are other ones than the input's."""
    return "decoder" in name.split(".")


def _read_by_decoder(y: Tensor, known: Known) -> list[str] | None:
    """The text of each token that precedes one of a target; None if what is written is not text."""
    if known.get("target") is None:
        return None
    codec = read_codec(known["target"])
    before = [END, *y[y != IGNORE].tolist()[:-1]]
    return [piece for number in before for piece in codec.pieces([number])]


def draw_read(seen: Mapping[str, WatchedLayer], batch: Batch, known: Known) -> dict[str, Figure]:
    """Write the text that a batch's first row reads on the colours of what single units hold.

    They are drawn as they are before an output gate, where a cell has one: of an LSTM, tanh(c).

    Args:
        seen: What :func:`seqnets.layers.watch_layers` found in the model.
        batch: The batch that it ran over.
        known: What the dataset says of itself.

    Returns:
        A figure for each layer that takes a step for each token, by its name; none if the row is no
        text of several lines.
    """
    texts = step_texts(batch.x[0], known) or []
    if len(texts) < _TEXT:
        return {}
    figures = {}
    for name, layer in seen.items():
        part = layer.calls.get("squash", list(layer.states.values()))[0][0, layer.valid[0]]
        if layer.valid.shape[1] == len(texts) and not _decodes(name):
            figures[name] = draw_units(texts[: len(part)], _plain(part))
    return figures


class Rest(NamedTuple):
    """Where a layer's state comes to rest if its input stays the same.

    Attributes:
        points: The layer's fixed and slow points; None if they were not sought.
        refusal: Why not.
        repeated: What the input is.
        paths: The layer's states along each row of the batch, in the order in which they run, as
            the points have them, (T, S) each; without steps that are not finite.
        told: What the targets tell of each row's steps, (T,) each, as :func:`draw_fixed_points`
            takes it; None if nothing that colours could show.
    """

    points: FixedPoints | None
    refusal: str | None
    repeated: str | None
    paths: list[np.ndarray]
    told: list[np.ndarray] | None

    def draw(self, known: Known) -> Figure | None:
        """Draw the paths and the points; None if these were not sought."""
        if self.points is None:
            return None
        states, _, fixed, _, eigenvalues = (part.numpy() for part in self.points)
        labels = known.get("labels")
        return draw_fixed_points(
            self.paths, states, eigenvalues, fixed, self.told, labels, self.repeated, "target"
        )


def rest_of(
    layer: WatchedLayer,
    batch: Batch,
    known: Known,
    at: str | None = None,
    *,
    largest: int | None = None,
) -> Rest:
    """Search for the fixed points of a layer from its initial state and some it has visited.

    The input that stays the same is one that occurs: that of the step nearest to the mean of all
    steps. The mean itself would be no input that the layer knows if steps are tokens, and would
    blur marks that are either there or not if they are features.

    Args:
        layer: What was seen of it, in evaluation mode.
        batch: The batch that the model ran over.
        known: What the dataset says of itself.
        at: A token, as the dataset writes it: the input is taken from the steps that read it.
        largest: Maximum numbers in a state whose fixed points are sought; 1,024 if omitted.

    Raises:
        DataError: No step of the batch reads the token, or the batch has none at all.
    """
    cell = layer.layer.cell
    flat = torch.cat([layer.states[name] for name in cell.states[int(cell.output_only) :]], -1)
    values = _told(batch, layer, known)
    finite = flat.float().isfinite().all(-1) & layer.x.flatten(2).isfinite().all(-1)
    ran, layer = layer.valid.any(), layer._replace(valid=layer.valid & finite)
    paths = _along_rows(layer, _plain(flat))
    told = None if values is None else _along_rows(layer, values)
    rest = Rest(None, None, None, paths, told)
    size, limit = flat.shape[-1], LARGEST if largest is None else largest
    if size > limit:
        return rest._replace(refusal=f"a state has {size:,} numbers, expected at most {limit:,}")
    if not paths:
        refusal = "none of its states is finite" if ran else "it has run over no steps"
        return rest._replace(refusal=refusal)
    reads_steps = layer.valid.shape == batch.x.shape[:2]
    if at is not None and not reads_steps and step_texts(batch.x[0], known) is not None:
        refusal = f"it reads no tokens one by one, and at is {at!r}"  # but segments, say
        return rest._replace(refusal=refusal)
    x, repeated = _repeated(layer, batch, known, at)
    try:
        found = fixed_points(cell, x, _starts(layer, cell))
    except ConfigError as error:
        refusal = str(error).partition(": ")[2].partition(", expected")[0]
        return rest._replace(refusal=refusal)
    return rest._replace(points=found, repeated=repeated)


def _along_rows(layer: WatchedLayer, values: np.ndarray) -> list[np.ndarray]:
    """Values of the steps, (B, T, ...), for each row that has valid ones, as the layer runs."""
    order, valid = -1 if layer.layer.reverse else 1, layer.valid.cpu().numpy()
    return [row[steps][::order] for row, steps in zip(values, valid, strict=True) if steps.any()]


def _repeated(
    layer: WatchedLayer, batch: Batch, known: Known, at: str | None
) -> tuple[Tensor, str | None]:
    """The input that stays the same, (I,), and what it is."""
    texts = None
    if layer.valid.shape == batch.x.shape[:2]:
        texts = [step_texts(row, known) for row in batch.x]
    chosen = layer.valid
    if at is not None:
        if all(row is None for row in texts or []):
            raise DataError(
                f"at: is {at!r}, expected none: the steps that were looked at read no tokens.\n"
                "  Leave it out for an input that is near to the mean."
            )
        same = [[text == at for text in row or [""] * chosen.shape[1]] for row in texts or []]
        chosen = chosen & torch.tensor(same, device=chosen.device)
        if not chosen.any():
            raise DataError(
                f"at: none of the steps that were looked at reads {at!r}, expected a token of "
                "them.\n  Leave it out for an input that is near to the mean."
            )
    x = layer.x[chosen]
    place = int((x - x.mean(0)).float().square().sum(1).argmin())
    row, step = chosen.nonzero()[place].tolist()
    of_row = None if texts is None else texts[row]
    repeated = None if of_row is None else f"if the input stays that of {of_row[step]!r}"
    return x[place].to(layer.layer.cell._like.dtype), repeated


def _starts(layer: WatchedLayer, cell: Cell) -> tuple[Tensor, ...]:
    """The initial state, and some of those that were visited, evenly spread."""
    visited = [part[layer.valid] for part in layer.states.values()]
    places = torch.linspace(0, len(visited[0]) - 1, min(_STARTS, len(visited[0]))).round().long()
    chosen = [part[places.to(part.device)] for part in visited]
    first = cell.checked_start(1)
    return tuple(torch.cat([a, b.to(a.dtype)]) for a, b in zip(first, chosen, strict=True))


def _told(batch: Batch, layer: WatchedLayer, known: Known) -> np.ndarray | None:
    """The target of each step, (B, T); that of a sequence is at the last step that runs."""
    y = batch.y
    B, T = layer.valid.shape
    if not y.is_floating_point() and known["sizes"].get("num_classes", _CLASSES + 1) > _CLASSES:
        return None
    if y.is_floating_point() and y.shape[-1] == 1:
        y = y[..., 0]
    if y.shape == (B, T) and batch.x.shape[1] == T:
        return _plain(y) if y.is_floating_point() else y.cpu().numpy()
    if y.shape != (B,):
        return None
    none = float("nan") if y.is_floating_point() else IGNORE
    of_steps = y.new_full((B, T), none)
    last = layer.valid.long().cumsum(1).argmax(1)
    if layer.layer.reverse:
        last = layer.valid.long().argmax(1)
    of_steps[torch.arange(B, device=y.device), last] = y
    return of_steps.cpu().numpy()


def _plain(values: Tensor) -> np.ndarray:
    """As an array; NumPy has no bfloat16."""
    return values.detach().float().cpu().numpy()
