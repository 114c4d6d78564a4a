"""What every dataset of seqnets is to the trainer, and the checks that their options share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from seqnets.datasets.loader import Loader
from seqnets.datasets.vocabulary import Vocabulary
from seqnets.errors import DataError
from seqnets.typing import Batch, Known, Sizes

Part = Literal["train", "val", "test"]
"""What data are for: learning, choosing, reporting."""

PARTS: tuple[Part, ...] = get_args(Part)

_SPREAD = 32
"""Numbers of an array by which it is known again, at most."""


def paths_of(path: str, validation_path: str | None, test_path: str | None) -> dict[Part, str]:
    """Return the files of those parts that have some of their own."""
    given: dict[Part, str | None] = {"train": path, "val": validation_path, "test": test_path}
    return {part: named for part, named in given.items() if named is not None}


class DataModule(LightningDataModule, ABC):
    """A dataset: three loaders of :class:`~seqnets.typing.Batch` and what a model must know.

    Everything is read and checked in ``setup``, before training; what is wrong with the data is a
    :class:`~seqnets.errors.DataError` there.
    """

    @property
    @abstractmethod
    def sizes(self) -> Sizes:
        """The sizes a model needs: vocab_size, input_size, num_classes, output_size."""

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The tokens of text data."""
        return None

    @property
    def labels(self) -> list[str] | None:
        """The names of the classes, by number."""
        return None

    @abstractmethod
    def loader(self, part: Part) -> Loader:
        """Return a new loader at the start of epoch 0."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Return the size of each part, in :attr:`unit`."""

    @property
    @abstractmethod
    def unit(self) -> str:
        """What the parts are counted in: characters, words or sequences."""

    def setup(self, stage: str | None = None) -> None:
        """Read the data and check that every part gives batches."""
        for part in PARTS:
            self.loader(part)

    def train_dataloader(self) -> Loader:
        """Return the training batches; the same first ones each time to a trainer that overfits."""
        loader = self.loader("train")
        trainer: Any = self.trainer
        overfits = trainer is not None and trainer.overfit_batches > 0
        return loader.in_order() if overfits else loader

    def val_dataloader(self) -> Loader:
        """Return the validation batches."""
        return self.loader("val")

    def test_dataloader(self) -> Loader:
        """Return the test batches."""
        return self.loader("test")

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Return the batch on the device, without waiting for it."""
        return batch.map(partial(_sent, device))

    def describe(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the data, as plain values."""
        return {
            "sizes": dict(self.sizes),
            "unit": self.unit,
            "counts": self.counts(),
            "vocabulary": None if self.vocabulary is None else list(self.vocabulary.tokens),
            "labels": self.labels,
            "sample": {part: spread(*self.numbers(part)) for part in PARTS},
        }

    def numbers(self, part: Part) -> Sequence[np.ndarray | Tensor]:
        """Return what a part is made of, inputs and targets, of any shape."""
        return ()

    def lengths(self, part: Part) -> np.ndarray | None:
        """Return the steps of each sequence of a part, (N,); None for one long text or series."""
        return None

    def class_counts(self, part: Part) -> np.ndarray | None:
        """Return how often each class is right in a part, (C,); None where there are no classes."""
        return None

    def features(self) -> list[dict[str, str]]:
        """Return what is known of each feature that has a name, to be read: columns by name."""
        return []

    def token_counts(self, part: Part) -> np.ndarray | None:
        """Return how often each token comes in a part, (V,); None where there are no tokens."""
        return None

    def token_name(self, number: int) -> str:
        """Return a token by itself, to be read."""
        known = self.vocabulary
        if known is None:
            return str(number)
        return known.piece(number) if known.unit == "bpe" else known.tokens[number]

    def examples(self, part: Part, count: int) -> list[dict[str, str]]:
        """Return the first few sequences of a part, to be read: columns by name."""
        return []

    def new(self, path: Path, known: Known) -> Loader:
        """Return batches of a file of the user's, to be predicted, with the targets that it has.

        The training data are not read: vocabulary, labels and scales come from ``known``. What is
        no target that a model can tell is taken for none.

        Args:
            path: The file.
            known: What :meth:`describe` said when the model was trained.

        Raises:
            DataError: The dataset reads no such files, or the file does not fit.
        """
        raise DataError(
            f"{type(self).__name__}: reads no file of new data, expected a part of the dataset.\n"
            "  Give part=test or part=val."
        )

    def baselines(self) -> dict[str, float]:
        """Return what simple rivals reach on the test part, in the task's main metric."""
        return {}


def spread(*arrays: np.ndarray | Tensor) -> list[float | None]:
    """Return some numbers of each array, evenly spread over it, by which to know it again."""
    found: list[float | None] = []
    for array in arrays:
        flat = np.asarray(array).reshape(-1)
        places = np.linspace(0, len(flat) - 1, min(_SPREAD, len(flat))).round().astype(int)
        found += [None if math.isnan(number) else number for number in flat[places].tolist()]
    return found


def _sent(device: torch.device, tensor: Tensor) -> Tensor:
    """A tensor on a device; CUDA copies from pinned memory while the host goes on."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
