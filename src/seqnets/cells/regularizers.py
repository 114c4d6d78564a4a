"""Noise that keeps a recurrence from memorising: around any cell, in training alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets.cells.base import Cell
from seqnets.cells.computed import compute
from seqnets.cells.wrapper import Wrapper, draw, gated, sequence_mask
from seqnets.checks import check_probability
from seqnets.errors import ConfigError
from seqnets.typing import State


class _Noisy(Wrapper):
    """A wrapper that in training drops with a probability."""

    def __init__(self, cell: Cell, p: float) -> None:
        super().__init__(cell)
        check_probability(self._name, p=p)
        self.p = p

    @property
    def active(self) -> bool:
        """Whether anything is dropped now."""
        return self.training and self.p > 0

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"


class _Masked(_Noisy):
    """One that draws a mask for all steps, and takes it apart at each."""

    def mask(self, x: Tensor) -> Tensor:
        """What is drawn for inputs (..., I): (..., mask_size)."""
        raise NotImplementedError

    def masked_step(self, wx: Tensor, mask: Tensor, state: State) -> State:
        """The state after one step under its mask, (B, mask_size)."""
        raise NotImplementedError

    @property
    def mask_size(self) -> int:
        """Numbers of the mask at each step."""
        return self.hidden_size

    def project(self, x: Tensor) -> Tensor:
        """What the cell inside needs, and the masks."""
        wx = super().project(x)
        return torch.cat([wx, self.mask(wx)], -1) if self.active else wx

    def step(self, wx: Tensor, state: State) -> State:
        """The state after one step."""
        if not self.active:
            return super().step(wx, state)
        wx, mask = wx.split([wx.shape[-1] - self.mask_size, self.mask_size], -1)
        return self.masked_step(wx, mask, state)


class Zoneout(_Masked):
    r"""Keep units as they were: each is carried over from the step before, with a probability.

    .. math::
        s_t = m_t \odot s_{t-1} + (1 - m_t) \odot \tilde s_t, \qquad m_t \sim \mathrm{Bernoulli}(p)

    In evaluation the mask's mean takes its place, :math:`p\,s_{t-1} + (1 - p)\,\tilde s_t`, as in
    the paper. State parts that count time (``Cell.clocks``) are left alone.

    Args:
        cell: The recurrence.
        p: Probability in [0, 1) of keeping a unit; or one for each part of the state by its name,
            0 for parts left out: ``{"h": 0.05, "c": 0.5}``.

    Raises:
        ConfigError: A probability is none, or a name is not one of the state's.

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
                    f"Zoneout: p names the state {name!r}, expected one of {', '.join(free)}."
                )
            check_probability("Zoneout", **{f"p of state '{name}'": each})
        self.probabilities = tuple(by_name.get(name, 0.0) for name in self.states)
        self.p = max(self.probabilities)

    @property
    def mask_size(self) -> int:
        """One number for each unit that may be kept."""
        sizes = zip(self.probabilities, self.state_sizes, strict=True)
        return sum(size for p, size in sizes if p)

    def mask(self, x: Tensor) -> Tensor:
        """Where units are kept, 1, and where not, 0."""
        parts = [
            draw(x, (*x.shape[:-1], size), p)
            for p, size in zip(self.probabilities, self.state_sizes, strict=True)
            if p
        ]
        return torch.cat(parts, -1)

    def masked_step(self, wx: Tensor, mask: Tensor, state: State) -> State:
        """Old units where the mask says so, new ones elsewhere."""
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
    r"""Drop what the cell would write, and never what it remembers.

    The candidate alone is dropped: LSTM :math:`c_t = f_t \odot c_{t-1} + i_t \odot d(g_t)`, GRU
    :math:`h_t = z_t \odot h_{t-1} + (1 - z_t) \odot d(n_t)`.

    Args:
        cell: The recurrence; its equation calls ``self.candidate``.
        p: Probability in [0, 1) of dropping a unit.
        per_step: Whether each step has a mask of its own; else one serves a row's whole sequence,
            as far as one call sees of it.

    Raises:
        ConfigError: ``p`` is no probability, or the cell has no candidate, or some that differ in
            width.

    References:
        Semeniuta et al., 2016, "Recurrent Dropout without Memory Loss", arXiv:1603.05118.
    """

    def __init__(self, cell: Cell, p: float = 0.1, *, per_step: bool = True) -> None:
        super().__init__(cell, p)
        self.per_step = per_step
        candidates = self._needs("candidate", "names no candidate")
        widths = sorted({candidate.shape[-1] for candidate in candidates})
        if len(widths) > 1:
            raise ConfigError(
                f"RecurrentDropout: the candidates of {cell.innermost._name} are "
                f"{', '.join(map(str, widths))} wide, expected one width.\n"
                f"  One mask drops all that a step would write."
            )
        self._width = widths[0]

    @property
    def mask_size(self) -> int:
        """One number for each unit of the candidate."""
        return self._width

    def mask(self, x: Tensor) -> Tensor:
        """Zeros, and 1 / (1 - p) elsewhere."""
        return sequence_mask(x, self.mask_size, 1 - self.p, steps=self.per_step)

    def masked_step(self, wx: Tensor, mask: Tensor, state: State) -> State:
        """A step whose candidate is dropped."""
        dropped = self.cell.adapted(candidate=lambda f: lambda a: f(a) * mask)
        return dropped.step(wx, state)


