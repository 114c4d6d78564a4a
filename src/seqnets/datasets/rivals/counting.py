"""What simple rivals reach: numbers that a trained model has to beat."""

from __future__ import annotations

import logging
import lzma
import math

import numpy as np
from torch import Tensor

from seqnets.datasets.tokens import Tokens

logger = logging.getLogger(__name__)

XZ_LIMIT = 16 << 20
"""Bytes of text that xz is given at most; with more it takes longer than some ten seconds."""


def language_baselines(tokens: Tokens) -> dict[str, float]:
    """Return the bits that memoryless models and xz need for one token of the test part.

    - ``uniform``: all tokens of the vocabulary equally likely.
    - ``unigram entropy``: cross-entropy under the frequencies of the training part, one added to
      each count.
    - ``xz -9 of the test text``: its compressed size.
    - ``xz given the training text``: compressed size of both, less that of the training text.

    xz reads the text as the model sees it, decoded from the ids. Both of its lines are left out,
    and the log says so, where that text is longer than ``XZ_LIMIT``.
    """
    train, test = tokens.part("train"), tokens.part("test")
    vocabulary = tokens.vocabulary
    seen, asked = (histogram(ids, len(vocabulary)) for ids in (train, test))
    bits = -np.log2((seen + 1) / (seen + 1).sum())
    rivals = {
        "uniform": math.log2(len(vocabulary)),
        "unigram entropy": float(asked @ bits / len(test)),
    }
    token_bytes = [len((token + vocabulary.separator).encode()) for token in vocabulary.tokens]
    if (seen + asked) @ token_bytes > XZ_LIMIT:
        logger.info("No xz among the baselines: the text is longer than %d MiB.", XZ_LIMIT >> 20)
        return rivals
    known, new = (vocabulary.decode(ids) for ids in (train, test))
    given = _xz_bits(known + vocabulary.separator + new) - _xz_bits(known)
    rivals["xz -9 of the test text"] = _xz_bits(new) / len(test)
    rivals["xz given the training text"] = given / len(test)
    return rivals


def histogram(ids: np.ndarray, size: int) -> np.ndarray:
    """Count each id, (size,), reading a block at a time: the ids may be larger than memory."""
    counts = np.zeros(size, np.int64)
    for start in range(0, len(ids), XZ_LIMIT):
        counts += np.bincount(ids[start : start + XZ_LIMIT], minlength=size)
    return counts


def _xz_bits(text: str) -> int:
    return 8 * len(lzma.compress(text.encode(), preset=9))


def majority_baseline(train: Tensor, test: Tensor) -> dict[str, float]:
    """Return the test accuracy of always answering the commonest label of the training part."""
    return {"majority class": float((test == train.bincount().argmax()).double().mean())}
