"""Let a model of music play."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def compose(model: nn.Module, beginning: Tensor, steps: int, seed: int = 0) -> Tensor:
    """Continue a piece: each step's keys are drawn by the probabilities that the model gives them.

    Args:
        model: Takes (roll, state), gives (logits, state); in evaluation mode.
        beginning: The roll to be continued, (T, K), on the model's device.
        steps: Steps to play after it.
        seed: Decides what is drawn.

    Returns:
        The beginning and what follows, (T + steps, K).
    """
    random = torch.Generator().manual_seed(seed)
    rolls, state = [beginning], None
    with torch.no_grad():
        for _ in range(steps):
            logits, state = model(rolls[-1][None], state)
            probability = logits[0, -1:].float().cpu().sigmoid()
            rolls.append(torch.bernoulli(probability, generator=random).to(beginning))
    return torch.cat(rolls)
