"""Tiny Shakespeare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seqnets.datasets.published.download import download
from seqnets.datasets.readers.files import cache_folder, find_folder, read_text
from seqnets.datasets.text.language import LanguageData
from seqnets.datasets.text.tokens import Tokens

URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SIZE = 1_115_394

_FILE = "input.txt"


class Shakespeare(LanguageData):
    """Tiny Shakespeare, 1,115,394 characters of the plays; language modelling.

    Args:
        root: Folder with ``shakespeare/input.txt`` or ``input.txt``. If omitted, the file is
            downloaded once, checked by its SHA-256 and kept in the cache folder.
        cache: The cache folder; ``$XDG_CACHE_HOME/seqnets`` if omitted.
        **stream: The arguments of :class:`LanguageData`.
    """

    def __init__(self, root: str | None = None, *, cache: str | None = None, **stream: Any) -> None:
        super().__init__(**stream)
        self.root, self.cache = root, cache

    def prepare_data(self) -> None:
        """Download the file unless a root was given or it is in the cache."""
        if self.root is None:
            download(URL, self._downloaded, sha256=SHA256, max_bytes=SIZE)

    def read_tokens(self) -> Tokens:
        """The plays as token ids.

        Raises:
            DataError: The file was not found.
        """
        self.prepare_data()
        return self.tokens_of("".join(read_text(self._file())))

    @property
    def _downloaded(self) -> Path:
        return cache_folder(self.cache) / "shakespeare" / _FILE

    def _file(self) -> Path:
        if self.root is None:
            return self._downloaded
        folders, advice = ("shakespeare", ""), "Leave dataset.root out to fetch the file."
        return find_folder("Shakespeare", self.root, folders, [_FILE], advice) / _FILE
