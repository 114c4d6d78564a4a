"""Let a language model write."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from seqnets.checks import check_count, is_number
from seqnets.datasets import Vocabulary
from seqnets.errors import ConfigError, DataError, DivergenceError
from seqnets.training.evaluating import evaluating

_BROKEN, _LONGEST = "\ufffd", 4
"""What bytes that are no whole character are decoded to, and how many a character has at most."""


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
        The pieces of the continuation, without the prompt; words with the space before them, and
        characters whole, though they be of several tokens.

    Raises:
        ConfigError: An option makes no sense.
        DataError: The prompt has a character that is not in the vocabulary. Words that are not
            in it are read as the unknown word.
        DivergenceError: The model gives no numbers to choose by.
    """
    check_options("generate", length, temperature, top_k)
    ids = read_prompt(vocabulary, prompt)
    glued = bool(prompt) and not prompt[-1].isspace()
    return _write(model, vocabulary, ids, glued, length, temperature, top_k, seed)


def check_options(who: str, length: int, temperature: float, top_k: int | None = None) -> None:
    """Raise ConfigError unless a text can be written with these options."""
    check_count(who, 0, length=length)
    if top_k is not None:
        check_count(who, top_k=top_k)
    if not (is_number(temperature) and 0 <= temperature < math.inf):
        raise ConfigError(f"{who}: temperature is {temperature!r}, expected a number from 0.")


def read_prompt(vocabulary: Vocabulary, prompt: str) -> Tensor:
    """Return the ids of a prompt, (T,) int64; those of the beginning of a line if it is blank.

    Raises:
        DataError: The prompt has a character that is not in the vocabulary.
    """
    if not (prompt.split() if vocabulary.unit == "words" else prompt):
        return vocabulary.encode(_beginning(vocabulary))
    ids = vocabulary.encode(prompt)
    unknown = (ids == (-1 if vocabulary.unknown is None else vocabulary.unknown)).nonzero()
    if vocabulary.unit == "characters" and unknown.numel():
        place = int(unknown[0])
        raise DataError(
            f"generate: character {prompt[place]!r} at position {place} of the prompt is not among "
            f"the {len(vocabulary):,} known characters.\n"
            f"  They are those of the training text.\n"
            f"  Leave it out."
        )
    return ids


def _write(
    model: nn.Module,
    vocabulary: Vocabulary,
    ids: Tensor,
    glued: bool,
    length: int,
    temperature: float,
    top_k: int | None,
    seed: int,
) -> Iterator[str]:
    device = next(model.parameters()).device
    random = torch.Generator().manual_seed(seed)
    state: Any = None
    begun: list[int] = []
    with evaluating(model):
        for left in reversed(range(length)):
            with torch.no_grad():
                logits, state = model(ids[None].to(device), state)
            chosen = _choose(logits[0, -1].float().cpu(), vocabulary, temperature, top_k, random)
            ids = torch.tensor([chosen])
            begun.append(chosen)
            piece = vocabulary.decode(begun)
            if piece.endswith(_BROKEN) and len(begun) < _LONGEST and left:
                continue  # the next token may have the other bytes of a character
            begun = []
            yield vocabulary.separator + piece if glued and piece != "\n" else piece
            glued = piece != "\n"


def _choose(
    logits: Tensor,
    vocabulary: Vocabulary,
    temperature: float,
    top_k: int | None,
    random: torch.Generator,
) -> int:
    if not logits.isfinite().all():
        raise DivergenceError(
            "generate: the model gives logits that are infinite or NaN, expected finite numbers.\n"
            "  Its training has diverged. Take an earlier checkpoint, or train with a lower "
            "learning rate (optimizer.lr) or gradient clipping (trainer.gradient_clip_val)."
        )
    if vocabulary.unknown is not None:
        logits[vocabulary.unknown] = -torch.inf
    if temperature == 0:
        return int(logits.argmax())
    if top_k is not None and top_k < len(logits):
        logits[logits < logits.topk(top_k).values[-1]] = -torch.inf
    # the largest becomes 0 and float64 has room: no temperature is too small to divide by
    scaled = (logits.double() - logits.max()) / temperature
    return int(torch.multinomial(scaled.softmax(-1), 1, generator=random))


def _beginning(vocabulary: Vocabulary) -> str:
    """A line end, which lines follow; a vocabulary without one begins with its first token."""
    known = set(vocabulary.tokens)
    if vocabulary.unit == "bpe" or "\n" in known or "<eos>" in known:
        return "\n"
    return next(t for n, t in enumerate(vocabulary.tokens) if n != vocabulary.unknown)
