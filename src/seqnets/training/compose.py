"""Sample continuations from a music model."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def compose(model: nn.Module, beginning: Tensor, steps: int, seed: int = 0) -> Tensor:
    """Continue a piece by sampling each step's keys from the model's probabilities.

    Args:
        model: Maps (roll, state) to (logits, state); in evaluation mode.
        beginning: The roll to continue, (T, K), on the model's device.
        steps: Steps to append.
        seed: Seed of the sampling.

    Returns:
        The beginning and its continuation, (T + steps, K).
    """
    random = torch.Generator().manual_seed(seed)
    rolls, state = [beginning], None
    with torch.no_grad():
        for _ in range(steps):
            logits, state = model(rolls[-1][None], state)
            probability = logits[0, -1:].float().cpu().sigmoid()
            rolls.append(torch.bernoulli(probability, generator=random).to(beginning))
    return torch.cat(rolls)
