"""A training run of two processes on a CPU, as a script: FOLDER NAME STEPS [CHECKPOINT]."""

import sys
from functools import partial
from pathlib import Path

import torch

from seqnets.cells import GRUCell
from seqnets.models import LanguageModel
from seqnets.training import LanguageModelling, SequenceModule
from tests.training.runs import fit, text_data


def plain(data):
    """A module without dropout, so that the number of processes changes no random number."""
    model = LanguageModel(GRUCell, data.sizes["vocab_size"], hidden_size=8)
    optimizer = partial(torch.optim.SGD, lr=0.5)
    return SequenceModule(model, LanguageModelling(), data.describe(), optimizer)


def train(folder, name, steps, resume=None):
    torch.set_num_threads(1)
    running, module = fit(
        plain,
        text_data(Path(folder), batch_size=2),
        Path(folder) / name,
        resume=resume,
        max_steps=int(steps),
        strategy="ddp",
        devices=2,
        num_sanity_val_steps=0,
    )
    if running.is_global_zero:
        (Path(folder) / name / "loss").write_text(str(float(module.last_loss)))


if __name__ == "__main__":
    train(*sys.argv[1:])
