"""What the tokens of a text say of its label when their order is not looked at."""

from __future__ import annotations

import torch
from torch import Tensor

from seqnets.datasets.sequences import Sequences


def naive_bayes(train: Sequences, test: Sequences, vocab_size: int, num_classes: int) -> Tensor:
    r"""Tell the label of each test sequence by its tokens alone, each taken for itself.

    .. math::
        \hat c = \arg\max_c \, \log p(c) + \sum_t \log p(x_t \mid c)

    with frequencies of the training sequences, one added to each count.

    Args:
        train: Sequences of tokens, with one label each.
        test: Others.
        vocab_size: Tokens there are, V.
        num_classes: Labels there are.

    Returns:
        A label for each test sequence, (N,) int64.
    """
    labels = torch.repeat_interleave(train.y, train.lengths)
    pairs = torch.bincount(labels * vocab_size + train.x, minlength=num_classes * vocab_size)
    counts = pairs.view(num_classes, vocab_size).double() + 1
    of_token = (counts / counts.sum(1, keepdim=True)).log().T
    priors = (torch.bincount(train.y, minlength=num_classes).double() + 1).log()
    owner = torch.repeat_interleave(torch.arange(len(test)), test.lengths)
    scores = priors.expand(len(test), -1).index_add(0, owner, of_token[test.x])
    return scores.argmax(1)
