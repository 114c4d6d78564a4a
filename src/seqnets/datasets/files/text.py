"""Language data from a user's text files, which may be larger than memory."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from seqnets.datasets.parts import Part, paths_of
from seqnets.datasets.readers import files
from seqnets.datasets.readers.files import cache_folder, find_files, read_texts
from seqnets.datasets.text.language import LanguageData
from seqnets.datasets.text.pieces import read_vocabulary
from seqnets.datasets.text.tokens import Tokens, build_tokens, cut
from seqnets.datasets.text.vocabulary import split
from seqnets.errors import DataError

logger = logging.getLogger(__name__)

FORMAT = 2
"""Version of the cache's format; part of every entry's key."""


class TextFiles(LanguageData):
    """Your own UTF-8 text of any size, as characters, words or byte pairs; language modelling.

    The text is read block by block, and its token ids are stored in a memory-mapped file in the
    cache folder, so it need not fit into memory. Cache entries are created atomically, also by
    several processes at once, and are used while the files and the options stay the same. The
    folder may be deleted whenever no training runs.

    Args:
        path: A file, a folder (every ``*.txt`` in it and below) or a pattern such as
            ``"a/*.md"``. Files are concatenated in the order of their names.
        validation_path: Separate validation text; if omitted, ``validation_fraction`` of ``path``.
        test_path: Separate test text; if omitted, ``test_fraction`` of ``path``.
        cache: The cache folder; ``$XDG_CACHE_HOME/seqnets`` if omitted.
        **stream: The arguments of :class:`LanguageData`.
    """

    def __init__(
        self,
        path: str,
        *,
        validation_path: str | None = None,
        test_path: str | None = None,
        cache: str | None = None,
        **stream: Any,
    ) -> None:
        super().__init__(**stream)
        self.paths = paths_of(path, validation_path, test_path)
        self.cache = cache

    def prepare_data(self) -> None:
        """Read the text into the cache; Lightning calls this in one process per machine."""
        self.read_tokens()

    def read_tokens(self) -> Tokens:
        """The text's token ids, memory-mapped.

        Raises:
            DataError: A file is missing, empty or not UTF-8, or the cache cannot be written.
        """
        found = {part: find_files(path) for part, path in self.paths.items()}
        entry = cache_folder(self.cache) / "text" / self._key(found)
        if not entry.is_dir():
            self._write(entry, found)
        try:
            metadata = json.loads((entry / "about.json").read_text("utf-8"))
            ids = np.load(entry / "ids.npy", mmap_mode="r")
        except (OSError, ValueError) as error:
            raise DataError(
                f"{entry}: the cached text is damaged: {error}.\n  Delete this folder."
            ) from None
        parts = {name: (start, stop) for name, (start, stop) in metadata["parts"].items()}
        return Tokens(ids, parts, read_vocabulary({**metadata, "unit": self.unit}))

    def _key(self, found: dict[Part, list[Path]]) -> str:
        """The name of the cache entry of these files and the options."""
        options = [FORMAT, self.unit, self.max_vocabulary, self.fractions]
        content = [
            [part, str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns]
            for part, paths in found.items()
            for file in paths
        ]
        return hashlib.sha256(json.dumps([options, content]).encode()).hexdigest()[:32]

    def _write(self, entry: Path, found: dict[Part, list[Path]]) -> None:
        """Create a cache entry in a temporary folder, then rename that."""
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=entry.parent, prefix=f"{entry.name}."))
        except OSError as error:
            raise _unwritable(entry.parent, error) from None
        try:
            logger.info("Reading the text of %s into %s", self.paths["train"], entry)
            store = partial(_create_memmap, folder / "ids.npy")
            parts = self._boundaries(found)
            read = partial(self._blocks, list(found.values()))
            tokens = build_tokens(read, parts, self.unit, self.max_vocabulary, store)
            metadata = {"parts": tokens.parts, **tokens.vocabulary.describe()}
            (folder / "about.json").write_text(json.dumps(metadata), "utf-8")
            with (folder / "ids.npy").open("rb") as ids:
                os.fsync(ids.fileno())
            folder.rename(entry)
        except OSError as error:
            if not entry.is_dir():  # else another process has finished it in the meantime
                raise _unwritable(entry.parent, error) from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _blocks(self, texts: Sequence[Sequence[Path]]) -> Iterator[Sequence[str]]:
        """Yield the texts' characters or words, block by block."""
        for paths in texts:
            yield from tokenise(read_texts(paths), self.unit)

    def _boundaries(self, found: dict[Part, list[Path]]) -> dict[Part, tuple[int, int]]:
        """Where each part begins and ends, in tokens of all texts together."""
        shares = {part: share for part, share in self.fractions.items() if part not in found}
        parts: dict[Part, tuple[int, int]] = {}
        start = 0
        for part, paths in found.items():
            tokens = sum(len(block) for block in self._blocks([paths]))
            if not tokens:
                raise DataError(f"TextFiles: {self.paths[part]} is empty, expected text.")
            parts |= {part: (start, start + tokens)} if parts else cut(tokens, shares)
            start += tokens
        return parts


def tokenise(blocks: Iterable[str], unit: str) -> Iterator[Sequence[str]]:
    """Yield the words, or the characters, of a text that is read in blocks.

    Args:
        blocks: The text; a block may end within a word.
        unit: "words" for words; anything else for characters.

    Raises:
        DataError: A word is longer than a block of a file.
    """
    if unit != "words":
        yield from blocks
        return
    rest = ""  # the beginning of a word that the next block may continue
    for block in blocks:
        text = rest + block
        words = text.rsplit(maxsplit=1)
        rest = words[-1] if words and not text[-1].isspace() else ""
        if len(rest) > files.BLOCK:
            raise DataError(
                f"TextFiles: got a word of over {files.BLOCK:,} characters: {rest[:30]!r}...\n"
                "  Words are separated by white space.\n"
                "  Use unit=characters for such a text."
            )
        yield split(text[: len(text) - len(rest)], unit)
    yield split(rest, unit)


def _create_memmap(path: Path, length: int, dtype: np.dtype) -> np.ndarray:
    """Create a memory-mapped array, with its space on the disk reserved."""
    ids = open_memmap(path, "w+", dtype, (length,))
    if hasattr(os, "posix_fallocate"):  # a full disk fails here, not with SIGBUS while writing
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return ids


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"{folder}: cannot be written: {error.strerror}.\n"
        "  The text's token ids are stored there.\n"
        "  Choose another folder with dataset.cache=FOLDER."
    )
