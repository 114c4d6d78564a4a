"""Generate text from a language model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from seqnets.checks import check_count, check_number, is_number
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
    *,
    top_p: float | None = None,
    stop: str = "",
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
        top_p: Sample from the fewest most probable tokens whose probabilities sum to at least
            this, in (0, 1]: those among ``top_k``, at this temperature. From all if omitted.
        stop: A text that ends the continuation, which has it at its end; none if empty.

    Yields:
        Pieces of the continuation, without the prompt: words with their leading space, and
        complete characters, even those of several tokens.

    Raises:
        ConfigError: An option is out of range.
        DataError: The prompt has a character that is not in the vocabulary. Words that are not
            in it are read as the unknown word.
        DivergenceError: The model's logits are not finite.

    References:
        Holtzman et al., 2020, "The Curious Case of Neural Text Degeneration", arXiv:1904.09751
        (``top_p``); Fan et al., 2018, "Hierarchical Neural Story Generation", arXiv:1805.04833
        (``top_k``).
    """
    check_options("generate", length, temperature, top_k, top_p)
    choose = _Choice(vocabulary, temperature, top_k, top_p, seed)
    tokens = _tokens(model, read_prompt(vocabulary, prompt)[None], length, choose)
    return _written(tokens, _Text(vocabulary, prompt, stop), length)


def generate_several(
    model: nn.Module,
    vocabulary: Vocabulary,
    samples: int,
    prompt: str = "",
    length: int = 200,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
    *,
    top_p: float | None = None,
    stop: str = "",
) -> list[str]:
    """Continue a text several times, independently, as one batch.

    Args:
        model: As for :func:`generate`, for any number of rows.
        vocabulary: The model's vocabulary.
        samples: Number of continuations, N. One alone is that of :func:`generate`; of several,
            the seed and their number decide.
        prompt: As for :func:`generate`, like all that follow.
        length: Number of tokens of each.
        temperature: Divides the logits.
        top_k: Sample from this many most probable tokens.
        seed: Seed of the sampling.
        top_p: Sample from the most probable tokens that have this share.
        stop: A text that ends a continuation.

    Returns:
        The continuations, without the prompt.

    Raises:
        ConfigError: An option is out of range, or several continuations would be the same.
        DataError: As for :func:`generate`.
        DivergenceError: As for :func:`generate`.
    """
    check_options("generate", length, temperature, top_k, top_p)
    check_count("generate", samples=samples)
    if samples > 1 and temperature == 0:
        raise ConfigError(
            f"generate: samples is {samples} and temperature 0, expected one sample or a "
            f"temperature above 0.\n  At 0 each token is the likeliest, so that all are the same."
        )
    choose = _Choice(vocabulary, temperature, top_k, top_p, seed)
    ids = read_prompt(vocabulary, prompt).expand(samples, -1)
    texts = [_Text(vocabulary, prompt, stop) for _ in range(samples)]
    written: list[list[str]] = [[] for _ in texts]
    for place, tokens in enumerate(_tokens(model, ids, length, choose), start=1):
        for text, pieces, token in zip(texts, written, tokens.tolist(), strict=True):
            if not text.ended:
                pieces.append(text.add(token, last=place == length))
        if all(text.ended for text in texts):
            break
    return ["".join(pieces) for pieces in written]


def check_options(
    who: str,
    length: int,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
) -> None:
    """Raise ConfigError unless these generation options are valid."""
    check_count(who, 0, length=length)
    if top_k is not None:
        check_count(who, top_k=top_k)
    if top_p is not None:
        check_number(who, above=0, most=1, top_p=top_p)
    if not (is_number(temperature) and 0 <= temperature < math.inf):
        raise ConfigError(f"{who}: temperature is {temperature!r}, expected a number from 0.")


