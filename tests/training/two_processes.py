"""Two processes on a CPU: a training run as a script, FOLDER NAME STEPS [CHECKPOINT]; scores."""

import sys
from functools import partial
from pathlib import Path

import torch

from seqnets.cells import GRUCell
from seqnets.datasets import Dyck
from seqnets.models import LanguageModel, SequenceTagger
from seqnets.training import LanguageModelling, SequenceModule, Tagging
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


def scored(batch_size):
    """What an untrained tagger reaches, and how often it says which label, of 11 sequences."""
    data = Dyck(length=6, train_size=8, test_size=11, batch_size=batch_size)
    torch.manual_seed(1)
    model = SequenceTagger(GRUCell, **data.sizes, hidden_size=4)
    module = SequenceModule(model, Tagging(), data.describe(), partial(torch.optim.SGD, lr=0.1))
    scores = module.scores["val"]
    with torch.no_grad():
        for batch in data.loader("val"):
            module.validation_step(batch, 0)
    counts = scores.overviews[0].compute()
    return counts, {name: float(value) for name, value in scores.take().items()}


def score(rank, folder):
    """Write what a process finds."""
    file = f"file://{folder}/met"
    torch.distributed.init_process_group("gloo", init_method=file, rank=rank, world_size=2)
    torch.save(scored(batch_size=2), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    train(*sys.argv[1:])
