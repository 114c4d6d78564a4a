"""Naive Bayes, a baseline of text classification."""

from __future__ import annotations

import torch
from torch import Tensor

from seqnets.datasets.sequences.sequences import Sequences


def naive_bayes(train: Sequences, test: Sequences, vocab_size: int, num_classes: int) -> Tensor:
    r"""Classify test sequences by their tokens, as if these were independent given the label.

    .. math::
        \hat c = \arg\max_c \, \log p(c) + \sum_t \log p(x_t \mid c)

    with the frequencies of the training sequences and add-one smoothing.

    Returns:
        The predicted label of each test sequence, (N,) int64.
    """
    labels = torch.repeat_interleave(train.y, train.lengths)
    pairs = torch.bincount(labels * vocab_size + train.x, minlength=num_classes * vocab_size)
    counts = pairs.view(num_classes, vocab_size).double() + 1
    log_likelihood = (counts / counts.sum(1, keepdim=True)).log().T
    priors = (torch.bincount(train.y, minlength=num_classes).double() + 1).log()
    row = torch.repeat_interleave(torch.arange(len(test)), test.lengths)
    scores = priors.expand(len(test), -1).index_add(0, row, log_likelihood[test.x])
    return scores.argmax(1)
