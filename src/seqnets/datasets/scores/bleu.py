"""BLEU, computed by sacrebleu."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seqnets.checks import check_choice
from seqnets.optional import optional

TOKENIZERS = ("none", "13a", "intl", "char", "zh", "ja-mecab", "ko-mecab")
"""Tokenizers of sacrebleu; "none" for texts that are tokenized already."""


def bleu_of(tokenize: str) -> Any:
    """The metric of sacrebleu for one reference per text.

    Raises:
        ConfigError: sacrebleu is not installed, or has no such tokenizer.
    """
    with optional("BLEU is computed by sacrebleu", "bleu"):
        from sacrebleu.metrics import BLEU
    check_choice("BLEU", TOKENIZERS, tokenize=tokenize)
    # Without force, sacrebleu warns of texts that look tokenized, as they are with "none".
    return BLEU(tokenize=tokenize, force=True)


def signature(tokenize: str) -> str:
    """The signature, by sacrebleu, of BLEU with one reference per text."""
    return corpus_bleu(["."], ["."], tokenize)[1]


def corpus_bleu(
    predictions: Sequence[str], targets: Sequence[str], tokenize: str
) -> tuple[float, str]:
    """The BLEU score of some texts, 0..100, and sacrebleu's signature of it."""
    metric = bleu_of(tokenize)
    score = metric.corpus_score(list(predictions), [list(targets)]).score
    return float(score), str(metric.get_signature())
