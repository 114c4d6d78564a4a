"""The interface of every dataset to the trainer, and helpers that datasets share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from seqnets.cells.constructors import checks_calls
from seqnets.checks import check_choice
from seqnets.datasets.loader import Loader
from seqnets.datasets.parts import PARTS, Part
from seqnets.datasets.text.vocabulary import Vocabulary
from seqnets.errors import DataError
from seqnets.typing import Batch, Known, Sizes

_T = TypeVar("_T")
_SAMPLE_SIZE = 32
"""Maximum number of values by which an array is recognised."""


class DataModule(LightningDataModule, ABC):
    """A dataset: three loaders of :class:`~seqnets.typing.Batch` and the metadata a model needs.

    Everything is read and checked in ``setup``, before training; faulty data raise a
    :class:`~seqnets.errors.DataError` there.
    """

    unit = "sequences"
    """The unit in which parts are counted."""

    folder_of_new: Path | None = None
    """Where names of files in a table of new data lead from; the table's folder if None."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Options are passed on to bases, whose names nobody typed. Users' constructors stay as they
        # are: from a base's, Lightning's save_hyperparameters walks to the one that called it.
        if "__init__" in vars(cls) and cls.__module__.split(".")[0] == "seqnets":
            cls.__init__ = checks_calls(cls.__init__)  # type: ignore[method-assign]

    def __str__(self) -> str:  # Lightning's asks of batches what ours lack
        counts = ", ".join(f"{part} {count:,}" for part, count in self.counts().items())
        return f"{type(self).__name__}: {counts} {self.unit}"

    @property
    @abstractmethod
    def sizes(self) -> Sizes:
        """The sizes a model needs: vocab_size, input_size, num_classes, output_size."""

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary of text data; None for other data."""
        return None

    @property
    def labels(self) -> list[str] | None:
        """The class names, indexed by class number."""
        return None

    @abstractmethod
    def loader(self, part: Part) -> Loader:
        """A new loader of one part, positioned at the start of epoch 0."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """The size of each part, in :attr:`unit`."""

    def group_counts(self) -> dict[Part, int] | None:
        """The number of groups, each in one part as a whole; None if there are none."""
        return None

    def of_part(self, parts: Mapping[Part, _T], part: Part) -> _T:
        """What there is of a part; raise ConfigError if it is not one of the dataset."""
        check_choice(type(self).__name__, parts, part=part)
        return parts[part]

    def name_of(self, part: Part) -> str:
        """What messages call a part."""
        return f"{type(self).__name__}, {part} part"

    def setup(self, stage: str | None = None) -> None:
        """Read the data and check that every part yields batches."""
        for part in PARTS:
            self.loader(part)

    def train_dataloader(self) -> Loader:
        """The training batches, in a fixed order if the trainer uses ``overfit_batches``."""
        loader = self.loader("train")
        trainer: Any = self.trainer
        overfits = trainer is not None and trainer.overfit_batches > 0
        return loader.in_order() if overfits else loader

    def val_dataloader(self) -> Loader:
        """The validation batches."""
        return self.loader("val")

    def test_dataloader(self) -> Loader:
        """The test batches."""
        return self.loader("test")

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """The batch on the device, copied asynchronously where possible."""
        return batch.map(partial(_to_device, device))

    def describe(self) -> dict[str, Any]:
        """The metadata that a checkpoint stores, as plain values."""
        classes = self.class_counts("train")
        return {
            "sizes": dict(self.sizes),
            "unit": self.unit,
            "counts": self.counts(),
            "vocabulary": None if self.vocabulary is None else list(self.vocabulary.tokens),
            "labels": self.labels,
            "sample": {part: spread(*self.numbers(part)) for part in PARTS},
            "class_counts": None if classes is None else classes.tolist(),
        }

    def numbers(self, part: Part) -> Sequence[np.ndarray | Tensor]:
        """The inputs and targets of a part, as arrays of any shape."""
        return ()

    def lengths(self, part: Part) -> np.ndarray | None:
        """The length of each sequence of a part, (N,); None for one long text or series."""
        return None

    def class_counts(self, part: Part) -> np.ndarray | None:
        """How often each class occurs in a part, (C,); None if there are no classes."""
        return None

    def target_lengths(self, part: Part) -> np.ndarray | None:
        """The number of labels in each transcript of a part, (N,), if targets are such."""
        return None

    def features(self) -> list[dict[str, str]]:
        """A table row for each named feature, by column, for display."""
        return []

    def token_counts(self, part: Part) -> np.ndarray | None:
        """How often each token occurs in a part, (V,); None if there are no tokens."""
        return None

    def token_name(self, number: int) -> str:
        """The text of a single token, for display."""
        known = self.vocabulary
        if known is None:
            return str(number)
        return known.piece(number) if known.unit == "bpe" else known.tokens[number]

    def examples(self, part: Part, count: int) -> list[dict[str, str]]:
        """A table row for each of a part's first sequences, by column, for display."""
        return []

    def new(self, path: Path, known: Known) -> Loader:
        """Batches of a user's file for prediction, with any targets that it has.

        The training data are not read: vocabulary, labels and scales come from ``known``. Targets
        that the model cannot predict count as missing.

        Args:
            path: The file.
            known: The result of :meth:`describe` when the model was trained.

        Raises:
            DataError: The dataset does not support new files, or the file does not fit the model.
        """
        raise DataError(
            f"{type(self).__name__}: reads no file of new data, expected a part of the dataset.\n"
            "  Give part=test or part=val."
        )

    def baselines(self) -> dict[str, float]:
        """The test scores of simple baselines, in the metric that ``describe`` names.

        Without one, they are as the objective's ``in_metric`` takes them.
        """
        return {}


def spread(*arrays: np.ndarray | Tensor) -> list[float | None]:
    """Evenly spaced values of each array, by which it can be recognised."""
    found: list[float | None] = []
    for array in arrays:
        flat = np.asarray(array).reshape(-1)
        places = np.linspace(0, len(flat) - 1, min(_SAMPLE_SIZE, len(flat))).round().astype(int)
        found += [None if math.isnan(number) else number for number in flat[places].tolist()]
    return found


def _to_device(device: torch.device, tensor: Tensor) -> Tensor:
    """Copy a tensor to a device; to CUDA asynchronously, from pinned memory."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
