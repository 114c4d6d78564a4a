"""The lower bound of a case: the matrix products that it cannot avoid, computed by torch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from seqnets.benchmarking.contestants import Absent, Contestant, Workload
from seqnets.cells import Cell

Size = tuple[int, int]


def products(cell: Cell) -> tuple[list[Size], list[Size]]:
    """The shapes of a cell's weight matrices.

    Returns:
        (Rows, columns) of the weights of the input, and of those that each step multiplies.
    """
    fixed = {name for name, _ in cell.named_buffers()}
    matrices = {n: t for n, t in cell.tensors().items() if t.dim() == 2 and n not in fixed}
    sizes = {name: (matrix.shape[0], matrix.shape[1]) for name, matrix in matrices.items()}
    input_sizes = [size for name, size in sizes.items() if name.endswith("weight_ih")]
    return input_sizes, [size for name, size in sizes.items() if not name.endswith("weight_ih")]


def operations(cell: Cell) -> int:
    """The number of multiplications in the matrix products of one step, for one row."""
    return sum(rows * columns for sizes in products(cell) for rows, columns in sizes)


def floor(work: Workload) -> Contestant:
    """The matrix products as a contestant: the input's at once, the recurrent ones per step.

    Raises:
        Absent: The cell has no matrix product, or the device is a GPU.
    """
    case = work.case
    inputs, steps = products(work.cell)
    if not inputs and not steps:
        raise Absent("the cell has no matrix product")
    if work.x.is_cuda:
        raise Absent("on a GPU, launching each product would dominate, which is no lower bound")
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
    """A function that multiplies (m, k) by (k, n) into an existing tensor."""
    a, b = torch.randn(m, k).to(like), torch.randn(k, n).to(like)
    out = torch.empty(m, n).to(like)
    return lambda: torch.mm(a, b, out=out)
