"""Your own pairs of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from seqnets.checks import check_fractions
from seqnets.datasets.base import PARTS, Part
from seqnets.datasets.readers import need, read_rows
from seqnets.datasets.readers.records import split_of
from seqnets.datasets.text_pairs import Aligned, TextPairs, by_part, read_aligned, read_side
from seqnets.errors import ConfigError, DataError, counted


class PairFiles(TextPairs):
    """Your own texts and what they are to become: two text files, or a table.

    A table has the columns ``source`` and ``target``, and perhaps ``split`` ("train", "val" or
    "test"): CSV, TSV, JSON Lines or Parquet. What has no part of its own for validation or for the
    test gives some of its training pairs.

    Args:
        path: The table.
        source_path: In its place, a text file with a source a line,
        target_path: and one with its target on the same line.
        validation_source_path: Likewise for the validation part.
        validation_target_path: Likewise for the validation part.
        test_source_path: Likewise for the test part.
        test_target_path: Likewise for the test part.
        validation_fraction: Share of the pairs to choose by, where they have no such part.
        test_fraction: Share of the pairs to report, where they have no such part.
        **texts: The arguments of :class:`TextPairs`.

    Raises:
        ConfigError: Both kinds of files are given, none, or half a pair of them.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        source_path: str | None = None,
        target_path: str | None = None,
        validation_source_path: str | None = None,
        validation_target_path: str | None = None,
        test_source_path: str | None = None,
        test_target_path: str | None = None,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        **texts: Any,
    ) -> None:
        super().__init__(**texts)
        check_fractions(
            "PairFiles", validation_fraction=validation_fraction, test_fraction=test_fraction
        )
        self.fractions: dict[Part, float] = {"val": validation_fraction, "test": test_fraction}
        self.table = None if path is None else Path(path).expanduser()
        given = {
            "train": (source_path, target_path),
            "val": (validation_source_path, validation_target_path),
            "test": (test_source_path, test_target_path),
        }
        self.files: dict[Part, tuple[Path, Path]] = {}
        for name in PARTS:
            sides = [Path(side).expanduser() for side in given[name] if side is not None]
            if len(sides) == 1:
                raise ConfigError(
                    f"PairFiles: got {sides[0]} alone for the {name} part, expected a source and "
                    "a target file."
                )
            if sides:
                self.files[name] = sides[0], sides[1]
        if (self.table is None) == ("train" not in self.files) or (self.table and self.files):
            raise ConfigError(
                "PairFiles: expected either path, a table, or source_path and target_path, two "
                "text files, and not both."
            )

    def read_texts(self) -> dict[Part, Aligned]:
        """Return the texts of all parts.

        Raises:
            DataError: A file or a row of it is not as described above; says in which line. Or
                there are too few pairs.
        """
        if self.table is None:
            found = {name: read_aligned(*paths) for name, paths in self.files.items()}
        else:
            found = {n: texts for n, texts in _read_table(self.table).items() if texts[0]}
        return self._set_aside(found)

    def _set_aside(self, found: dict[Part, Aligned]) -> dict[Part, Aligned]:
        """Move some training pairs into the parts that there are not, in the order they had."""
        sources, targets = found.get("train", ([], []))
        absent = [name for name in self.fractions if name not in found]
        counts = [max(1, round(self.fractions[name] * len(sources))) for name in absent]
        if len(sources) <= sum(counts):
            raise DataError(
                f"{self.table or self.files['train'][0]}: got "
                f"{counted(len(sources), 'training pair')}, expected at least {sum(counts) + 1}.\n"
                f"  Some of them are set aside for: {', '.join(absent) or 'nothing'}."
            )
        order = np.random.default_rng((self.seed, 0, 2)).permutation(len(sources))
        names: list[Part] = [*absent, "train"]
        for name, rows in zip(names, np.split(order, np.cumsum(counts)), strict=True):
            rows.sort()
            found[name] = [sources[row] for row in rows], [targets[row] for row in rows]
        return found


def _read_table(path: Path) -> dict[Part, Aligned]:
    rows: list[tuple[Part, str, str]] = []
    for where, row in read_rows(path):
        need(where, row, "source", "target")
        part = split_of(where, row) or "train"
        source, target = (read_side(where, side, row[side]) for side in ("source", "target"))
        rows.append((part, source, target))
    return by_part(rows)
