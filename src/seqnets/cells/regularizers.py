"""Regularisation by noise, around any cell and in training only."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets.cells.base import Cell
from seqnets.cells.checks import check_untimed
from seqnets.cells.computed import compute
from seqnets.cells.masks import draw, sequence_mask
from seqnets.cells.wrapper import Wrapper, gated
from seqnets.checks import check_flags, check_probability, name_of
from seqnets.errors import ConfigError
from seqnets.typing import State


class _Noisy(Wrapper):
    """A wrapper that drops something with probability ``p`` in training."""

    def __init__(self, cell: Cell, p: float) -> None:
        super().__init__(cell)
        check_probability(self._name, p=p)
        self.p = p

    @property
    def active(self) -> bool:
        """Whether anything is dropped in the current mode."""
        return self.training and self.p > 0


class _Masked(_Noisy):
    """A wrapper that draws masks for all steps at once and applies one at each step."""

    def mask(self, x: Tensor) -> Tensor:
        """Masks for inputs (..., I): (..., mask_size)."""
        raise NotImplementedError

    def masked_step(self, wx: Tensor, mask: Tensor, state: State) -> State:
        """The state after one step with its mask, (B, mask_size)."""
        raise NotImplementedError

    @property
    def mask_size(self) -> int:
        """Entries of the mask at each step."""
        return self.hidden_size

    def project(self, x: Tensor) -> Tensor:
        """The inner cell's projection, followed by the masks."""
        wx = super().project(x)
        return torch.cat([wx, self.mask(wx)], -1) if self.active else wx

    def step(self, wx: Tensor, state: State) -> State:
        """The state after one step."""
        if not self.active:
            return super().step(wx, state)
        wx, mask = wx.split([wx.shape[-1] - self.mask_size, self.mask_size], -1)
        return self.masked_step(wx, mask, state)


class Zoneout(_Masked):
    r"""Let units keep their previous value, each with some probability at each step.

    .. math::
        s_t = m_t \odot s_{t-1} + (1 - m_t) \odot \tilde s_t, \qquad m_t \sim \mathrm{Bernoulli}(p)

    In evaluation the mask is replaced by its mean, :math:`p\,s_{t-1} + (1 - p)\,\tilde s_t`, as in
    the paper. State parts that count time (``Cell.clocks``) are not affected.

    Args:
        cell: The recurrence.
        p: Probability in [0, 1) of keeping a unit; or one for each part of the state by its name,
            0 for parts left out: ``{"h": 0.05, "c": 0.5}``.

    Raises:
        ConfigError: A probability is outside [0, 1), or a name is not one of the state's.

    References:
        Krueger et al., 2017, "Zoneout: Regularizing RNNs by Randomly Preserving Hidden
        Activations", arXiv:1606.01305.
    """

    def __init__(self, cell: Cell, p: float | Mapping[str, float] = 0.1) -> None:
        Wrapper.__init__(self, cell)
        free = [name for name in self.states if name not in self.clocks]
        by_name = dict(p) if isinstance(p, Mapping) else dict.fromkeys(free, p)
        for name, each in by_name.items():
            if name not in free:
                raise ConfigError(
                    f"Zoneout: p has the state {name!r}, expected names from {', '.join(free)}."
                )
            check_probability("Zoneout", **{f"p of state '{name}'": each})
        self.probabilities = tuple(by_name.get(name, 0.0) for name in self.states)
        self.p = max(self.probabilities)
        self.output_only = self.output_only and not self.probabilities[0]

    @property
    def mask_size(self) -> int:
        """One entry for each unit of the parts with a probability above 0."""
        sizes = zip(self.probabilities, self.state_sizes, strict=True)
        return sum(size for p, size in sizes if p)

    def mask(self, x: Tensor) -> Tensor:
        """1 where a unit keeps its value, else 0."""
        parts = [
            draw(x, (*x.shape[:-1], size), p)
            for p, size in zip(self.probabilities, self.state_sizes, strict=True)
            if p
        ]
        return torch.cat(parts, -1)

    def masked_step(self, wx: Tensor, mask: Tensor, state: State) -> State:
        """Old values where the mask is 1, new ones elsewhere."""
        after, place = [], 0
        new = self.cell.step(wx, state)
        for p, old, part, size in zip(
            self.probabilities, state, new, self.state_sizes, strict=True
        ):
            if p:
                part = torch.where(mask[..., place : place + size] > 0, old, part)
                place += size
            after.append(part)
        return tuple(after)

    def step(self, wx: Tensor, state: State) -> State:
        """The state after one step."""
        if self.training:
            return super().step(wx, state)
        new = self.cell.step(wx, state)
        triples = zip(self.probabilities, state, new, strict=True)
        return tuple(part + p * (old - part) if p else part for p, old, part in triples)

    def extra_repr(self) -> str:
        """The probability of each part."""
        return ", ".join(f"{n}={p}" for n, p in zip(self.states, self.probabilities, strict=True))


