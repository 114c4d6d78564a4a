"""Translating word by word: a rival that knows no grammar."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seqnets.datasets.vocabulary import Vocabulary

LINKS = 10_000_000
"""Links that are learned from at most. Each needs some 70 bytes."""


def learn_dictionary(
    sources: Sequence[str], targets: Sequence[str], iterations: int = 5, links: int = LINKS
) -> dict[str, str]:
    r"""Return the likeliest translation of each word of some sources.

    IBM model 1 without the empty word: each word of a target comes from one of the source's words,
    all equally likely beforehand. Expectation maximisation of

    .. math::
        p(f \mid e) \propto \sum_{(\mathbf e, \mathbf f)} \sum_{j: f_j = f}
        \frac{p(f \mid e)}{\sum_i p(f \mid e_i)} \, \#\{i : e_i = e\}

    A link is a word of a source beside a word of its target.

    Args:
        sources: Texts of words.
        targets: Their translations.
        iterations: Rounds of expectation and maximisation.
        links: Links to learn from at most, of whole pairs from the first on.

    References:
        Brown et al., 1993, "The Mathematics of Statistical Machine Translation: Parameter
        Estimation".
    """
    kept = _within(links, sources, targets)
    sources, targets = sources[:kept], targets[:kept]
    source, target = Vocabulary(_words(sources), "words"), Vocabulary(_words(targets), "words")
    keys, slots = [], []
    slot = 0
    for text, translation in zip(sources, targets, strict=True):
        e, f = source.index(text.split()), target.index(translation.split())
        keys.append((e[:, None] * len(target) + f).ravel())
        slots.append(np.tile(np.arange(slot, slot + len(f)), len(e)))
        slot += len(f)
    # links of a kind share p(f | e)
    kinds, kind = np.unique(np.concatenate(keys), return_inverse=True)
    explains = np.concatenate(slots)
    word, translation_of = np.divmod(kinds, len(target))
    p = np.ones(len(kinds))
    for _ in range(iterations):
        share = p[kind] / np.bincount(explains, p[kind])[explains]
        expected = np.bincount(kind, share)
        p = expected / np.bincount(word, expected)[word]
    best = np.lexsort((translation_of, -p, word))  # by word, the likeliest first
    first = np.unique(word[best], return_index=True)[1]
    return {
        source.tokens[word[place]]: target.tokens[translation_of[place]] for place in best[first]
    }


def word_by_word(text: str, dictionary: dict[str, str]) -> str:
    """Return a text with each word translated; one that is not in the dictionary stays."""
    return " ".join(dictionary.get(word, word) for word in text.split())


def _within(links: int, sources: Sequence[str], targets: Sequence[str]) -> int:
    """How many pairs have no more links than these; one at least."""
    pairs = zip(sources, targets, strict=True)
    counts = np.cumsum([len(text.split()) * len(other.split()) for text, other in pairs])
    return max(1, int(np.searchsorted(counts, links, side="right")))


def _words(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(word for text in texts for word in text.split()))
