"""Rules of learning other than backpropagation through time, for models that know nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from seqnets.checks import name_of
from seqnets.datasets import DataModule
from seqnets.datasets.sequences.loader import SequenceLoader
from seqnets.errors import ConfigError
from seqnets.layers import RTRL, Recurrent, Truncated, map_state
from seqnets.layers.stand_ins import running
from seqnets.typing import State


class Rules:
    """A rule of learning for each recurrent layer of a model, which itself stays as it is.

    Args:
        model: The model. All its recurrent layers must run forwards over whole sequences.
        rule: Makes a layer that learns by the rule from one that does not, such as
            :class:`~seqnets.layers.RTRL`.

    Attributes:
        influences: What the rules carry from batch to batch, by the layers' names in the model.

    Raises:
        ConfigError: The model has no recurrent layer, one draws random numbers, or the rule
            refuses one.
    """

    def __init__(self, model: nn.Module, rule: Callable[[Recurrent], nn.Module]) -> None:
        self._model = model
        self._layers: dict[str, nn.Module] = {}
        for name, layer in model.named_modules():
            if isinstance(layer, Recurrent):
                _check_draws_nothing(name, layer)
                self._layers[name] = rule(_again(layer))
        if not self._layers:
            raise ConfigError(
                f"learning: {name_of(model)} has no Recurrent layer, expected one: only these "
                f"learn by other rules than backpropagation.\n  Take learning=bptt."
            )
        self.influences: dict[str, Any] = {}

    def check(self, data: LightningDataModule) -> None:
        """Raise ConfigError for RTRL on whole sequences, where it would only cost time.

        What :class:`~seqnets.layers.Truncated` cuts is not a whole sequence: RTRL carries over what
        one piece did to the state of the next.
        """
        exact = any(type(layer) is RTRL for layer in self._layers.values())  # no approximation
        cut = any(isinstance(layer, Truncated) for layer in self._model.modules())
        if not exact or cut or not isinstance(data, DataModule):
            return
        if isinstance(data.loader("train"), SequenceLoader):
            raise ConfigError(
                f"learning: RTRL carries over what one batch did to the state of the next, and the "
                f"batches of {name_of(data)} are whole sequences, expected a stream such as a "
                f"text.\n  Take learning=bptt: the gradients are the same, in less time."
            )

    @contextmanager
    def learning(self, carry: bool) -> Iterator[None]:
        """Have the layers learn by the rule, and then as before.

        Args:
            carry: Whether the batch continues the one before.

        Raises:
            ConfigError: A layer did not run over a sequence.
        """
        before = self.influences if carry else {}
        self.influences = {}

        def learns(name: str, _: Recurrent) -> Callable[..., tuple[Tensor, State]] | None:
            return partial(self._run, name, before) if name in self._layers else None

        with running(self._model, learns):
            yield
        for name in self._layers.keys() - self.influences.keys():
            raise ConfigError(
                f"learning: layer {name!r} of {name_of(self._model)} did not run over a sequence, "
                f"expected it: in single steps it learns by backpropagation alone.\n"
                f"  Take learning=bptt."
            )

    def _run(
        self,
        name: str,
        before: Mapping[str, Any],
        x: Tensor,
        state: State | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """A layer's forward pass, by the rule."""
        influence = self.influences.get(name, before.get(name))  # of this batch, if it ran before
        influence = map_state(lambda numbers: numbers.to(x.device), influence)
        given = None if state is None else (state, influence)
        y, (after, self.influences[name]) = self._layers[name](x, given, lengths, resets)
        return y, after


def _again(layer: Recurrent) -> Recurrent:
    """The same layer, around the same cell."""
    return Recurrent(layer.cell, reverse=layer.reverse, backend=layer.backend, memory=layer.memory)


def _check_draws_nothing(name: str, layer: Recurrent) -> None:
    """Raise ConfigError if a layer draws random numbers: before a run starts."""
    x = layer.cell._like.new_zeros(1, 2, layer.input_size)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        before = torch.get_rng_state()
        Recurrent(layer.cell, backend="reference")(x)
        if not torch.equal(before, torch.get_rng_state()):
            raise ConfigError(
                f"learning: layer {name!r} draws random numbers, expected none: rules other than "
                f"backpropagation run it twice.\n"
                f"  Take zoneout and the like out of its cell, or take learning=bptt."
            )