class RecurrentDropout(_Masked):
    r"""Drop units of the candidate, never of the memory.

    LSTM: :math:`c_t = f_t \odot c_{t-1} + i_t \odot d(g_t)`; GRU:
    :math:`h_t = z_t \odot h_{t-1} + (1 - z_t) \odot d(n_t)`.

    Args:
        cell: The recurrence; its equation must call ``self.candidate``.
        p: Probability in [0, 1) of dropping a unit.
        per_step: Whether each step draws its own mask; else all steps of a row within a call share
            one.

    Raises:
        ConfigError: ``p`` is outside [0, 1), or the cell has no candidate, or candidates of
            several widths.

    References:
        Semeniuta et al., 2016, "Recurrent Dropout without Memory Loss", arXiv:1603.05118.
    """

    def __init__(self, cell: Cell, p: float = 0.1, *, per_step: bool = True) -> None:
        super().__init__(cell, p)
        check_flags(self._name, per_step=per_step)
        self.per_step = per_step
        candidates = self._require_call("candidate", "has no candidate")
        widths = sorted({candidate.shape[1:].numel() for candidate in candidates})  # over heads
        if len(widths) > 1:
            raise ConfigError(
                f"RecurrentDropout: the candidates of {cell.innermost._name} are "
                f"{', '.join(map(str, widths))} wide, expected one width.\n"
                f"  All candidates of a step share one mask."
            )
        self._width = widths[0]

    @property
    def mask_size(self) -> int:
        """One entry for each unit of the candidate."""
        return self._width

    def mask(self, x: Tensor) -> Tensor:
        """Zeros, and 1 / (1 - p) elsewhere."""
        return sequence_mask(x, self.mask_size, 1 - self.p, steps=self.per_step)

    def masked_step(self, wx: Tensor, mask: Tensor, state: State) -> State:
        """A step with dropout on the candidate."""

        def dropped(candidate: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            def call(a: Tensor) -> Tensor:
                found = candidate(a)
                return found * (mask if found.dim() == mask.dim() else mask.view_as(found))

            return call

        return self.cell.adapted(candidate=dropped).step(wx, state)


class VariationalDropout(_Masked):
    """Drop the same units of the last output from the recurrent product at every step.

    What gates carry over is not dropped, as in the paper and in Keras's ``recurrent_dropout``. All
    steps of a row within a call share one mask; a sequence in chunks draws one for each chunk. The
    counterpart for inputs is ``InputDropout(cell, p, per_step=False)``.

    Args:
        cell: The recurrence, around a :class:`GatedCell`.
        p: Probability in [0, 1) of dropping a unit.

    Raises:
        ConfigError: ``p`` is outside [0, 1), or the cell has no recurrent product by gates.

    References:
        Gal & Ghahramani, 2016, "A Theoretically Grounded Application of Dropout in Recurrent
        Neural Networks", arXiv:1512.05287.
    """

    def __init__(self, cell: Cell, p: float = 0.1) -> None:
        super().__init__(cell, p)
        gated(self._name, self)
        self._require_call("recur", "has no recurrent product by gates")

    @property
    def mask_size(self) -> int:
        """One entry for each unit of the output."""
        return self.output_size

    def mask(self, x: Tensor) -> Tensor:
        """Zeros, and 1 / (1 - p) elsewhere."""
        return sequence_mask(x, self.mask_size, 1 - self.p, steps=False)

    def masked_step(self, wx: Tensor, mask: Tensor, state: State) -> State:
        """A step with dropout on the input of its recurrent products."""
        dropped = self.cell.adapted(recur=lambda f: lambda h, *gates: f(h * mask, *gates))
        return dropped.step(wx, state)


class InputDropout(_Noisy):
    """Drop features of the input.

    Args:
        cell: The recurrence.
        p: Probability in [0, 1) of dropping a feature.
        per_step: Whether each step draws its own mask; else all steps of a row within a call share
            one (Gal & Ghahramani, 2016).

    Raises:
        ConfigError: ``p`` is outside [0, 1), or the cell's last feature is the time.

    References:
        Zaremba et al., 2014, "Recurrent Neural Network Regularization", arXiv:1409.2329.
    """

    def __init__(self, cell: Cell, p: float = 0.1, *, per_step: bool = True) -> None:
        super().__init__(cell, p)
        check_flags(self._name, per_step=per_step)
        check_untimed(self._name, cell, "It would drop the time too: drop features before.")
        self.per_step = per_step

    def project(self, x: Tensor) -> Tensor:
        """The inner cell's projection of the inputs after dropout."""
        if self.active:
            x = x * sequence_mask(x, x.shape[-1], 1 - self.p, steps=self.per_step)
        return super().project(x)


def weight_drop(cell: Cell, p: float = 0.5, *, weights: tuple[str, ...] = ("weight_hh",)) -> Cell:
    """Drop entries of a cell's weights, with one mask for all steps of a call.

    This is a parametrization (``torch.nn.utils.parametrize``): the cell keeps its class and its
    kernels. ``weight_hh`` is computed from ``parametrizations.weight_hh.original``, which is what
    is learned.

    Args:
        cell: The recurrence. Of a wrapped cell, the innermost one is changed.
        p: Probability in [0, 1) of dropping an entry.
        weights: Names of the parameters.

    Returns:
        The cell itself.

    Raises:
        ConfigError: ``p`` is outside [0, 1), or the cell has no such parameter.

    References:
        Merity et al., 2018, "Regularizing and Optimizing LSTM Language Models", arXiv:1708.02182;
        Wan et al., 2013, "Regularization of Neural Networks using DropConnect".
    """
    inner = cell.innermost
    for name in weights:
        if not isinstance(getattr(inner, name, None), Tensor):
            raise ConfigError(
                f"weight_drop: {name_of(inner)} has no parameter {name!r}, expected one of "
                f"{', '.join(inner.tensors())}."
            )
        compute(inner, name, _Dropped(p))
    return cell


class _Dropped(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        check_probability("weight_drop", p=p)
        self.p = p

    def forward(self, weight: Tensor) -> Tensor:
        return F.dropout(weight, self.p, self.training)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight

    def extra_repr(self) -> str:
        return f"p={self.p}"
