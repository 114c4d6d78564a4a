"""The Penn Treebank as a language modelling corpus."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

from seqnets.checks import check_choice
from seqnets.datasets.parts import PARTS
from seqnets.datasets.readers.files import check_text, find_folder, read_text
from seqnets.datasets.text.language import LanguageData
from seqnets.datasets.text.tokens import Tokens, build_tokens
from seqnets.datasets.text.vocabulary import PLAIN_UNITS, Unit, split

FILES = {"train": "ptb.train.txt", "val": "ptb.valid.txt", "test": "ptb.test.txt"}


class PennTreebank(LanguageData):
    """Penn Treebank, a million words in Mikolov's preprocessing; language modelling.

    Three files with one sentence per line, split as published: 929,589 words for training, 73,760
    for validation and 82,430 for the test, line ends (``<eos>``) included. The vocabulary is that
    of the training file: 10,000 words, with ``<unk>`` for all others. As characters the parts have
    5,059,550, 396,412 and 446,184 of 50 kinds, also as published: the blank at the start of each
    line in the files does not count. The text is licensed and is not downloaded.

    Args:
        root: Folder with ``ptb.train.txt``, ``ptb.valid.txt`` and ``ptb.test.txt``, or with a
            folder ``ptb`` that contains them.
        batch_size: Rows B in a batch of each process.
        chunk_length: Steps T of a batch, over which gradients flow.
        unit: Unit of a token, "words" or "characters".
        seed: Determines where the training rows of each epoch start.
        chunk_spread: As for :class:`LanguageData`.

    References:
        Mikolov et al., 2010, "Recurrent neural network based language model".
    """

    def __init__(
        self,
        root: str,
        *,
        batch_size: int = 20,
        chunk_length: int = 35,
        unit: Unit = "words",
        seed: int = 0,
        chunk_spread: float = 0.0,
    ) -> None:
        check_choice("PennTreebank", PLAIN_UNITS, unit=unit)
        super().__init__(batch_size, chunk_length, unit, seed=seed, chunk_spread=chunk_spread)
        self.root = root

    def read_tokens(self) -> Tokens:
        """The three files as token ids.

        Raises:
            DataError: A file is missing, empty or not UTF-8.
        """
        advice = "The text is licensed by the LDC and is not fetched: name the folder that has it."
        files = [*FILES.values()]
        folder = find_folder("PennTreebank", self.root, ("ptb", ""), files, advice)
        texts = [self._read(folder / FILES[part]) for part in PARTS]
        borders = pairwise(accumulate(map(len, texts), initial=0))
        return build_tokens(lambda: texts, dict(zip(PARTS, borders, strict=True)), self.unit)

    def _read(self, file: Path) -> Sequence[str]:
        check_text(file)
        return split(re.sub("(?m)^ ", "", "".join(read_text(file))), self.unit)
