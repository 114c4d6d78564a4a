"""Transduction of a user's own pairs of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from seqnets.checks import check_fractions
from seqnets.datasets.base import PARTS, Part
from seqnets.datasets.readers.cells import need
from seqnets.datasets.readers.records import split_of
from seqnets.datasets.readers.tables import read_rows
from seqnets.datasets.text_pairs import Aligned, TextPairs, read_aligned, read_side
from seqnets.errors import ConfigError, DataError, counted


class PairFiles(TextPairs):
    """Your own source and target texts, from a table or from pairs of text files.

    A table (CSV, TSV, JSON Lines or Parquet) has the columns ``source`` and ``target``, and
    optionally ``split`` ("train", "val" or "test"). A part that is not given is a fraction of the
    training pairs.

    Args:
        path: The table.
        source_path: Without a table, a text file with one source per line.
        target_path: The text file with their targets, on the same lines.
        validation_source_path: Sources of separate validation pairs.
        validation_target_path: Their targets.
        test_source_path: Sources of separate test pairs.
        test_target_path: Their targets.
        validation_fraction: Fraction of the pairs for validation, if that part is not given.
        test_fraction: Fraction of the pairs for the test, if that part is not given.
        **texts: The arguments of :class:`TextPairs`.

    Raises:
        ConfigError: Both a table and text files are given, or neither, or one file of a pair.
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
            DataError: A file or row is malformed (the message says in which line), or there are
                too few pairs.
        """
        if self.table is None:
            found = {name: read_aligned(*paths) for name, paths in self.files.items()}
        else:
            found = _read_table(self.table)
        return self._hold_out(found)

    def _hold_out(self, found: dict[Part, Aligned]) -> dict[Part, Aligned]:
        """Move random training pairs to the parts that are missing, without reordering them."""
        sources, targets = found.get("train", ([], []))
        absent = [name for name in self.fractions if name not in found]
        counts = [max(1, round(self.fractions[name] * len(sources))) for name in absent]
        if len(sources) <= sum(counts):
            raise DataError(
                f"{self.table or self.files['train'][0]}: got "
                f"{counted(len(sources), 'training pair')}, expected at least {sum(counts) + 1}.\n"
                f"  Some of them are held out for: {', '.join(absent) or 'nothing'}."
            )
        order = np.random.default_rng((self.seed, 0, 2)).permutation(len(sources))
        names: list[Part] = [*absent, "train"]
        for name, rows in zip(names, np.split(order, np.cumsum(counts)), strict=True):
            rows.sort()
            found[name] = [sources[row] for row in rows], [targets[row] for row in rows]
        return found


def _read_table(path: Path) -> dict[Part, Aligned]:
    """Read the pairs of a table, of each part that it has."""
    found: dict[Part, Aligned] = {}
    for where, row in read_rows(path):
        need(where, row, "source", "target")
        pair = found.setdefault(split_of(where, row) or "train", ([], []))
        for side, texts in zip(("source", "target"), pair, strict=True):
            texts.append(read_side(where, side, row[side]))
    return found
