"""Stacks of recurrent layers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from seqnets.cells import Cell
from seqnets.cells.checks import check_is_cell, check_makes_cells, takes_elapsed
from seqnets.cells.constructors import checks_calls
from seqnets.cells.convolutional import ConvolutionalCell
from seqnets.checks import check_choice, check_count, check_flags, check_number, check_probability
from seqnets.errors import ConfigError, counted
from seqnets.layers.bidirectional import Bidirectional
from seqnets.layers.checks import (
    cannot_step,
    check_parts,
    check_reads_times,
    check_reads_units,
    check_run_options,
    takes_no_times,
)
from seqnets.layers.connections import (
    CONNECTIONS,
    NORMS,
    Dense,
    FeedForward,
    Join,
    NoConnection,
    beside_time,
    connect,
    joined,
)
from seqnets.layers.dropout import LockedDropout
from seqnets.layers.lengths import (
    resets_for_reverse,
    times_for_reverse,
    without_padding,
)
from seqnets.layers.recurrent import Recurrent
from seqnets.layers.torch_base import leaf_call


class CellFactory(Protocol):
    """Builds a cell of given sizes: a cell's class, or a partial of it."""

    def __call__(self, *, input_size: int, hidden_size: int) -> Cell:
        """A new cell of these sizes."""


