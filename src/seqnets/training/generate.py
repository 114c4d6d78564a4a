"""Let a language model write."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from seqnets.datasets import Vocabulary
from seqnets.errors import ConfigError


def generate(
    model: nn.Module,
    vocabulary: Vocabulary,
    prompt: str = "",
    length: int = 200,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """Continue a text, one token at a time, each as soon as it is chosen.

    The model's state is carried, so that each token costs one step. Random numbers come from a
    generator of their own. The model is in evaluation mode meanwhile, and afterwards as it was.

    Args:
        model: Takes (tokens, state), gives (logits, state).
        vocabulary: Its tokens.
        prompt: The text to be continued; the beginning of a line if empty.
        length: Tokens to write.
        temperature: Divides the logits: below 1 bolder, above 1 wilder; 0 takes the likeliest.
        top_k: Choose among so many likeliest tokens; among all if omitted.
        seed: Decides the choices.

    Yields:
        The pieces of the continuation, without the prompt.

    Raises:
        ConfigError: An option makes no sense.
        DataError: The prompt has a token that is not in the vocabulary.
    """
    if length < 0 or temperature < 0 or (top_k is not None and top_k < 1):
        raise ConfigError(
            f"generate: length is {length}, temperature {temperature} and top_k {top_k}, expected "
            f"a length and a temperature from 0 and a top_k from 1."
        )
    ids = vocabulary.encode(prompt) if prompt else vocabulary.encode(_beginning(vocabulary))
    return _write(model, vocabulary, ids, length, temperature, top_k, seed)


def _write(
    model: nn.Module,
    vocabulary: Vocabulary,
    ids: Tensor,
    length: int,
    temperature: float,
    top_k: int | None,
    seed: int,
) -> Iterator[str]:
    device = next(model.parameters()).device
    random = torch.Generator().manual_seed(seed)
    was_training = model.training
    state = None
    model.eval()
    try:
        for _ in range(length):
            with torch.no_grad():
                logits, state = model(ids[None].to(device), state)
            chosen = _choose(logits[0, -1].float().cpu(), vocabulary, temperature, top_k, random)
            piece = vocabulary.decode([chosen])
            yield piece if piece == "\n" else piece + vocabulary.separator
            ids = torch.tensor([chosen])
    finally:
        model.train(was_training)


def _choose(
    logits: Tensor,
    vocabulary: Vocabulary,
    temperature: float,
    top_k: int | None,
    random: torch.Generator,
) -> int:
    if vocabulary.unknown is not None:
        logits[vocabulary.unknown] = -torch.inf
    if temperature == 0:
        return int(logits.argmax())
    if top_k is not None and top_k < len(logits):
        logits[logits < logits.topk(top_k).values[-1]] = -torch.inf
    return int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=random))


def _beginning(vocabulary: Vocabulary) -> str:
    """A line end, which lines follow; a vocabulary without one begins with its first token."""
    known = set(vocabulary.tokens)
    if "\n" in known or "<eos>" in known:
        return "\n"
    return next(t for n, t in enumerate(vocabulary.tokens) if n != vocabulary.unknown)
