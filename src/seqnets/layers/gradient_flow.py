"""How far back in time a loss's gradient reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seqnets.cells import Cell, Wrapper
from seqnets.engine.request import make_request
from seqnets.engine.unroll import unroll
from seqnets.errors import ConfigError
from seqnets.layers.recurrent import Recurrent
from seqnets.typing import State


def gradient_flow(model: nn.Module, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    r"""The norms of a loss's gradients with respect to the states of recurrent layers.

    :math:`\lVert \partial L / \partial s_{T-k} \rVert` tells how much the loss still depends on
    what a layer carried k steps before its last one: it vanishes or explodes with k where gradients
    do. A loss of the last step alone shows this most clearly; others also reach earlier states
    directly. The layers run in the plain loop, and no ``grad`` of a parameter changes.

    Args:
        model: The model, or any other module around recurrent layers.
        loss: Runs the model, and returns a scalar.

    Returns:
        A tensor (B, T) for each recurrent layer, by its name in the model. Column k is the L2 norm
        of the gradient with respect to a row's state, all its parts, k steps before the row's last
        one, in the direction in which the layer runs; NaN where a row has fewer steps.

    Raises:
        ConfigError: The loss runs no :class:`Recurrent` layer of the model.

    Example:
        >>> net, x = DeepRNN(cells.LSTMCell, 8, 16, num_layers=2), torch.randn(4, 100, 8)
        >>> norms = layers.gradient_flow(net, lambda: net(x)[0][:, -1].sum())
        >>> norms["layers.0"]  # (4, 100); [:, 0] of the last step, [:, 99] of the first

    References:
        Bengio et al., 1994, "Learning long-term dependencies with gradient descent is difficult";
        Pascanu et al., 2013, "On the difficulty of training recurrent neural networks",
        arXiv:1211.5063.
    """
    runs: dict[str, list[_Run]] = {}
    with torch.enable_grad(), _recording(model, runs):
        value = loss()
    if not runs:
        raise ConfigError(
            f"gradient_flow: the loss ran no recurrent layer of {type(model).__name__}, expected "
            "at least one.\n  Layers are Recurrent, or made of it, as Bidirectional and DeepRNN."
        )
    states = [part for of in runs.values() for run in of for step in run.states for part in step]
    sought = [part for part in dict.fromkeys(states) if part.requires_grad]
    found = torch.autograd.grad(value, sought, allow_unused=True) if sought else ()
    gradients = dict(zip(sought, found, strict=True))
    return {
        name: _last_first(
            torch.cat([run.norms(gradients) for run in of], 1),
            torch.cat([run.valid for run in of], 1),
        )
        for name, of in runs.items()
    }


class _Run(NamedTuple):
    """A layer's states after each of its steps, and which are steps of a row, (B, T).

    Both are in the order in which the layer runs.
    """

    states: list[State]
    valid: Tensor

    def norms(self, gradients: Mapping[Tensor, Tensor | None]) -> Tensor:
        """The norms of each row's gradients, (B, T)."""
        norms = [self.valid.new_zeros(len(self.valid), 0, dtype=torch.float32)]
        for state in self.states:
            found = [gradients.get(part) for part in state]
            there = [gradient.flatten(1).float() for gradient in found if gradient is not None]
            together = torch.cat(there, 1) if there else norms[0]
            norms.append(torch.linalg.vector_norm(together, dim=1, keepdim=True))
        return torch.cat(norms, 1)


class _Recorder(Wrapper):
    """A cell that keeps the state after each of its steps."""

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        self.states_after: list[State] = []

    def step(self, wx: Tensor, state: State) -> State:
        """The cell's."""
        after = self.cell.step(wx, state)
        self.states_after.append(after)
        return after


@contextmanager
def _recording(model: nn.Module, runs: dict[str, list[_Run]]) -> Iterator[None]:
    """Append what the model's recurrent layers do to ``runs``, by their names."""
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, Recurrent)]
    for name, layer in layers:
        layer.__dict__["forward"] = partial(_run, layer, runs, name)
    try:
        yield
    finally:
        for _, layer in layers:
            del layer.__dict__["forward"]


def _run(
    layer: Recurrent,
    runs: dict[str, list[_Run]],
    name: str,
    x: Tensor,
    state: State | None = None,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
) -> tuple[Tensor, State]:
    """A layer's forward pass in the plain loop, recorded."""
    recorder, reverse = _Recorder(layer.cell), layer.reverse
    valid = make_request(layer.cell, x, state, lengths, resets, reverse).valid
    if valid is None:
        valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    y, final = unroll(recorder, x, state, lengths, resets, reverse=reverse, backend="reference")
    run = _Run(recorder.states_after, valid.flip(1) if reverse else valid)
    runs.setdefault(name, []).append(run)
    return y, final


def _last_first(norms: Tensor, valid: Tensor) -> Tensor:
    """Each row's valid steps from last to first, then NaN; as many columns as there are steps."""
    order = (~valid).flip(1).to(torch.uint8).argsort(dim=1, stable=True)
    turned = norms.masked_fill(~valid, torch.nan).flip(1).gather(1, order)
    return turned[:, : int(valid.sum(1).max()) if valid.numel() else 0]
