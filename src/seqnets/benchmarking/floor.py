"""The matrix products that a pass cannot avoid, by torch, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from seqnets.benchmarking.contestants import Absent, Contestant, Workload
from seqnets.cells import Cell

Size = tuple[int, int]


def products(cell: Cell) -> tuple[list[Size], list[Size]]:
    """(Rows, columns) of the weights that multiply inputs, and of those that every step needs."""
    fixed = {name for name, _ in cell.named_buffers()}
    matrices = {n: t for n, t in cell.tensors().items() if t.dim() == 2 and n not in fixed}
    sizes = {name: (matrix.shape[0], matrix.shape[1]) for name, matrix in matrices.items()}
    of_inputs = [size for name, size in sizes.items() if name.endswith("weight_ih")]
    return of_inputs, [size for name, size in sizes.items() if not name.endswith("weight_ih")]


def operations(cell: Cell) -> int:
    """Multiplications of one step of one sequence, in its products."""
    return sum(rows * columns for sizes in products(cell) for rows, columns in sizes)


def floor(work: Workload) -> Contestant:
    """The products alone: all inputs' in one, the recurrent ones a step at a time."""
    case = work.case
    inputs, steps = products(work.cell)
    if not inputs and not steps:
        raise Absent("the cell has no matrix product")
    if work.x.is_cuda:
        raise Absent("a GPU would wait for the launch of each product, which is no limit")
    B, T, like = case.B, case.T, work.x
    forward = [_product(B * T, *size, like) for size in inputs]
    each_step = [_product(B, *size, like) for size in steps]
    backward, each_step_back = [], []
    if case.pass_ == "training":
        each_step_back = [_product(B, columns, rows, like) for rows, columns in steps]
        backward = [_product(rows, columns, B * T, like) for rows, columns in [*inputs, *steps]]
        backward += [_product(B * T, columns, rows, like) for rows, columns in inputs]

    def run() -> None:
        with torch.no_grad():
            for multiply in forward:
                multiply()
            for _ in range(T):
                for multiply in each_step:
                    multiply()
            for _ in range(T):
                for multiply in each_step_back:
                    multiply()
            for multiply in backward:
                multiply()

    return Contestant("floor", run, None, on_torch=False)


def _product(m: int, n: int, k: int, like: Tensor) -> Callable[[], Tensor]:
    """(m, k) times (k, n), written where there already is room."""
    a, b = torch.randn(m, k).to(like), torch.randn(k, n).to(like)
    out = torch.empty(m, n).to(like)
    return lambda: torch.mm(a, b, out=out)
