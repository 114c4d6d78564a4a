"""Checkpoints that are whole or absent, and that say so when they are neither."""

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
from seqnets.errors import CheckpointError
from seqnets.typing import Known

_MARK = b"seqnets sha256 "
_SEAL_SIZE = len(_MARK) + 64  # the mark and 64 hexadecimal digits
_BLOCK = 1 << 20


class AtomicCheckpointIO(TorchCheckpointIO):
    """A Trainer's plugin: writes and reads checkpoints by the two functions below."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; see :func:`save_checkpoint`."""
        save_checkpoint(checkpoint, path)

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint, never code; see :func:`load_checkpoint`."""
        return load_checkpoint(path, map_location or "cpu")


def save_checkpoint(checkpoint: dict[str, Any], path: Path | str) -> None:
    """Write tensors and plain values to a file, whole or not at all.

    At any moment the name holds a whole checkpoint, the old or the new. It is sealed with its
    SHA-256: the seal is a zip file's comment, which ``torch.load`` does not mind.

    Args:
        checkpoint: Tensors and plain values.
        path: Where it goes; its folder is made if need be.

    Raises:
        CheckpointError: The disk is full or the folder cannot be written. What was there before
            still is.
    """
    path = Path(path)
    try:
        with atomic(path) as partial, partial.open("x+b") as file:
            torch.save(checkpoint, file)
            _seal(file)
    except (OSError, RuntimeError) as error:
        # where the disk is full torch raises another error over the system's
        found = error.__context__ if isinstance(error.__context__, OSError) else error
        kept = "The one before it is still there." if path.exists() else "None was there before."
        advice = "Make room or choose another folder (output=FOLDER)."
        if any(path.parent.glob("*.ckpt")):
            advice = "Make room, then resume."
        raise CheckpointError(
            f"Checkpoint {path}: could not be written: {found}.\n  {kept} {advice}"
        ) from error


def load_checkpoint(path: Path | str, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint of seqnets: a local file, whole, of tensors and plain values alone.

    Args:
        path: The file.
        map_location: Where its tensors go, as for ``torch.load``.

    Raises:
        CheckpointError: There is no such file, it is cut short or damaged, holds more than tensors
            and plain values, or is no checkpoint of seqnets.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            _check_seal(file, path)
            file.seek(0)
            checkpoint = torch.load(file, map_location=map_location, weights_only=True)
    except OSError as error:
        raise CheckpointError(
            f"Checkpoint {path}: {error.strerror}, expected a file that `seqnets train` wrote."
        ) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"Checkpoint {path}: holds more than tensors and plain values, and was not loaded.\n"
            f"  The rest could be code, and seqnets never writes any."
        ) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "seqnets"} <= checkpoint.keys():
        raise CheckpointError(
            f"Checkpoint {path}: lacks the parts 'state_dict' and 'seqnets', expected a file that "
            f"`seqnets train` wrote."
        )
    return checkpoint


def load_weights(module: torch.nn.Module, checkpoint: dict[str, Any], path: Path | str) -> None:
    """Put a checkpoint's weights into a module.

    Raises:
        CheckpointError: They are those of another model; says which weights differ.
    """
    check_weights(module, checkpoint, path)
    module.load_state_dict(checkpoint["state_dict"])


def check_weights(module: torch.nn.Module, checkpoint: dict[str, Any], path: Path | str) -> None:
    """Raise CheckpointError unless the checkpoint's weights are those of this module."""
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


def check_data(known: Known, found: Known, path: Path | str, but: Sequence[str] = ()) -> None:
    """Raise CheckpointError unless data mean to a model what those that it was trained on meant.

    Args:
        known: What the checkpoint keeps of its data.
        found: What the data at hand say of themselves.
        path: The checkpoint.
        but: What may differ.
    """
    for what in sorted(known, key="sizes".__eq__):  # the sizes last: they follow from the others
        old, new = known[what], found.get(what)
        near = 1e-5 if what == "sample" else 1e-12  # scaled numbers, near 0 too
        if what in but or _alike(old, new, near):
            continue
        if what == "sample":
            raise CheckpointError(
                f"Checkpoint {path}: the data have changed since its run began, expected the "
                "numbers that they had.\n  Use the files as they were, or begin a new run."
            )
        if what == "vocabulary":
            hint = "the text it was trained on, for the vocabulary is made of its training part"
        elif what in ("scaling", "numbers"):
            hint = "the training part that it has, for the scales are made of that"
        elif what == "counts":
            hint = "the files as they were, or begin a new run"
        else:
            hint = f"data with the same {what}"
        raise CheckpointError(
            f"Checkpoint {path}: the dataset's {what} is another than the model's: "
            f"{_difference(old, new)}.\n"
            f"  The model's outputs would mean something else. Use {hint}."
        )


def _difference(old: Any, new: Any) -> str:
    if isinstance(old, list) and isinstance(new, list) and sorted(old) != sorted(new):
        had = set(old)
        lost = [entry for entry in new if entry not in had]
        named = f" ({', '.join(map(repr, lost[:5]))} is unknown)" if lost else ""
        return f"{len(new)} entries, expected the model's {len(old)}{named}"
    if isinstance(old, dict) and isinstance(new, dict):
        what = next(key for key in {**old, **new} if not _alike(old.get(key), new.get(key)))
        return f"{what} is {_shown(new.get(what))}, expected {_shown(old.get(what))}"
    return f"{_shown(new)}, expected the model's {_shown(old)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _alike(old: Any, new: Any, near: float = 1e-12) -> bool:
    """Whether plain values are the same, numbers up to the rounding of another machine."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_alike(old[key], new[key], near) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(
            _alike(a, b, near) for a, b in zip(old, new, strict=True)
        )
    if isinstance(old, float) and isinstance(new, float):
        return math.isclose(old, new, rel_tol=1e-6, abs_tol=near)
    return bool(old == new)


def _seal(file: IO[bytes]) -> None:
    """Give a finished zip file its own digest as comment; its last two bytes are its length, 0."""
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
            f"Checkpoint {path}: is cut short, or seqnets did not write it: its seal is missing.\n"
            f"  Take another, best.ckpt or last.ckpt."
        )
    if _digest(file, size) != seal[len(_MARK) :]:
        raise CheckpointError(
            f"Checkpoint {path}: is damaged, its SHA-256 is not the one it was written with.\n"
            f"  Take another, best.ckpt or last.ckpt, or a copy from elsewhere."
        )


def _digest(file: IO[bytes], size: int) -> bytes:
    """The SHA-256 of a file's first bytes, its comment's length taken as 0."""
    digest = hashlib.sha256()
    file.seek(0)
    left = size - 2
    while left > 0 and (block := file.read(min(_BLOCK, left))):
        digest.update(block)
        left -= len(block)
    return digest.hexdigest().encode()