class VariationalDropout(_Masked):
    """Drop the same outputs from the recurrent product at every step of a sequence.

    What a cell carries over by its gates is not dropped, as in the paper and in Keras's
    ``recurrent_dropout``. One mask serves a row's whole sequence, as far as one call sees of it:
    a chunk, if the sequence comes in chunks. The same for inputs is
    ``InputDropout(cell, p, per_step=False)``.

    Args:
        cell: The recurrence, around a :class:`GatedCell`.
        p: Probability in [0, 1) of dropping a unit.

    Raises:
        ConfigError: ``p`` is no probability, or the cell has no recurrent product by gates.

    References:
        Gal & Ghahramani, 2016, "A Theoretically Grounded Application of Dropout in Recurrent
        Neural Networks", arXiv:1512.05287.
    """

    def __init__(self, cell: Cell, p: float = 0.1) -> None:
        super().__init__(cell, p)
        gated(self._name, self)
        self._needs("recur", "has no recurrent product by gates")

    @property
    def mask_size(self) -> int:
        """One number for each unit of the output."""
        return self.output_size

    def mask(self, x: Tensor) -> Tensor:
        """Zeros, and 1 / (1 - p) elsewhere."""
        return sequence_mask(x, self.mask_size, 1 - self.p, steps=False)

    def masked_step(self, wx: Tensor, mask: Tensor, state: State) -> State:
        """A step whose recurrent products see the mask."""
        dropped = self.cell.adapted(recur=lambda f: lambda h, *gates: f(h * mask, *gates))
        return dropped.step(wx, state)


class InputDropout(_Noisy):
    """Drop features of the input.

    Args:
        cell: The recurrence.
        p: Probability in [0, 1) of dropping a feature.
        per_step: Whether each step has a mask of its own; else one serves a row's whole sequence,
            as far as one call sees of it (Gal & Ghahramani, 2016).

    Raises:
        ConfigError: ``p`` is no probability.

    References:
        Zaremba et al., 2014, "Recurrent Neural Network Regularization", arXiv:1409.2329.
    """

    def __init__(self, cell: Cell, p: float = 0.1, *, per_step: bool = True) -> None:
        super().__init__(cell, p)
        self.per_step = per_step

    def project(self, x: Tensor) -> Tensor:
        """What the cell inside needs of the inputs that are left."""
        if self.active:
            x = x * sequence_mask(x, x.shape[-1], 1 - self.p, steps=self.per_step)
        return super().project(x)


def weight_drop(cell: Cell, p: float = 0.5, *, weights: tuple[str, ...] = ("weight_hh",)) -> Cell:
    """Drop entries of a cell's weights, anew for each call and the same at all its steps.

    A parametrization (``torch.nn.utils.parametrize``): the cell keeps its class, its kernels and
    the name of its weight, whose values are drawn from ``parametrizations.weight_hh.original``.

    Args:
        cell: The recurrence; the wrapped cell inside, if it has options.
        p: Probability in [0, 1) of dropping an entry.
        weights: Names of the parameters.

    Returns:
        The cell itself.

    Raises:
        ConfigError: ``p`` is no probability, or the cell has no such parameter.

    References:
        Merity et al., 2018, "Regularizing and Optimizing LSTM Language Models", arXiv:1708.02182;
        Wan et al., 2013, "Regularization of Neural Networks using DropConnect".
    """
    inner = cell.innermost
    for name in weights:
        if not isinstance(getattr(inner, name, None), Tensor):
            raise ConfigError(
                f"weight_drop: {type(inner).__name__} has no parameter {name!r}, expected one of "
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
