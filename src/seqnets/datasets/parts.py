"""The parts of a dataset."""

from __future__ import annotations

from typing import Literal, get_args

Part = Literal["train", "val", "test"]
"""A split of the data: for training, for model selection, for reporting."""

PARTS: tuple[Part, ...] = get_args(Part)


def paths_of(path: str, validation_path: str | None, test_path: str | None) -> dict[Part, str]:
    """The file of each part that has its own."""
    paths: dict[Part, str | None] = {"train": path, "val": validation_path, "test": test_path}
    return {part: file for part, file in paths.items() if file is not None}
