"""The circumstances of a forward pass, restored where a backward pass computes it again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from seqnets.cells import Cell


def random_state(x: Tensor) -> Tensor:
    """The state of the random number generator of a tensor's device."""
    return torch.cuda.get_rng_state(x.device) if x.is_cuda else torch.get_rng_state()


@contextmanager
def drawn_again(random: Tensor | None, x: Tensor) -> Iterator[None]:
    """Restore a ``random_state`` within the context, if one is given."""
    devices = [x.device] if x.is_cuda else []
    with torch.random.fork_rng(devices, enabled=random is not None):
        if random is not None and x.is_cuda:
            torch.cuda.set_rng_state(random, x.device)
        elif random is not None:
            torch.set_rng_state(random)
        yield


def modes_of(cell: Cell) -> list[bool]:
    """The training flags of a cell's modules."""
    return [module.training for module in _modules(cell)]


@contextmanager
def in_modes(cell: Cell, modes: Sequence[bool]) -> Iterator[None]:
    """Restore the training flags of the forward pass within the context."""
    now = modes_of(cell)
    try:
        _set_modes(cell, modes)
        yield
    finally:
        _set_modes(cell, now)


def _set_modes(cell: Cell, modes: Sequence[bool]) -> None:
    for module, mode in zip(_modules(cell), modes, strict=True):
        module.training = mode


def _modules(cell: Cell) -> Iterable[nn.Module]:
    """A cell's modules; ``modules()`` is slow, and a cell without children needs none of it."""
    return cell.modules() if cell._modules else (cell,)
