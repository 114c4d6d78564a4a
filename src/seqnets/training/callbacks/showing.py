"""What callbacks that show something share: a sample of the data, and pictures in TensorBoard."""

from __future__ import annotations

from importlib.util import find_spec
from operator import itemgetter
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.utils.tensorboard import SummaryWriter

from seqnets.insight import Sound
from seqnets.insight.canvas import Picture
from seqnets.insight.fonts import give_fonts
from seqnets.insight.visible import visible
from seqnets.typing import Batch


def sample_batch(trainer: Trainer, pl_module: Any) -> Batch:
    """A batch sampled from the whole validation part, on the module's device."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    sample = data.val_dataloader().sample()
    return data.transfer_batch_to_device(sample, pl_module.device, 0)


def first_rows(batch: Batch, count: int, steps: int | None = None) -> Batch:
    """The first rows of a batch, at most ``count``; one, or as many as ``steps`` steps allow."""
    if steps is not None:
        count = max(1, min(count, steps // max(1, batch.x.shape[1])))
    return batch.map(itemgetter(slice(count)))


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def write(writer: SummaryWriter, name: str, picture: Picture, step: int) -> None:
    """Write a picture to TensorBoard as an image, audio or text."""
    if isinstance(picture, str):
        writer.add_text(name, visible(picture), step)
    elif isinstance(picture, Sound):
        samples = torch.from_numpy(picture.samples)[None]
        writer.add_audio(name, samples, step, sample_rate=picture.rate)
    else:
        give_fonts(picture)
        writer.add_figure(name, picture, step)
