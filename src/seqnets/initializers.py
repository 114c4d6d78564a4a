"""How parameters start, one gate at a time.

A recurrent weight holds one block of rows a gate. Drawing each block on its own keeps the scale
of a gate independent of how many gates its cell has.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def xavier_(weight: Tensor, gates: int) -> Tensor:
    """Fill each gate's block of rows with Xavier-uniform numbers, in place.

    Args:
        weight: One block of rows a gate, (G*H, I).
        gates: How many blocks.

    References:
        Glorot & Bengio, 2010, "Understanding the difficulty of training deep feedforward neural
        networks".
    """
    if weight.is_meta:  # torch < 2.13 would load its compiler
        return weight
    for block in weight.chunk(gates):
        nn.init.xavier_uniform_(block)
    return weight


def orthogonal_(weight: Tensor, gates: int) -> Tensor:
    """Fill each gate's block of rows with a random orthogonal matrix, in place.

    Args:
        weight: One block of rows a gate, (G*H, H).
        gates: How many blocks.

    References:
        Saxe et al., 2014, "Exact solutions to the nonlinear dynamics of learning in deep linear
        neural networks", arXiv:1312.6120.
    """
    if weight.is_meta:
        return weight
    for block in weight.chunk(gates):
        if block.dtype in (torch.float16, torch.bfloat16):  # torch has no decomposition for these
            precise = torch.empty(block.shape, device=block.device)
            block.data.copy_(nn.init.orthogonal_(precise))
        else:
            nn.init.orthogonal_(block)
    return weight


@torch.no_grad()
def steps_(bias: Tensor, least: float, most: float) -> Tensor:
    """Fill with numbers whose softplus is between two bounds, uniform in its logarithm, in place.

    Args:
        bias: Of any shape.
        least: The least softplus, above 0.
        most: The largest.

    References:
        Gu & Dao, 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces",
        arXiv:2312.00752.
    """
    dt = torch.empty_like(bias, dtype=torch.float64)
    dt.uniform_(math.log(least), math.log(most)).exp_()
    return bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus inverted


def logit(p: float) -> float:
    """The number whose logistic function is ``p``: where a gate that opens so far starts."""
    return math.log(p / (1 - p))


@torch.no_grad()
def scale_to_radius_(weight: Tensor, radius: float, used: Tensor | None = None) -> Tensor:
    """Scale a square matrix to a spectral radius, its largest absolute eigenvalue, in place.

    A matrix without eigenvalues other than 0, as a very sparse one may be, stays as it is.

    Args:
        weight: The matrix, (H, H).
        radius: The spectral radius.
        used: What is computed from the matrix, in proportion, and gets the radius; by default the
            matrix itself.
    """
    if weight.is_meta:
        return weight
    largest = spectral_radius(weight if used is None else used)
    return weight.mul_(radius / largest) if largest > 1e-6 else weight


@torch.no_grad()
def spectral_radius(weight: Tensor) -> float:
    """The largest absolute eigenvalue of a square matrix."""
    return torch.linalg.eigvals(weight.double()).abs().max().item()


@torch.no_grad()
def torch_uniform_(module: nn.Module, hidden_size: int) -> None:
    """Draw all parameters of a module as torch.nn's recurrent layers do.

    Each is uniform in [-1/sqrt(H), 1/sqrt(H)], in the order of ``module.parameters()``, so that
    equal seeds give the numbers that torch.nn gives.
    """
    bound = 1.0 / math.sqrt(hidden_size)
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -bound, bound)


@contextmanager
def whole(module: nn.Module) -> Iterator[None]:
    """Hold parameters whole that ``fully_shard`` has split; split them again at the end.

    What is written to a block of a split matrix is lost, since the block is a copy. Of what is
    drawn, all processes take the numbers of the first.
    """
    owners: list[dict[str, Any]] = [inside._parameters for inside in module.modules()]
    split = [
        (parameters, name, parameter)
        for parameters in owners
        for name, parameter in parameters.items()
        if hasattr(parameter, "device_mesh") and not parameter.is_meta
    ]
    joined = {p: nn.Parameter(p.detach().full_tensor().clone()) for *_, p in split}
    for parameters, name, parameter in split:
        parameters[name] = joined[parameter]
    try:
        yield
        for parameter, whole_one in joined.items():
            _split_into(parameter, whole_one)
    finally:
        for parameters, name, parameter in split:
            parameters[name] = parameter


@torch.no_grad()
def _split_into(parameter: Any, tensor: Tensor) -> None:
    """Give each process its part of the tensor that the first one has."""
    from torch.distributed.tensor import distribute_tensor  # slow to import, and here already

    parameter.copy_(distribute_tensor(tensor, parameter.device_mesh, parameter.placements))
