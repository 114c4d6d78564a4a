"""What a resumed run cannot change, since it would change nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from seqnets.cli.assemble import make_model
from seqnets.cli.names import UsageError
from seqnets.cli.options import Config
from seqnets.errors import SeqnetsError
from seqnets.typing import Sizes

_Key = tuple[str, ...]


def check_epochs(trainer: Trainer, checkpoint: Mapping[str, Any]) -> None:
    """Raise UsageError if a checkpoint's epoch is beyond the last one of the run."""
    # its "epoch" is one more if it was written once that had ended
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["started"]
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs < epochs:
        raise UsageError(
            f"trainer.max_epochs: is {trainer.max_epochs}, expected at least {epochs}, the "
            "epoch of the checkpoint.\n"
            "  Epochs are counted from the beginning of the run."
        )


def check_same_seed(seed: int, checkpoint: Mapping[str, Any]) -> None:
    """Raise UsageError for another seed than the run's."""
    own = checkpoint["seqnets"]["config"]["seed"]
    if seed != own:
        raise UsageError(
            f"seed: is {seed}, expected {own}, the run's own.\n"
            "  A resumed run goes on with its own random numbers. Another seed needs a new run, "
            "which resume=auto begins in an output of its own."
        )


def check_same_start(options: Config, sizes: Sizes, checkpoint: Mapping[str, Any]) -> None:
    """Raise UsageError for an option of the model that only says what its parameters start as.

    The model is made without and with each option that has changed, from the same seed: one that
    leaves names and shapes as they were, and gives other values, would be replaced by the
    checkpoint's. Random numbers go on as if nothing had been drawn.

    Args:
        options: The resumed run's configuration.
        sizes: The dataset's sizes, which the model is made for.
        checkpoint: The checkpoint.
    """
    own = {**options, "model": checkpoint["seqnets"]["config"]["model"]}
    changes = list(_changes(options["model"], own["model"], ("model",)))
    if not changes:
        return
    with isolate_rng(include_cuda=False):
        start = _start(own, sizes)
        lost = [
            f"{'.'.join(key)}: is {ours}, expected {theirs}"
            for key, ours, theirs in changes
            if _is_lost(start, _start(_with(own, key, ours), sizes))
        ]
    if lost:
        raise UsageError(
            f"{'; '.join(lost)}, the run's own.\n"
            "  This says what parameters start as, and a resumed run goes on with those that it "
            "has. Another value needs a new run."
        )


def _changes(ours: Any, theirs: Any, key: _Key) -> Iterator[tuple[_Key, Any, Any]]:
    """Yield the keys whose values differ, but for those of classes; None where there is none."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in {**theirs, **ours}:
            yield from _changes(ours.get(name), theirs.get(name), (*key, name))
    elif ours != theirs and key[-1] != "_target_":
        yield key, ours, theirs


def _with(options: Config, key: _Key, value: Any) -> Config:
    """Nested options with another value at a key."""
    name, *inner = key
    return {**options, name: _with(options[name], tuple(inner), value) if inner else value}


def _start(options: Config, sizes: Sizes) -> Mapping[str, Tensor]:
    """What a model starts as; nothing if it cannot be made, as with an option that needs others."""
    seed_everything(options["seed"], verbose=False)
    with suppress(SeqnetsError):
        return make_model(options, sizes, options["allow"]).state_dict()
    return {}


def _is_lost(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> bool:
    """Whether tensors of the same names, shapes and types have other values."""

    def kinds(state: Mapping[str, Tensor]) -> dict[str, Any]:
        return {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}

    alike = kinds(before) == kinds(after)
    return alike and any(not torch.equal(before[name], after[name]) for name in before)
