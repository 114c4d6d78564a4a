"""How parameters start, one gate at a time.

A recurrent weight holds one block of rows a gate. Drawing each block on its own keeps the scale
of a gate independent of how many gates its cell has.
"""

from __future__ import annotations

import math

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
    for block in weight.chunk(gates):
        if block.dtype in (torch.float16, torch.bfloat16):  # torch has no decomposition for these
            precise = torch.empty(block.shape, device=block.device)
            block.data.copy_(nn.init.orthogonal_(precise))
        else:
            nn.init.orthogonal_(block)
    return weight


@torch.no_grad()
def torch_uniform_(module: nn.Module, hidden_size: int) -> None:
    """Draw all parameters of a module as torch.nn's recurrent layers do.

    Each is uniform in [-1/sqrt(H), 1/sqrt(H)], in the order of ``module.parameters()``, so that
    equal seeds give the numbers that torch.nn gives.
    """
    bound = 1.0 / math.sqrt(hidden_size) if hidden_size > 0 else 0.0
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -bound, bound)
