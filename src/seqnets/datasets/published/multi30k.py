"""Multi30k: image captions in English and German."""

from __future__ import annotations

from typing import Any

from seqnets.datasets.parts import Part
from seqnets.datasets.readers.files import find_folder
from seqnets.datasets.sequences.text_pairs import Aligned, TextPairs, read_aligned

FILES: dict[Part, str] = {"train": "train", "val": "val", "test": "test_2016_flickr"}


class Multi30k(TextPairs):
    """Multi30k, image captions in English and German, from your own copy; translation.

    Args:
        root: Folder with ``train``, ``val`` and ``test_2016_flickr``, each as ``.en`` and ``.de``,
            or with them in ``multi30k/``: UTF-8, tokenized, lower case, one sentence per line.
        reverse: Whether to translate German to English instead of English to German.
        tokenize: The tokenizer of sacrebleu: none, since the sentences are tokenized already.
        **texts: The other arguments of :class:`TextPairs`.

    References:
        Elliott et al., 2016, "Multi30K: Multilingual English-German Image Descriptions",
        arXiv:1605.00459.
    """

    def __init__(
        self, root: str, *, reverse: bool = False, tokenize: str = "none", **texts: Any
    ) -> None:
        super().__init__(tokenize=tokenize, **texts)
        self.root, self.reverse = root, reverse

    def read_texts(self) -> dict[Part, Aligned]:
        """The sentences of all parts.

        Raises:
            DataError: A file is missing, empty or not UTF-8, a line is empty, or the languages
                have different numbers of lines.
        """
        languages = ("de", "en") if self.reverse else ("en", "de")
        files = [f"{name}.{language}" for name in FILES.values() for language in languages]
        advice = "They are Multi30k's, tokenised and lower case; set dataset.root to their folder."
        folder = find_folder("Multi30k", self.root, ("multi30k", ""), files, advice)
        return {
            part: read_aligned(*(folder / f"{name}.{language}" for language in languages))
            for part, name in FILES.items()
        }
