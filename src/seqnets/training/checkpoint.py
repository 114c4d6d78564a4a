"""Checkpoint files: written atomically, sealed with a digest, loaded without running code."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from seqnets.atomic import atomic
from seqnets.errors import CheckpointError, cut_short
from seqnets.typing import Known

OF_TRAINING = ("counts", "sample", "class_counts", "naive_errors")
"""What a dataset says of its own sequences, and not of what a model's outputs mean."""

_MARK = b"seqnets sha256 "
_SEAL_SIZE = len(_MARK) + 64  # the mark and 64 hexadecimal digits
_BLOCK = 1 << 20


class AtomicCheckpointIO(TorchCheckpointIO):
    """Trainer plugin that writes checkpoints atomically and reads those that it wrote.

    They may be of any module; processes that Lightning spawns hand back their weights alone.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; see :func:`save_checkpoint`."""
        save_checkpoint(checkpoint, path)

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read what was saved; see :func:`load_checkpoint`."""
        return _read(Path(path), map_location or "cpu")


def save_checkpoint(checkpoint: dict[str, Any], path: Path | str) -> None:
    """Write tensors and plain values to a file, atomically.

    At any moment the path holds a complete checkpoint, the old or the new one. Its SHA-256 is
    stored in the zip file's comment, which ``torch.load`` ignores.

    Args:
        checkpoint: Tensors and plain values.
        path: The file; its folder is created if needed.

    Raises:
        CheckpointError: The disk is full or the folder is not writable. An existing file is left
            unchanged.
    """
    path = Path(path)
    try:
        with atomic(path) as partial, partial.open("x+b") as file:
            torch.save(checkpoint, file)
            _seal(file)
    except (OSError, RuntimeError) as error:
        # on a full disk torch raises an error of its own over the system's
        found = error.__context__ if isinstance(error.__context__, OSError) else error
        kept = "The previous one is kept." if path.exists() else "There was none before."
        advice = "Free some space or choose another folder (output=FOLDER)."
        if any(path.parent.glob("*.ckpt")):
            advice = "Free some space, then resume."
        raise CheckpointError(
            f"Checkpoint {path}: could not be written: {found}.\n  {kept} {advice}"
        ) from error


def load_checkpoint(path: Path | str, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint of seqnets, which holds tensors and plain values only.

    Args:
        path: The file.
        map_location: Device of its tensors, as for ``torch.load``.

    Raises:
        CheckpointError: The file is missing, truncated or damaged, holds more than tensors and
            plain values, or is not a checkpoint of seqnets.
    """
    checkpoint = _read(Path(path), map_location)
    check_parts(checkpoint, path)
    return checkpoint


def check_parts(checkpoint: Any, path: Path | str) -> None:
    """Raise CheckpointError unless this is a checkpoint of seqnets."""
    if not isinstance(checkpoint, dict) or not {"state_dict", "seqnets"} <= checkpoint.keys():
        raise CheckpointError(
            f"Checkpoint {path}: lacks the parts 'state_dict' and 'seqnets', expected a file that "
            f"`seqnets train` wrote."
        )


def _read(path: Path, map_location: Any) -> Any:
    """Read a sealed file of tensors and plain values."""
    try:
        with path.open("rb") as file:
            _check_seal(file, path)
            file.seek(0)
            return torch.load(file, map_location=map_location, weights_only=True)
    except OSError as error:
        raise CheckpointError(
            f"Checkpoint {path}: {error.strerror}, expected a file that `seqnets train` wrote."
        ) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"Checkpoint {path}: holds more than tensors and plain values, so it was not loaded.\n"
            f"  The rest could be code, which seqnets never writes."
        ) from error


def load_weights(module: torch.nn.Module, checkpoint: dict[str, Any], path: Path | str) -> None:
    """Load a checkpoint's weights into a module.

    Args:
        module: What was trained, or one that is built alike.
        checkpoint: What :func:`load_checkpoint` returned.
        path: The file that it came from, for errors.

    Raises:
        CheckpointError: The weights differ in name or shape from the module's.
    """
    check_weights(module, checkpoint, path)
    module.load_state_dict(checkpoint["state_dict"])


