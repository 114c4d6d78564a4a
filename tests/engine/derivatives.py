"""Second derivatives of a cell over time, to compare backends by."""

import torch

from seqnets import unroll


def second_derivatives(cell, x, lengths, resets, backend, run=unroll):
    """Of the squared gradient of the squared outputs, by the input and each parameter."""
    y, _ = run(cell, x, None, lengths, resets, backend=backend)
    (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    wanted = (x, *cell.parameters())
    return torch.autograd.grad(first.square().sum(), wanted, materialize_grads=True)
