"""WNUT 2017: emerging entities in short messages."""

from __future__ import annotations

from typing import Any

from seqnets.datasets.parts import Part
from seqnets.datasets.readers.files import find_folder
from seqnets.datasets.readers.tagged import read_tagged
from seqnets.datasets.sequences.tagging import TaggedData, TaggedParts

_FILES: dict[Part, str] = {"train": "train.conll", "val": "dev.conll", "test": "test.conll"}


class WNUT17(TaggedData):
    """Named entities in short messages, most of them rare or new; tagging.

    Reads ``train.conll``, ``dev.conll`` and ``test.conll``, with a word and its BIO label per line.

    Args:
        root: Folder with the files, or with a folder ``wnut17`` that contains them.
        **data: The arguments of :class:`TaggedData`.

    References:
        Derczynski et al., 2017, "Results of the WNUT2017 Shared Task on Novel and Emerging Entity
        Recognition".
    """

    def __init__(self, root: str, **data: Any) -> None:
        super().__init__(**data)
        self.root = root

    def read_parts(self) -> TaggedParts:
        """The sentences of all parts.

        Raises:
            DataError: A file is missing or malformed; the message says in which line.
        """
        advice = "They are the WNUT 2017 shared task's; set dataset.root to a folder that has them."
        folder = find_folder("WNUT17", self.root, ("wnut17", ""), [*_FILES.values()], advice)
        return {part: read_tagged(folder / file) for part, file in _FILES.items()}
