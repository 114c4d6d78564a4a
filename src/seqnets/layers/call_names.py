"""What an equation calls its gates and candidates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seqnets.cells import Cell, GatedCell
from seqnets.layers.watching import step_with_calls


@torch.no_grad()
def names_of_calls(cell: Cell) -> dict[str, list[str]]:
    """Return a name for each of the calls that :func:`watch` keeps.

    A call has the name of a gate, such as "gate f" and "candidate g", where it is found to
    read this gate's part of the projected input, and is the first one to do so; else it has its
    number. Torch's generators of random numbers stay as they are.

    Args:
        cell: The recurrence, in evaluation mode; where it draws noise calls have numbers.
    """
    like, generator = cell._like, torch.Generator("cpu").manual_seed(0)

    def drawn(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, device="cpu").to(like)

    with torch.random.fork_rng(devices=[like.device] if like.is_cuda else []):  # cells may draw
        wx = drawn(cell.project(like.new_zeros(1, cell.input_size)))
        state = tuple(drawn(like.new_empty(1, size)) for size in cell.state_sizes)
        _, made = step_with_calls(cell, wx, state)
        roles = [role for role, results in made.items() for _ in results]
        inner = cell.innermost
        gates = inner.inputs if isinstance(inner, GatedCell) else ()
        read: list[set[str]] = [set() for _ in roles]
        if wx.shape[-1] != len(gates) * cell.hidden_size:  # it has other parts, too
            gates = ()
        for gate in gates:
            _, changed = step_with_calls(cell, _moved(wx, gates, gate), state)
            for place, (one, other) in enumerate(zip(_flat(made), _flat(changed), strict=True)):
                if not torch.equal(one, other):
                    read[place].add(gate)
    names = _assigned(gates, read)
    return {
        role: [
            f"{role} {names[place] or number}" if names[place] or len(of) > 1 else role
            for number, place in enumerate(of, start=1)
        ]
        for role in made
        if (of := [place for place, other in enumerate(roles) if other == role])
    }


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
