"""Generate text from a language model."""

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

_REPLACEMENT, _MAX_BYTES = "\ufffd", 4
"""The decoding of an incomplete character, and the most bytes that a character has."""


def generate(
    model: nn.Module,
    vocabulary: Vocabulary,
    prompt: str = "",
    length: int = 200,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """Continue a text token by token, yielding each as soon as it is sampled.

    The model's state is carried, so that each token costs one step. Sampling uses its own random
    generator. The model is in evaluation mode meanwhile, and its previous mode is restored.

    Args:
        model: Maps (tokens, state) to (logits, state).
        vocabulary: The model's vocabulary.
        prompt: The text to continue; the beginning of a line if empty.
        length: Number of tokens to generate.
        temperature: Divides the logits: below 1 sharpens, above 1 flattens; 0 is greedy.
        top_k: Sample from this many most probable tokens; from all if omitted.
        seed: Seed of the sampling.

    Yields:
        Pieces of the continuation, without the prompt: words with their leading space, and
        complete characters, even those of several tokens.

    Raises:
        ConfigError: An option is out of range.
        DataError: The prompt has a character that is not in the vocabulary. Words that are not
            in it are read as the unknown word.
        DivergenceError: The model's logits are not finite.
    """
    check_options("generate", length, temperature, top_k)
    ids = read_prompt(vocabulary, prompt)
    needs_separator = bool(prompt) and not prompt[-1].isspace()
    return _write(model, vocabulary, ids, needs_separator, length, temperature, top_k, seed)


def check_options(who: str, length: int, temperature: float, top_k: int | None = None) -> None:
    """Raise ConfigError unless these generation options are valid."""
    check_count(who, 0, length=length)
    if top_k is not None:
        check_count(who, top_k=top_k)
    if not (is_number(temperature) and 0 <= temperature < math.inf):
        raise ConfigError(f"{who}: temperature is {temperature!r}, expected a number from 0.")


def read_prompt(vocabulary: Vocabulary, prompt: str) -> Tensor:
    r"""Return the ids of a prompt, (T,) int64; of the beginning of a line if it is blank.

    As in the files that a model is trained on, ``\r\n`` is ``\n``.

    Raises:
        DataError: The prompt has a character that is not in the vocabulary.
    """
    prompt = prompt.replace("\r\n", "\n")
    if not (prompt.split() if vocabulary.unit == "words" else prompt):
        return vocabulary.encode(_default_prompt(vocabulary))
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
    needs_separator: bool,
    length: int,
    temperature: float,
    top_k: int | None,
    seed: int,
) -> Iterator[str]:
    device = next(model.parameters()).device
    random = torch.Generator().manual_seed(seed)
    state: Any = None
    pending: list[int] = []
    with evaluating(model):
        for left in reversed(range(length)):
            with torch.no_grad():
                logits, state = model(ids[None].to(device), state)
            chosen = _choose(logits[0, -1].float().cpu(), vocabulary, temperature, top_k, random)
            ids = torch.tensor([chosen])
            pending.append(chosen)
            piece = vocabulary.decode(pending)
            if piece.endswith(_REPLACEMENT) and len(pending) < _MAX_BYTES and left:
                continue  # the next token may complete the character
            pending = []
            yield vocabulary.separator + piece if needs_separator and piece != "\n" else piece
            needs_separator = piece != "\n"


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
    # the largest logit becomes 0, and float64 does not overflow at tiny temperatures
    scaled = (logits.double() - logits.max()) / temperature
    return int(torch.multinomial(scaled.softmax(-1), 1, generator=random))


def _default_prompt(vocabulary: Vocabulary) -> str:
    """Return a line end, or the first known token of a vocabulary without one."""
    known = set(vocabulary.tokens)
    if vocabulary.unit == "bpe" or "\n" in known or "<eos>" in known:
        return "\n"
    return next(t for n, t in enumerate(vocabulary.tokens) if n != vocabulary.unknown)