def check_weights(module: torch.nn.Module, checkpoint: dict[str, Any], path: Path | str) -> None:
    """Raise CheckpointError unless the checkpoint's weights fit the module."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}
    differing = [
        f"{name}: {found.get(name, 'absent')}, expected {expected.get(name, 'none')}"
        for name in {**expected, **found}
        if found.get(name) != expected.get(name)
    ]
    if differing:
        shown = "\n".join(f"  {line}" for line in differing[:4])
        raise CheckpointError(
            f"Checkpoint {path}: is of another model, {len(differing)} weights differ.\n{shown}\n"
            f"  Use the model, cell and sizes that it was trained with."
        )


def check_data(known: Known, found: Known, path: Path | str, but: Sequence[str]) -> None:
    """Raise CheckpointError unless data have the same meaning to a model as its training data.

    Args:
        known: The checkpoint's description of its data.
        found: The description of the data at hand.
        path: The checkpoint.
        but: Keys that may differ.
    """
    for what in sorted(known, key="sizes".__eq__):  # the sizes last: they follow from the others
        old, new = known[what], found.get(what)
        tolerance = 1e-5 if what == "sample" else 1e-12  # scaled numbers, tolerance 0 too
        if what in but or _alike(old, new, tolerance):
            continue
        if what in OF_TRAINING:
            counted = f"\n  Their number in {_difference(old, new)}." if what == "counts" else ""
            raise CheckpointError(
                f"Checkpoint {path}: the data have changed since its run began, expected the "
                f"same.{counted}\n  Use the original files, or start a new run."
            )
        if what == "vocabulary":
            hint = "the text it was trained on: its training part defines the vocabulary"
        elif what in ("scaling", "numbers"):
            hint = "the training part and the options it was trained with, which define the scales"
        else:
            hint = f"data with the same {what}"
        differ = "differ" if what[-1] == "s" else "differs"
        raise CheckpointError(
            f"Checkpoint {path}: the dataset's {what} {differ} from the model's: "
            f"{_difference(old, new)}.\n"
            f"  The model's outputs would mean something else. Use {hint}."
        )


def _difference(old: Any, new: Any) -> str:
    if _are_numbers(old) and _are_numbers(new) and len(old) == len(new):
        place = next(n for n, (a, b) in enumerate(zip(old, new, strict=True)) if not _alike(a, b))
        return f"number {place + 1} is {new[place]:g}, expected the model's {old[place]:g}"
    if isinstance(old, list) and isinstance(new, list) and sorted(old) != sorted(new):
        had = set(old)
        lost = [entry for entry in new if entry not in had]
        named = f" ({', '.join(map(repr, lost[:5]))} is unknown)" if lost else ""
        return f"{len(new)} entries, expected the model's {len(old)}{named}"
    if isinstance(old, dict) and isinstance(new, dict):
        what = next(key for key in {**old, **new} if not _alike(old.get(key), new.get(key)))
        if _are_numbers(old.get(what)) and _are_numbers(new.get(what)):
            return f"{what}: {_difference(old[what], new[what])}"
        return f"{what} is {_shorten(new.get(what))}, expected {_shorten(old.get(what))}"
    return f"{_shorten(new)}, expected the model's {_shorten(old)}"


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, float) for entry in value)


def _shorten(value: Any) -> str:
    return cut_short(repr(value), 80)


def _alike(old: Any, new: Any, tolerance: float = 1e-12) -> bool:
    """Whether plain values are equal, with numbers up to rounding on another machine."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(
            _alike(old[key], new[key], tolerance) for key in old
        )
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(
            _alike(a, b, tolerance) for a, b in zip(old, new, strict=True)
        )
    if isinstance(old, float) and isinstance(new, float):
        return math.isclose(old, new, rel_tol=1e-6, abs_tol=tolerance)
    return bool(old == new)


def _seal(file: IO[bytes]) -> None:
    """Append a zip file's digest as its comment, whose length is the file's last two bytes."""
    size = file.tell()
    digest = _digest(file, size)
    file.seek(size - 2)
    file.write(_SEAL_SIZE.to_bytes(2, "little") + _MARK + digest)


def _check_seal(file: IO[bytes], path: Path) -> None:
    size = file.seek(0, os.SEEK_END) - _SEAL_SIZE
    seal = b""
    if size > 0:
        file.seek(size)
        seal = file.read()
    if not seal.startswith(_MARK):
        raise CheckpointError(
            f"Checkpoint {path}: has no seal, so it is truncated or was not written by seqnets.\n"
            f"  Use another one, best.ckpt or last.ckpt."
        )
    if _digest(file, size) != seal[len(_MARK) :]:
        raise CheckpointError(
            f"Checkpoint {path}: is damaged, its SHA-256 is not the one it was written with.\n"
            f"  Use another one, best.ckpt or last.ckpt, or a backup."
        )


def _digest(file: IO[bytes], size: int) -> bytes:
    """The SHA-256 of a zip file's first ``size`` bytes, without its comment's length."""
    digest = hashlib.sha256()
    file.seek(0)
    left = size - 2
    while left > 0 and (block := file.read(min(_BLOCK, left))):
        digest.update(block)
        left -= len(block)
    return digest.hexdigest().encode()