class DeepRNN(nn.Module):
    """Stack recurrent layers, each over the outputs of the one below.

    Args:
        cell: A cell's class or a partial of it; or a list with one per layer.
        input_size: Features of the input, I.
        hidden_size: Units of every layer, H; or a list with one per layer.
        num_layers: Layers, L; by default the length of a list ``hidden_size`` or ``cell``, or 1.
        bidirectional: Whether layers run in both directions; or a list with one per layer.
        alternating: Whether layers 1, 3, ... run backwards in time and the others forwards.
        merge: How the directions are merged: "concat", "sum" or "mean".
        connection: Skip connections: "none"; "residual" adds a layer's input to its output, and
            "highway" mixes the two by a gate, both from the second layer on; "dense" gives each
            layer the input and the outputs of all layers below, concatenated. Of frames, the gate
            reads and mixes the channels of each place.
        norm: A norm between layers and after the last, with parameters of its own at each place:
            "none", "layer" or "rms". Layers read what is below them through it, and connections
            lead around both.
        feed_forward: Width of a feed-forward layer with a gate (SwiGLU) after each layer, as a
            multiple of its input's width; none if 0. It reads through a norm too, and what it makes
            is added to its input, whatever the connection.
        timed: Whether the input's last feature is the time. The cells are made with ``timed=True``,
            and every layer reads the time, as it is, beside what is below it; connections, norms,
            feed-forward layers and dropout act on the other features.
        tied: Whether all layers share the parameters of one cell, or of two if bidirectional.
        dropout: Probability in [0, 1) of dropping an output between layers, in training, where a
            layer or a feed-forward layer reads it.
        locked: Whether all steps of a sequence share one dropout mask.
        backend: "auto", or the name of the backend that must run.
        memory: "full" or "lean"; see ``unroll``.

    Raises:
        ConfigError: Options are unknown or contradict each other, ``cell`` does not build cells,
            lists disagree in length, tied layers differ in sizes or kind, a cell takes no times
            with ``timed``, or one above the first layer takes times without.
        DtypeError: An option that is true or false is something else.
        ShapeError: A skip connection spans a layer whose input and output widths differ.

    Example:
        >>> net = DeepRNN(cells.GRUCell, 8, 64, num_layers=3, connection="residual", dropout=0.2)
        >>> y, state = net(torch.randn(4, 100, 8))  # y: (4, 100, 64)
    """

    timed = False

    @checks_calls
    def __init__(
        self,
        cell: CellFactory | Sequence[CellFactory],
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int | None = None,
        *,
        bidirectional: bool | Sequence[bool] = False,
        alternating: bool = False,
        merge: str = "concat",
        connection: str = "none",
        norm: str = "none",
        feed_forward: float = 0,
        timed: bool = False,
        tied: bool = False,
        dropout: float = 0.0,
        locked: bool = False,
        backend: str = "auto",
        memory: str = "full",
    ) -> None:
        super().__init__()
        check_choice("DeepRNN", CONNECTIONS, connection=connection)
        check_choice("DeepRNN", NORMS, norm=norm)
        check_number("DeepRNN", least=0, below=math.inf, feed_forward=feed_forward)
        check_run_options("DeepRNN", backend, memory)
        check_probability("DeepRNN", dropout=dropout)
        check_flags("DeepRNN", alternating=alternating, timed=timed, tied=tied, locked=locked)
        L = _depth_of(num_layers, hidden_size=hidden_size, cell=cell)
        cells = _per_layer("cell", cell, L)
        sizes = _per_layer("hidden_size", hidden_size, L)
        directions = _per_layer("bidirectional", bidirectional, L)
        for make, both in zip(cells, directions, strict=True):
            named = ("input_size", "hidden_size") + ("timed",) * timed
            check_makes_cells("DeepRNN", make, *named)
            check_flags("DeepRNN", bidirectional=both)
        _check_directions(directions, alternating, merge)

        self.input_size, self.timed = input_size, timed
        self.dropout = (LockedDropout if locked else nn.Dropout)(dropout)
        self.layers = nn.ModuleList()
        self.connections = nn.ModuleList()
        self.feed_forwards = nn.ModuleList()  # one per layer, or none
        self.norms = nn.ModuleList()  # likewise: of what is above each layer
        taken = input_size
        for depth, (make, size, both) in enumerate(zip(cells, sizes, directions, strict=True)):
            spec = _LayerSpec(taken, make, size, both, timed)
            if depth == 0 or not tied:
                pair, first = spec.make_cells(), spec
            else:
                first.check_is_same(spec, depth)
                pair = [_share_parameters(cell) for cell in pair]
            if timed:
                check_reads_times("DeepRNN", pair[0])
            else:
                check_reads_units("DeepRNN", depth, pair[0])
            backwards = alternating and depth % 2 == 1
            layer = _layer(pair, merge, reverse=backwards, backend=backend, memory=memory)
            self.layers.append(layer)
            own = pair[0]._like
            like = {"device": own.device, "dtype": own.dtype}
            places, width = _places_of(pair[0]), taken - timed
            skip = connect(connection, depth, L, width, layer.output_size, places, **like)
            self.connections.append(skip)
            width = layer.output_size + (width if isinstance(skip, Dense) else 0)
            if feed_forward:
                inside = max(1, round(feed_forward * width))
                self.feed_forwards.append(FeedForward(width, inside, norm, **like))
            if norm != "none":
                self.norms.append(NORMS[norm](width, **like))
            taken = width + timed

    @property
    def output_size(self) -> int:
        """Features of the last layer's output."""
        return self.layers[-1].output_size  # type: ignore[return-value]

    def forward(
        self,
        x: Tensor,
        state: Sequence[Any] | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Outputs of the last layer, (B, T, H), and the states of all layers.

        Args:
            x: Inputs, (B, T, I).
            state: One state per layer, as that layer takes it; initial states if omitted.
            lengths: Valid steps of each row, (B,); all T if omitted.
            resets: Where a new sequence begins inside a row, (B, T) boolean. No layer carries
                anything across.
        """
        if isinstance(x, torch.fx.Proxy):
            return leaf_call(self, x, state, lengths, resets)
        states, parts = self._states(state), self.above()
        after = []
        read, filled = x, None
        if lengths is not None and (self.norms or self.feed_forwards):  # they fill padding
            filled = lengths
        for depth, (layer, above) in enumerate(zip(self.layers, parts, strict=True)):
            own = resets
            if (resets is not None or self.timed) and _runs_backwards(layer):
                own = resets_for_reverse(resets, lengths)
                if self.timed and takes_elapsed(layer.cell):
                    read = times_for_reverse(read, lengths, own)
            y, final = layer(read, states[depth], lengths, own)
            if filled is not None and depth == 0 and type(self.connections[0]) is not NoConnection:
                x = without_padding(x, filled)  # which the connection reads
            x, read = above(x, y)
            after.append(final)
        return without_padding(read, filled), tuple(after)

    if TYPE_CHECKING:  # torch.nn.Module says that a call returns Any
        __call__ = forward

    def step(
        self, x: Tensor, state: Sequence[Any] | None = None, resets: Tensor | None = None
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Take one step through all layers: x (B, I), to output (B, H) and the states after.

        Args:
            x: Inputs of the step, (B, I).
            state: The states before it, one per layer.
            resets: Rows whose states are reset before the step, (B,) boolean.

        Raises:
            ConfigError: A layer runs backwards or in both directions.
        """
        states, parts = self._states(state), self.above()
        after, read = [], x
        for depth, (layer, above) in enumerate(zip(self.layers, parts, strict=True)):
            if isinstance(layer, Bidirectional) or _runs_backwards(layer):
                where = "backwards" if _runs_backwards(layer) else "in both directions"
                raise cannot_step("DeepRNN", f"layer {depth} runs {where}")
            y, final = layer.step(read, states[depth], resets)  # type: ignore[operator]
            x, read = above(x, y)
            after.append(final)
        return read, tuple(after)

    def above(self, dropout: Callable[[Tensor], Tensor] | None = None) -> list[Join]:
        """What is above each layer.

        Args:
            dropout: What drops features that layers and feed-forward layers read; the stack's own
                if omitted.

        Returns:
            A function for each layer, of what its input was before norm and dropout, and of its
            output. It returns what the next function takes first, and what the next layer reads:
            the same through norm and dropout. That of the top layer returns the stack's output.
        """
        dropout = self.dropout if dropout is None else dropout
        connections = self.connections
        count = len(connections)
        nothing, tops = [None] * count, [False] * (count - 1) + [True]
        feeds, norms = self.feed_forwards or nothing, self.norms or nothing
        parts = zip(tops, connections, feeds, norms, strict=True)
        joins: list[Join] = [partial(joined, dropout, *each) for each in parts]
        if not self.timed:
            return joins
        return [partial(beside_time, *each) for each in zip(joins, tops, strict=True)]

    @property
    def is_bare(self) -> bool:
        """Whether outputs of layers are inputs of the next as they are, but for dropout."""
        skips = any(type(connection) is not NoConnection for connection in self.connections)
        return not (skips or self.feed_forwards or self.norms or self.timed)

    def _states(self, state: Sequence[Any] | None) -> Sequence[Any]:
        L = len(self.layers)
        if state is None:
            return (None,) * L
        check_parts("DeepRNN", state, L, f"a tuple of one per layer: {L}")
        return state


class _LayerSpec(NamedTuple):
    """What a layer's cells are made from; ``both`` says whether it runs in both directions."""

    input_size: int
    cell: CellFactory
    hidden_size: int
    both: bool
    timed: bool

    def make_cells(self) -> list[Cell]:
        """Make a cell for each direction."""
        given: dict[str, Any] = {"input_size": self.input_size, "hidden_size": self.hidden_size}
        given |= {"timed": True} if self.timed else {}
        try:
            cells = [self.cell(**given) for _ in range(1 + self.both)]
        except TypeError as error:
            if self.timed and "unexpected keyword argument 'timed'" in str(error):
                raise takes_no_times("DeepRNN", self.cell) from error
            raise
        check_is_cell("DeepRNN", cells[0])
        return cells

    def check_is_same(self, other: _LayerSpec, depth: int) -> None:
        """Raise ConfigError unless the layer at a depth can share this first layer's cells."""
        if other != self:
            raise ConfigError(
                f"DeepRNN: layer {depth} takes {counted(other.input_size, 'feature')} and has "
                f"{other.hidden_size} units, expected {self.input_size} and {self.hidden_size} as "
                f"in layer 0, and the same kind.\n"
                f"  tied=True uses one cell's parameters in all layers."
            )


def _layer(
    cells: Sequence[Cell], merge: str, *, reverse: bool, **options: Any
) -> Recurrent | Bidirectional:
    """The layer of one cell, or of one for each direction."""
    if len(cells) == 2:
        return Bidirectional(*cells, merge=merge, **options)
    return Recurrent(*cells, reverse=reverse, **options)


def _check_directions(bidirectional: Sequence[bool], alternating: bool, merge: str) -> None:
    """Raise ConfigError if directions contradict each other, or are not merged."""
    if merge == "none":
        raise ConfigError(
            "DeepRNN: merge is 'none', expected 'concat', 'sum' or 'mean'.\n"
            "  The layer above takes one input, not a pair."
        )
    if alternating and any(bidirectional):
        raise ConfigError(
            "DeepRNN: got alternating and bidirectional, expected one of the two.\n"
            "  A bidirectional layer has no direction to alternate."
        )


def _runs_backwards(layer: nn.Module) -> bool:
    return isinstance(layer, Recurrent) and layer.reverse


def _places_of(cell: Cell) -> int:
    """Places of the frames that a cell runs over; 1 if its inputs are none."""
    inner = cell.innermost
    return math.prod(inner.frame) if isinstance(inner, ConvolutionalCell) else 1


def _share_parameters(cell: Cell) -> Cell:
    """Another cell with the same parameters.

    Not the cell itself: ``torch.func.functional_call`` does not restore the tensors of a module
    that it meets twice.
    """
    return copy.deepcopy(cell, {id(t): t for t in (*cell.parameters(), *cell.buffers())})


def _depth_of(num_layers: int | None, **listed: Any) -> int:
    for name, values in listed.items():
        if _is_list(values) and not values:
            raise ConfigError(f"DeepRNN: {name} lists no values, expected one per layer.")
    if num_layers is None:
        return next((len(values) for values in listed.values() if _is_list(values)), 1)
    check_count("DeepRNN", num_layers=num_layers)
    return num_layers


def _per_layer(name: str, value: Any, num_layers: int) -> Sequence[Any]:
    if not _is_list(value):
        return (value,) * num_layers
    if len(value) != num_layers:
        raise ConfigError(
            f"DeepRNN: {name} lists {counted(len(value), 'value')}, expected one per layer: "
            f"{num_layers}."
        )
    return value


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
