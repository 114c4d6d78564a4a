"""Surnames and their languages."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from seqnets.checks import check_fractions
from seqnets.datasets.parts import PARTS, Part
from seqnets.datasets.readers.files import read_lines
from seqnets.datasets.sequences.dealing import deal
from seqnets.datasets.sequences.labelled_texts import LabelledTexts, Texts, TextSplits
from seqnets.errors import DataError, counted


class Surnames(LabelledTexts):
    """The language of a surname, as a sequence of letters; classification.

    Reads ``root/*.txt``, with one file per language, named after it, and one surname per line.
    Names are normalised to Unicode NFC and stripped of surrounding white space.

    Duplicates within a language are dropped. A name of several languages is kept in each of them,
    all in the same part, so that no name occurs in two parts.

    Args:
        root: Folder with the files, or with a folder ``names`` that contains them.
        validation_fraction: Fraction of each language's names for validation.
        test_fraction: Fraction of each language's names for the test.
        **data: The arguments of :class:`LabelledTexts`.

    Raises:
        ConfigError: A fraction is out of range.
    """

    token = "characters"

    def __init__(
        self,
        root: str,
        *,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        **data: Any,
    ) -> None:
        super().__init__(**data)
        check_fractions(
            type(self).__name__,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
        )
        self.root = root
        self.fractions: dict[Part, float] = {"test": test_fraction, "val": validation_fraction}

    def tokens_of(self, text: str) -> str:
        """A name in normalised form."""
        return unicodedata.normalize("NFC", text.strip())

    def read_texts(self) -> TextSplits:
        """The names of all parts, in alphabetical order.

        Raises:
            DataError: There are fewer than two files, or a file is empty, not UTF-8, or has too
                few names that no rarer language has.
        """
        files = self._files()
        spoken = defaultdict(list)
        for number, file in enumerate(files):
            for name in self._names(file):
                spoken[name].append(number)
        names = sorted(spoken)
        parts = {}
        for part, chosen in self._deal(files, [spoken[name] for name in names]).items():
            pairs = [(names[row], number) for row in chosen for number in spoken[names[row]]]
            parts[part] = Texts([name for name, _ in pairs], [number for _, number in pairs])
        return TextSplits(parts, [file.stem for file in files])

    def _deal(self, files: list[Path], spoken: list[list[int]]) -> dict[Part, np.ndarray]:
        """The rows of each part, stratified by language."""
        # A name of several languages is assigned to a part with those of the rarest language.
        common = Counter(number for numbers in spoken for number in numbers)
        rarest = np.array([min(numbers, key=lambda n: (common[n], n)) for numbers in spoken])
        for number, file in enumerate(files):
            own = int((rarest == number).sum())
            if own < len(PARTS):
                raise DataError(
                    f"{file}: got {counted(own, 'name')} that no rarer language has, expected "
                    f"at least {len(PARTS)}, one for each part."
                )
        return deal(str(files[0].parent), rarest, self.fractions, self.seed)

    def baselines(self) -> dict[str, float]:
        """The test accuracy of the most frequent language, naive Bayes, and name endings.

        ``commonest of the ending``: the most frequent language of the training names that share
        the longest ending with the name.
        """
        train, test = self.texts.parts["train"], self.texts.parts["test"]
        languages: dict[str, Counter[int]] = defaultdict(Counter)
        for name, number in zip(train.tokens, train.y, strict=True):
            for start in range(len(name) + 1):
                languages[str(name[start:])][number] += 1
        right = 0
        for name, number in zip(test.tokens, test.y, strict=True):
            endings = (str(name[start:]) for start in range(len(name) + 1))
            ending = next(e for e in endings if e in languages)
            right += languages[ending].most_common(1)[0][0] == number
        return {**super().baselines(), "commonest of the ending": right / len(test.y)}

    def _files(self) -> list[Path]:
        root = Path(self.root).expanduser()
        for folder in (root / "names", root):
            files = sorted(folder.glob("*.txt"))
            if len(files) > 1:
                return files
        raise DataError(
            f"Surnames: neither {root / 'names'} nor {root} has two or more files *.txt, expected "
            "one for each language.\n"
            "  They are in the repository spro/practical-pytorch; set dataset.root to their folder."
        )

    def _names(self, file: Path) -> list[str]:
        """The distinct names of a file, in its order."""
        names = map(self.tokens_of, read_lines(file))
        return list(dict.fromkeys(name for name in names if name))