def read_prompt(vocabulary: Vocabulary, prompt: str) -> Tensor:
    r"""The ids of a prompt, (T,) int64; of the beginning of a line if it is blank.

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


class _Text:
    """A text that is written token by token.

    Args:
        vocabulary: The tokens.
        prompt: The text before it.
        stop: The text that ends it; none if empty.

    Attributes:
        ended: Whether the stop text has come.
    """

    def __init__(self, vocabulary: Vocabulary, prompt: str, stop: str) -> None:
        self.vocabulary, self.stop = vocabulary, stop
        self.needs_separator = bool(prompt) and not prompt[-1].isspace()
        self.pending: list[int] = []
        self.before_stop = ""  # what the stop text may have begun with
        self.ended = False

    def add(self, token: int, last: bool) -> str:
        """The text that a further token completes, up to the end of the stop text."""
        self.pending.append(token)
        piece = self.vocabulary.decode(self.pending)
        if piece.endswith(_REPLACEMENT) and len(self.pending) < _MAX_BYTES and not last:
            return ""  # the next token may complete the character
        self.pending = []
        if self.needs_separator and piece != "\n":
            piece = self.vocabulary.separator + piece
        self.needs_separator = piece != "\n"
        return self._cut(piece) if self.stop else piece

    def _cut(self, piece: str) -> str:
        seen = self.before_stop + piece
        start = seen.find(self.stop)
        if start >= 0:
            self.ended = True
            return piece[: start + len(self.stop) - len(self.before_stop)]
        self.before_stop = seen[max(0, len(seen) - len(self.stop) + 1) :]
        return piece


def _written(tokens: Iterator[Tensor], text: _Text, length: int) -> Iterator[str]:
    """Yield the pieces of one text."""
    for place, token in enumerate(tokens, start=1):
        if piece := text.add(int(token), last=place == length):
            yield piece
        if text.ended:
            return


def _tokens(model: nn.Module, ids: Tensor, length: int, choose: _Choice) -> Iterator[Tensor]:
    """Yield the tokens of each step, (N,), after prompts (N, T)."""
    device = next(model.parameters()).device
    state: Any = None
    with evaluating(model):
        for _ in range(length):
            with torch.no_grad():
                logits, state = model(ids.to(device), state)
                chosen = choose(logits[:, -1].float().cpu())
            yield chosen
            ids = chosen[:, None]


class _Choice:
    """How the next token is chosen; the arguments are those of :func:`generate`."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        seed: int,
    ) -> None:
        self.unknown = vocabulary.unknown
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.random = torch.Generator().manual_seed(seed)

    def __call__(self, logits: Tensor) -> Tensor:
        """A token of each row, (N,), from logits (N, V)."""
        if not logits.isfinite().all():
            raise DivergenceError(
                "generate: the model gives logits that are infinite or NaN, expected finite "
                "numbers.\n"
                "  Its training has diverged. Take an earlier checkpoint, or train with a lower "
                "learning rate (optimizer.lr) or gradient clipping (trainer.gradient_clip_val)."
            )
        if self.unknown is not None:
            logits = logits.index_fill(-1, torch.tensor(self.unknown), -torch.inf)
        if self.temperature == 0:
            return logits.argmax(-1)
        if self.top_k is not None and self.top_k < logits.shape[1]:
            least = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        # the largest logit becomes 0, and float64 does not overflow at tiny temperatures
        scaled = (logits.double() - logits.amax(-1, keepdim=True)) / self.temperature
        shares = scaled.softmax(-1)
        if self.top_p is not None and self.top_p < 1:
            ranked, tokens = shares.sort(dim=-1, descending=True, stable=True)
            of_likelier = ranked.cumsum(-1) - ranked
            kept = ranked.masked_fill(of_likelier >= self.top_p, 0)
            shares = torch.zeros_like(shares).scatter(-1, tokens, kept)
        return torch.multinomial(shares, 1, generator=self.random)[:, 0]


def _default_prompt(vocabulary: Vocabulary) -> str:
    """A line end, or the first known token of a vocabulary without one."""
    known = set(vocabulary.tokens)
    if vocabulary.unit == "bpe" or "\n" in known or "<eos>" in known:
        return "\n"
    return next(t for n, t in enumerate(vocabulary.tokens) if n != vocabulary.unknown)
