"""What an equation calls its gates and candidates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from seqnets.cells import Cell, GatedCell
from seqnets.cells.checks import check_is_cell
from seqnets.layers.watching import step_with_calls


@torch.no_grad()
def names_of_calls(cell: Cell) -> dict[str, list[str]]:
    """A name for each of the calls that :func:`watch` keeps.

    A call has the name of a gate, such as "gate f" and "candidate g", where it is found to
    read this gate's part of the projected input, and is the first one to do so; else it has its
    number. Torch's generators of random numbers stay as they are.

    Args:
        cell: The recurrence, in evaluation mode; where it draws noise calls have numbers.
    """
    check_is_cell("names_of_calls", cell)
    like, generator = cell._like, torch.Generator("cpu").manual_seed(0)

    def drawn(shaped: Tensor) -> Tensor:
        return torch.randn(shaped.shape, generator=generator, device="cpu").to(shaped)

    with torch.random.fork_rng(devices=[like.device] if like.is_cuda else []):  # cells may draw
        wx = drawn(cell.project(like.new_zeros(1, cell.input_size)))
        state = tuple(drawn(like.new_empty(1, size)) for size in cell.state_sizes)
        _, made = step_with_calls(cell, wx, state)
        inner = cell.innermost
        gates = inner.inputs if isinstance(inner, GatedCell) else ()
        if wx.shape[-1] != len(gates) * cell.hidden_size:  # it has other parts, too
            gates = ()
        read: list[set[str]] = [set() for _ in _flat(made)]
        for gate in gates:
            _, changed = step_with_calls(cell, _moved(wx, gates, gate), state)
            for place, (one, other) in enumerate(zip(_flat(made), _flat(changed), strict=True)):
                if not torch.equal(one, other):
                    read[place].add(gate)
    assigned = iter(_assigned(gates, read))
    names: dict[str, list[str]] = {}
    for role, results in made.items():
        for number, read_gate in enumerate(islice(assigned, len(results)), start=1):
            which = read_gate or (number if len(results) > 1 else "")
            names.setdefault(role, []).append(f"{role} {which}".rstrip())
    return names


def _flat(made: dict[str, list[Tensor]]) -> list[Tensor]:
    return [result for results in made.values() for result in results]


def _moved(wx: Tensor, gates: Sequence[str], gate: str) -> Tensor:
    """The projected input with one gate's part changed."""
    parts = list(wx.chunk(len(gates), -1))
    place = gates.index(gate)
    parts[place] = parts[place] + 0.1
    return torch.cat(parts, -1)


def _assigned(gates: Sequence[str], read: Sequence[set[str]]) -> list[str | None]:
    """The gate that each call is named after: the only one it reads that has no call yet."""
    names: list[str | None] = [None] * len(read)
    for place in sorted(range(len(read)), key=lambda place: len(read[place])):
        left = [gate for gate in gates if gate in read[place] and gate not in names]
        if len(left) == 1:
            names[place] = left[0]
    return names
