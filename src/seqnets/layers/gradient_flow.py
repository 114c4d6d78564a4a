"""How far back in time a loss's gradient reaches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seqnets.errors import ConfigError
from seqnets.layers.recurrent import Recurrent
from seqnets.layers.stand_ins import check_calls_a_model, ran_none, running
from seqnets.layers.watching import Recorder
from seqnets.typing import State


def gradient_flow(model: nn.Module, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    r"""The norms of a loss's gradients with respect to the states of recurrent layers.

    :math:`\lVert \partial L / \partial s_{T-k} \rVert` tells how much the loss still depends on
    what a layer carried k steps before its last one: it vanishes or explodes with k where gradients
    do. A loss of the last step alone shows this most clearly; others also reach earlier states
    directly. The layers run in the plain loop, and no ``grad`` of a parameter changes. A layer that
    takes single steps, as a decoder does, is not seen.

    Args:
        model: The model, or any other module around recurrent layers.
        loss: Runs the model, and returns a scalar.

    Returns:
        A tensor (B, T) for each recurrent layer that is called over a sequence, by its name in the
        model, as :func:`watch_layers` names it. Column k is the L2 norm of the gradient with
        respect to a row's state k steps before the row's last one, in the direction in which the
        layer runs; NaN where a row has fewer steps. All parts of the state count that a later step
        reads. Several calls of one layer follow each other: T is the steps of all. Windows of
        :class:`Truncated` that overlap are calls too, so that the steps which they share count
        again in each.

    Raises:
        ConfigError: The loss runs no recurrent layer of the model over a sequence, it runs one
            over batches of different sizes, or it is not a scalar or has no gradient.

    Example:
        >>> net, x = DeepRNN(cells.LSTMCell, 8, 16, num_layers=2), torch.randn(4, 100, 8)
        >>> norms = layers.gradient_flow(net, lambda: net(x)[0][:, -1].sum())
        >>> norms["layers.0"]  # (4, 100); [:, 0] of the last step, [:, 99] of the first

    References:
        Bengio et al., 1994, "Learning long-term dependencies with gradient descent is difficult";
        Pascanu et al., 2013, "On the difficulty of training recurrent neural networks",
        arXiv:1211.5063.
    """
    check_calls_a_model("gradient_flow", "loss", loss)
    runs: dict[str, list[_Run]] = {}
    recorded = running(model, lambda name, layer: partial(_run, layer, runs, name))
    with torch.enable_grad(), recorded:
        value = loss()
    if not runs:
        raise ran_none("gradient_flow", "the loss", model)
    for name, of in runs.items():
        _check_rows(name, of)
    states = [part for of in runs.values() for run in of for step in run.states for part in step]
    if states:
        _check_loss(value)
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
    """What a layer carries after each of its steps, and which are steps of a row, (B, T).

    Both are in the order in which the layer runs. An output that no step reads is left out.
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


class _Recorder(Recorder):
    """A recorder whose states have gradients, even if the layer is frozen."""

    def step(self, wx: Tensor, state: State) -> State:
        """The cell's."""
        return super().step(wx if wx.requires_grad else wx.detach().requires_grad_(), state)


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
    y, final, valid = recorder.run(x, state, lengths, resets, reverse)
    states = [after[1:] if recorder.output_only else after for after in recorder.states_after]
    runs.setdefault(name, []).append(_Run(states, valid.flip(1) if reverse else valid))
    return y, final


def _check_rows(name: str, runs: Sequence[_Run]) -> None:
    """Raise unless a layer's runs, which follow each other, are of the same rows."""
    sizes = [len(run.valid) for run in runs]
    if len(set(sizes)) > 1:
        raise ConfigError(
            f"gradient_flow: layer {name!r} ran over batches of {sizes} rows, expected one number "
            "of rows.\n"
            "  Calls of one layer follow each other in time; look at separate batches one by one."
        )


def _check_loss(value: Tensor) -> None:
    """Raise unless a loss is one number with a gradient."""
    if not isinstance(value, Tensor):
        got, remedy = f"a {type(value).__name__}", "Return the loss itself, without item()."
    elif value.numel() != 1:
        got, remedy = f"of shape {tuple(value.shape)}", "Take its sum or mean."
    elif not value.requires_grad:
        got, remedy = "a tensor without a gradient", "Leave out detach() and inference_mode."
    else:
        return
    raise ConfigError(
        f"gradient_flow: the loss is {got}, expected a scalar tensor with a gradient.\n  {remedy}"
    )


def _last_first(norms: Tensor, valid: Tensor) -> Tensor:
    """Each row's valid steps from last to first, then NaN; as many columns as there are steps."""
    order = (~valid).flip(1).to(torch.uint8).argsort(dim=1, stable=True)
    turned = norms.masked_fill(~valid, torch.nan).flip(1).gather(1, order)
    return turned[:, : int(valid.sum(1).max()) if valid.numel() else 0]
