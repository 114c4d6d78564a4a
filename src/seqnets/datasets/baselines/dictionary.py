"""Word-by-word translation with IBM model 1, a baseline for translation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seqnets.datasets.text.vocabulary import Vocabulary

LINKS = 10_000_000
"""Maximum number of word pairs to learn from, of about 70 bytes each."""


def learn_dictionary(
    sources: Sequence[str], targets: Sequence[str], iterations: int = 5, links: int = LINKS
) -> dict[str, str]:
    r"""The likeliest translation of each source word.

    IBM model 1 without the empty word: each target word is aligned to one of the source's words,
    with a uniform prior. Fitted by expectation maximisation:

    .. math::
        p(f \mid e) \propto \sum_{(\mathbf e, \mathbf f)} \sum_{j: f_j = f}
        \frac{p(f \mid e)}{\sum_i p(f \mid e_i)} \, \#\{i : e_i = e\}

    Args:
        sources: Texts of words.
        targets: Their translations.
        iterations: Iterations of expectation maximisation.
        links: Maximum number of links, which are pairs of a source word and a target word of the
            same text; further texts are ignored.

    References:
        Brown et al., 1993, "The Mathematics of Statistical Machine Translation: Parameter
        Estimation".
    """
    kept = _count_within(links, sources, targets)
    sources, targets = sources[:kept], targets[:kept]
    source, target = Vocabulary(_words(sources), "words"), Vocabulary(_words(targets), "words")
    keys, positions = [], []  # of each link: its words (e, f), and the target word's position
    position = 0
    for text, translation in zip(sources, targets, strict=True):
        e, f = source.index(text.split()), target.index(translation.split())
        keys.append((e[:, None] * len(target) + f).ravel())
        positions.append(np.tile(np.arange(position, position + len(f)), len(e)))
        position += len(f)
    # Links of the same two words share p(f | e).
    word_pairs, pair = np.unique(np.concatenate(keys), return_inverse=True)
    aligned = np.concatenate(positions)
    word, translation_of = np.divmod(word_pairs, len(target))
    p = np.ones(len(word_pairs))
    for _ in range(iterations):
        posterior = p[pair] / np.bincount(aligned, p[pair])[aligned]
        expected = np.bincount(pair, posterior)
        p = expected / np.bincount(word, expected)[word]
    best = np.lexsort((translation_of, -p, word))  # by word, the likeliest first
    first = np.unique(word[best], return_index=True)[1]
    return {
        source.tokens[word[index]]: target.tokens[translation_of[index]] for index in best[first]
    }


def word_by_word(text: str, dictionary: dict[str, str]) -> str:
    """A text with each word translated; words not in the dictionary are copied."""
    return " ".join(dictionary.get(word, word) for word in text.split())


def _count_within(links: int, sources: Sequence[str], targets: Sequence[str]) -> int:
    """How many of the first texts have at most ``links`` links together; at least one."""
    pairs = zip(sources, targets, strict=True)
    counts = np.cumsum([len(text.split()) * len(other.split()) for text, other in pairs])
    return max(1, int(np.searchsorted(counts, links, side="right")))


def _words(texts: Sequence[str]) -> list[str]:
    """The distinct words of some texts."""
    return list(dict.fromkeys(word for text in texts for word in text.split()))
