"""A trained model as another program runs it: plain arrays in, named arrays out."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import seqnets
from seqnets.cells.checks import timed_cells
from seqnets.checks import name_of
from seqnets.datasets.scaling import Scaling
from seqnets.datasets.sequences.times import Times
from seqnets.errors import ConfigError
from seqnets.layers import Recurrent
from seqnets.layers.lengths import lengths_after
from seqnets.layers.state import leaves
from seqnets.models import ConditionalRandomField
from seqnets.models.words import BYTES
from seqnets.training.checkpoint import OF_TRAINING
from seqnets.training.objectives import Forecasting, LanguageModelling, Objective
from seqnets.training.objectives.base import BEFORE
from seqnets.training.standardised import input_scaling
from seqnets.typing import Batch, Known

_ROWS = 8
"""The most rows of a batch that are taken."""


class Port(NamedTuple):
    """An input or an output.

    Attributes:
        name: Its name.
        dtype: The type of its numbers, as NumPy calls it.
        shape: Its sizes; a letter or a word for one that varies: B rows, T steps, frames.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(map(str, self.shape))}) {self.dtype}"


class Served(nn.Module):
    """A copy of a model, in evaluation mode and float32, that takes what a program has.

    Its call takes one tensor for each of its inputs, in their order, and returns a mapping:

    - ``x`` are features in the units of the data, float64 if the dataset standardises them, or
      frames; times of steps are the last feature, as in the data; ``tokens`` are ids;
    - ``lengths`` are the valid steps of each row, but for forecasts, whose windows have no padding;
    - ``ahead`` are the features that are known ahead at the steps to forecast, if there are any, in
      the units of the data;
    - a language model also takes and returns its state, part by part, so that it can write.

    Args:
        model: Takes (x, state, lengths), gives (output, state).
        objective: What the model was trained for, which names its outputs.
        known: The description of the dataset that it was trained on.

    Attributes:
        start: The state before the first step by the name of its input, (1, ...) each.

    Raises:
        ConfigError: The dataset does not say what the model's inputs are.
    """

    def __init__(self, model: nn.Module, objective: Objective, known: Known) -> None:
        super().__init__()
        sizes = known["sizes"]
        if not {"vocab_size", "input_size", "channels"} & sizes.keys():
            raise ConfigError(
                f"export: the dataset has the sizes {', '.join(sizes)}, expected vocab_size, "
                "input_size, or channels, height and width, which say what the model's inputs are."
            )
        self.model = _settled(copy.deepcopy(model).to("cpu", torch.float32).eval())
        self.objective, self.known = objective, known
        self.x_scaling, self.y_scaling = input_scaling(known), objective.scaling(known)
        self.times = Times.known(known)
        self.takes_lengths = not isinstance(objective, Forecasting)
        self.ahead_scaling = _ahead_scaling(known)
        self.start = _start(self.model) if isinstance(objective, LanguageModelling) else {}

    def forward(self, *given: Tensor) -> dict[str, Tensor]:
        """The outputs by name, numbers in the units of the data; after them the new state."""
        x, *rest = given
        lengths = rest.pop(0) if self.takes_lengths else None
        if self.times is not None:
            x = self.times.of_batch(x)
        if self.x_scaling is not None:
            x = self.x_scaling(x)
        model: Any = self.model
        if self.ahead_scaling is not None:
            model = partial(model, ahead=self.ahead_scaling(rest.pop(0)))
        state = nested(rest, self.model) if rest else None
        outputs, state = self.objective.served(model, x, state, lengths)
        if self.y_scaling is not None:
            outputs = {name: self.y_scaling.undo(values) for name, values in outputs.items()}
        if self.start:
            outputs = {**outputs, **dict(zip(self.states, leaves(state), strict=True))}
        return outputs

    @property
    def inputs(self) -> list[str]:
        """The names of the inputs, in the order of a call."""
        x = "tokens" if "vocab_size" in self.known["sizes"] else "x"
        lengths = ["lengths"] if self.takes_lengths else []
        ahead = [] if self.ahead_scaling is None else ["ahead"]
        return [x, *lengths, *ahead, *self.start]

    @property
    def states(self) -> list[str]:
        """The names of the parts of the new state; each input has another word before it."""
        return [name.removeprefix(BEFORE) for name in self.inputs if name.startswith(BEFORE)]

    @property
    def sequences(self) -> list[str]:
        """The names of the inputs that have steps, T."""
        return self.inputs[:1]

    @property
    def segment(self) -> int:
        """What the number of steps is a multiple of."""
        return getattr(self.model, "segment", 1)

    @property
    def least(self) -> int:
        """The fewest steps: a recurrence is taken to run over more than one, where it need not."""
        if self.segment > 1:
            return 2 * self.segment
        steps = 2
        while int(lengths_after(self.model, torch.tensor([steps]))) < 2:
            steps += 1
        return 1 if steps == 2 else steps

    def steps(self, count: int) -> int:
        """About so many steps, as the model takes them."""
        return -(-max(count, self.least) // self.segment) * self.segment

    def example(self, rows: int, steps: int, seed: int = 0) -> list[Tensor]:
        """Random inputs, one row over all steps and the others over fewer.

        A fifth of the features is missing, NaN, if the dataset keeps gaps and has some; the time is
        always there.

        Args:
            rows: B.
            steps: T, a multiple of :attr:`segment`.
            seed: Of the random numbers.
        """
        sizes, random = self.known["sizes"], torch.Generator().manual_seed(seed)
        if "vocab_size" in sizes:
            x = torch.randint(sizes["vocab_size"], (rows, steps), generator=random)
            if characters := (self.known.get("words") or {}).get("characters"):
                spelled = torch.randint(BYTES, (rows, steps, characters), generator=random)
                x = torch.cat([x[..., None], spelled], -1)
        elif "input_size" in sizes:
            x = torch.randn(rows, steps, sizes["input_size"], generator=random)
            last = x[..., -1].abs()
            if self.known.get("gaps"):
                x[torch.rand(x.shape, generator=random) < 0.2] = torch.nan
            if self.times is not None or timed_cells(self.model):
                x[..., -1] = last.cumsum(1) if self.times and self.times.stamps else last
            x = self._raw(x)
        else:
            frame = [sizes[name] for name in ("channels", "height", "width")]
            x = torch.rand(rows, steps, *frame, generator=random)
        lengths = torch.randint(1, steps + 1, (rows,), generator=random)
        lengths[0] = steps
        ahead = None
        if self.ahead_scaling is not None:
            ahead = torch.randn(rows, sizes["horizon"], sizes["ahead_size"], generator=random)
        return self._with_state(x, lengths, ahead)

    def of_batch(self, batch: Batch) -> list[Tensor]:
        """The inputs that a batch of the dataset stands for; of its first rows only."""
        x = batch.x[:_ROWS].cpu()
        lengths = torch.full((len(x),), x.shape[1]) if batch.lengths is None else batch.lengths
        ahead = None if batch.ahead is None else batch.ahead[:_ROWS].cpu()
        return self._with_state(self._raw(x), lengths[:_ROWS].cpu(), ahead)

    def in_own_scale(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs as the model computes them, before they are put into units, float64."""
        found = {name: values.double() for name, values in outputs.items()}
        if self.y_scaling is None:
            return found
        mean, deviation = self.y_scaling.mean, self.y_scaling.deviation
        return {name: (values - mean) / deviation for name, values in found.items()}

    def describe(self) -> dict[str, Any]:
        """What a user of the model needs, as plain values."""
        inputs, outputs = self._ports()
        about: dict[str, Any] = {
            "format": 1,
            "version": seqnets.__version__,
            "model": name_of(self.model),
            "objective": type(self.objective).__name__,
            "inputs": [port._asdict() for port in inputs],
            "outputs": [port._asdict() for port in outputs],
            "steps": {"least": self.least, "multiple": self.segment},
        }
        if self.start:
            about["start"] = {name: _plain(part) for name, part in self.start.items()}
        head = getattr(self.model, "output", None)
        if isinstance(head, ConditionalRandomField):
            about["crf"] = {n: getattr(head, n).tolist() for n in ("start", "transitions", "end")}
        if isinstance(self.objective, Forecasting) and len(self.objective.quantiles) > 1:
            about["quantiles"] = self.objective.quantiles
        data = {name: value for name, value in self.known.items() if name not in OF_TRAINING}
        return {**about, "data": data}

    def _raw(self, x: Tensor) -> Tensor:
        """Inputs of the model in the units of the data."""
        x = x if self.x_scaling is None else self.x_scaling.undo(x)
        return x if self.times is None else self.times.undo(x)

    def _with_state(self, x: Tensor, lengths: Tensor, ahead: Tensor | None) -> list[Tensor]:
        """The inputs of a call; the state is one that the model reaches by reading them.

        What is known ahead comes as the model takes it.
        """
        given = [x, *([lengths] if self.takes_lengths else [])]
        if ahead is not None and self.ahead_scaling is not None:
            given.append(self.ahead_scaling.undo(ahead))
        if not self.start:
            return given
        states = [part.expand(len(x), *part.shape[1:]) for part in self.start.values()]
        with torch.no_grad():
            reached = self(*given, *states)
        return [*given, *(reached[name] for name in self.states)]

    def _ports(self) -> list[list[Port]]:
        """The inputs and the outputs, as two calls of other rows and steps have them."""
        least = self.steps(3)
        more = least + 4 * self.segment
        letters, calls = {(2, 3): "B", (least, more): "T"}, []
        for rows, steps in ((2, least), (3, more)):
            given = self.example(rows, steps)
            with torch.no_grad():
                calls.append((dict(zip(self.inputs, given, strict=True)), self(*given)))
        return [
            [_port(name, tensor, second[name], letters) for name, tensor in first.items()]
            for first, second in zip(*calls, strict=True)
        ]


def _settled(model: nn.Module) -> nn.Module:
    """Make parameters of a model's weights that are computed from others; return the model."""
    computed: list[Any] = [m for m in model.modules() if parametrize.is_parametrized(m)]
    with torch.no_grad():
        for module in computed:
            weights = {name: getattr(module, name).clone() for name in module.parametrizations}
            # torch's own removal writes to the class and to the originals, which others may share
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            for name, weight in weights.items():
                module.register_parameter(name, nn.Parameter(weight))
    return model


def _ahead_scaling(known: Known) -> Scaling | None:
    """How a series standardises the columns that are known ahead, its last ones."""
    count, scaling = known["sizes"].get("ahead_size", 0), input_scaling(known)
    if not count or scaling is None:
        return None
    return Scaling(scaling.mean[-count:], scaling.deviation[-count:])


def _start(model: nn.Module) -> dict[str, Tensor]:
    """The state before the first step by the name of its input: each layer's, part by part."""
    layers = [part for part in model.modules() if isinstance(part, Recurrent)]
    with torch.no_grad():
        return {
            f"{BEFORE}{name}_{depth}": part.clone()
            for depth, layer in enumerate(layers)
            for name, part in zip(layer.cell.states, layer.cell.checked_start(1), strict=True)
        }


def nested(parts: Sequence[Tensor], model: nn.Module) -> tuple[tuple[Tensor, ...], ...]:
    """A stack's state from its parts: a tuple for each layer."""
    left = iter(parts)
    layers = (part for part in model.modules() if isinstance(part, Recurrent))
    return tuple(tuple(next(left) for _ in layer.cell.states) for layer in layers)


def _plain(start: Tensor) -> Any:
    """The state before the first step as a plain value: 0 if it is zero throughout."""
    return start[0].tolist() if start.any() else 0


def _port(name: str, tensor: Tensor, other: Tensor, letters: Mapping[tuple[int, int], str]) -> Port:
    """A port from a call's tensor and another's: letters for the sizes that differ."""
    sizes = zip(tensor.shape, other.shape, strict=True)
    shape = tuple(a if a == b else letters.get((a, b), "frames") for a, b in sizes)
    return Port(name, str(tensor.dtype).removeprefix("torch."), shape)
