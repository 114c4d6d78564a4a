"""Baselines that count tokens or labels, or compress the text."""

from __future__ import annotations

import logging
import lzma
import math

import numpy as np
from torch import Tensor

from seqnets.datasets.text.tokens import Tokens

logger = logging.getLogger(__name__)

XZ_LIMIT = 16 << 20
"""Maximum size of a text that is compressed, in bytes; xz takes about ten seconds for that."""


def language_baselines(tokens: Tokens) -> dict[str, float]:
    """The test part's bits per token under memoryless models and xz.

    - ``uniform``: all tokens of the vocabulary are equally likely.
    - ``unigram entropy``: cross entropy under the token frequencies of the training part, with
      add-one smoothing.
    - ``xz -9 of the test text``: its compressed size.
    - ``xz given the training text``: compressed size of both, minus that of the training text.

    The text for xz is decoded from the ids. If it is longer than ``XZ_LIMIT``, both results are
    omitted and the log says so.
    """
    train, test = tokens.part("train"), tokens.part("test")
    vocabulary = tokens.vocabulary
    train_counts, test_counts = (histogram(ids, len(vocabulary)) for ids in (train, test))
    bits = -np.log2((train_counts + 1) / (train_counts + 1).sum())
    baselines = {
        "uniform": math.log2(len(vocabulary)),
        "unigram entropy": float(test_counts @ bits / len(test)),
    }
    token_bytes = [len((token + vocabulary.separator).encode()) for token in vocabulary.tokens]
    if (train_counts + test_counts) @ token_bytes > XZ_LIMIT:
        logger.info("No xz among the baselines: the text is longer than %d MiB.", XZ_LIMIT >> 20)
        return baselines
    train_text, test_text = (vocabulary.decode(ids) for ids in (train, test))
    both = _xz_bits(train_text + vocabulary.separator + test_text)
    baselines["xz -9 of the test text"] = _xz_bits(test_text) / len(test)
    baselines["xz given the training text"] = (both - _xz_bits(train_text)) / len(test)
    return baselines


def histogram(ids: np.ndarray, size: int) -> np.ndarray:
    """How often each id occurs, (size,), reading in blocks as ids may be memory-mapped."""
    counts = np.zeros(size, np.int64)
    for start in range(0, len(ids), XZ_LIMIT):
        counts += np.bincount(ids[start : start + XZ_LIMIT], minlength=size)
    return counts


def _xz_bits(text: str) -> int:
    """The compressed size of a text, in bits."""
    data = text.encode()
    # as with a preset of 9 alone, whose dictionary of 64 MiB takes longer to clear than most texts
    size = max(4096, len(data))
    options = {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": size}
    return 8 * len(lzma.compress(data, filters=[options]))


def majority_baseline(train: Tensor, test: Tensor) -> dict[str, float]:
    """The test accuracy of always predicting the most frequent training label."""
    return {"majority class": float((test == train.bincount().argmax()).double().mean())}
