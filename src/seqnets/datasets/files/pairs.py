"""Transduction of a user's own pairs of texts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from seqnets.checks import check_fractions
from seqnets.datasets.parts import PARTS, Part
from seqnets.datasets.readers.cells import need
from seqnets.datasets.readers.records import group_of, split_of
from seqnets.datasets.readers.tables import read_rows
from seqnets.datasets.sequences.dealing import deal_grouped
from seqnets.datasets.sequences.text_pairs import Aligned, TextPairs, read_aligned, read_side
from seqnets.errors import ConfigError, DataError, counted


@dataclass
class _Member:
    """A pair of a group, by its place in the table."""

    where: str
    group: str | None


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
        groups: Column of the table with the group that a pair belongs to; no group is in two parts.
            None if each pair is by itself. New files may lack it.
        **texts: The arguments of :class:`TextPairs`.

    Raises:
        ConfigError: Both a table and text files are given, or neither, or one file of a pair; or
            groups of text files.
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
        groups: str | None = None,
        **texts: Any,
    ) -> None:
        super().__init__(**texts)
        check_fractions(
            "PairFiles", validation_fraction=validation_fraction, test_fraction=test_fraction
        )
        self.fractions: dict[Part, float] = {"val": validation_fraction, "test": test_fraction}
        self.groups = groups
        self.table = None if path is None else Path(path).expanduser()
        given = {
            "train": (source_path, target_path),
            "val": (validation_source_path, validation_target_path),
            "test": (test_source_path, test_target_path),
        }
        self.files: dict[Part, tuple[Path, Path]] = {}
        for name in PARTS:
            source, target = given[name]
            if (source is None) != (target is None):
                side, lacking = ("source", "target") if target is None else ("target", "source")
                alone = target if source is None else source
                begin = {"train": "", "val": "validation_", "test": "test_"}[name]
                raise ConfigError(
                    f"PairFiles: {begin}{side}_path is {alone!r}, without a "
                    f"{begin}{lacking}_path, expected both.\n"
                    f"  dataset.{begin}{lacking}_path=FILE names the file with the {lacking} of "
                    "each line."
                )
            if source is not None and target is not None:
                self.files[name] = Path(source).expanduser(), Path(target).expanduser()
        if (self.table is None) == ("train" not in self.files) or (self.table and self.files):
            raise ConfigError(
                "PairFiles: expected either path, a table, or source_path and target_path, two "
                "text files, and not both."
            )
        if groups is not None and self.table is None:
            raise ConfigError(
                f"PairFiles: got groups {groups!r} of text files, expected those of a table.\n"
                f"  path=FILE names one, with columns source, target and {groups}."
            )

    def read_texts(self) -> dict[Part, Aligned]:
        """The texts of all parts.

        Raises:
            DataError: A file or row is malformed (the message says in which line), a group is in
                two parts, or there are too few pairs, or groups.
        """
        return self._dealt[0]

    def group_counts(self) -> dict[Part, int] | None:
        """The number of groups in each part; None if each pair is by itself."""
        return self._dealt[1]

    @cached_property
    def _dealt(self) -> tuple[dict[Part, Aligned], dict[Part, int] | None]:
        """The texts of all parts, and the number of groups in each if there are any."""
        if self.table is None:
            found = {name: read_aligned(*paths) for name, paths in self.files.items()}
            return self._hold_out(found), None
        found, members = _read_table(self.table, self.groups)
        if self.groups is None:
            return self._hold_out(found), None
        train = members["train"]
        absent = {name: self.fractions[name] for name in self.fractions if name not in found}
        alike = np.zeros(len(train))
        dealt = deal_grouped(str(self.table), self.groups, members, alike, absent, self.seed)
        members |= {name: [train[row] for row in rows] for name, rows in dealt.items()}
        counts = {name: len({member.group for member in members[name]}) for name in PARTS}
        return {**found, **_parted(found["train"], dealt)}, counts

    def _hold_out(self, found: dict[Part, Aligned]) -> dict[Part, Aligned]:
        """Move random training pairs to the parts that are missing, without reordering them."""
        train = found.get("train", ([], []))
        absent = [name for name in self.fractions if name not in found]
        counts = [max(1, round(self.fractions[name] * len(train[0]))) for name in absent]
        if len(train[0]) <= sum(counts):
            raise DataError(
                f"{self.table or self.files['train'][0]}: got "
                f"{counted(len(train[0]), 'training pair')}, expected at least {sum(counts) + 1}.\n"
                f"  Some of them are held out for: {', '.join(absent) or 'nothing'}."
            )
        order = np.random.default_rng((self.seed, 0, 2)).permutation(len(train[0]))
        names: list[Part] = [*absent, "train"]
        split = map(np.sort, np.split(order, np.cumsum(counts)))
        return {**found, **_parted(train, dict(zip(names, split, strict=True)))}


def _parted(pairs: Aligned, rows: dict[Part, np.ndarray]) -> dict[Part, Aligned]:
    """The pairs of each part by their rows."""
    sources, targets = pairs
    return {
        name: ([sources[row] for row in chosen], [targets[row] for row in chosen])
        for name, chosen in rows.items()
    }


def _read_table(
    path: Path, groups: str | None
) -> tuple[dict[Part, Aligned], dict[Part, list[_Member]]]:
    """Read the pairs of a table, of each part that it has, and their groups if it has any."""
    found: dict[Part, Aligned] = {}
    members: dict[Part, list[_Member]] = defaultdict(list)
    for where, row in read_rows(path):
        need(where, row, "source", "target")
        part = split_of(where, row) or "train"
        pair = found.setdefault(part, ([], []))
        for side, texts in zip(("source", "target"), pair, strict=True):
            texts.append(read_side(where, side, row[side]))
        if groups is not None:
            members[part].append(_Member(where, group_of(where, row, groups)))
    return found, members
