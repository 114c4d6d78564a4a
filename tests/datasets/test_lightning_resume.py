"""Resuming through Lightning's own loops, with only the data from seqnets."""

from __future__ import annotations

import warnings

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from seqnets.datasets import Parity

BATCHES = 5  # in an epoch


class Recorder(LightningModule):
    """Writes down which batches it was trained on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.x.flatten().tolist())
        return self.weight * 1.0

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAt(Callback):
    """Saves once, in a hook of Lightning's, after so many steps."""

    def __init__(self, hook, step, path):
        self.step, self.path = step, path
        setattr(self, hook, self.save)

    def save(self, trainer, *_):
        if trainer.global_step == self.step and not trainer.sanity_checking:
            trainer.save_checkpoint(self.path)


def fit(tmp_path, budget, callbacks=(), resume_from=None):
    model = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        val_check_interval=2,
        **budget,
    )
    data = Parity(length=12, train_size=8 * BATCHES, test_size=8, batch_size=8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers and logging
        trainer.fit(model, data, ckpt_path=resume_from)
    return model.seen


EPOCHS, STEPS = {"max_epochs": 3}, {"max_steps": 3 * BATCHES}
MOMENTS = [
    *(("on_train_batch_end", step, EPOCHS) for step in range(1, 3 * BATCHES)),
    *(("on_train_batch_end", step, STEPS) for step in range(1, 3 * BATCHES)),
    *(("on_validation_end", step, EPOCHS) for step in (2, 7, 9)),
    *(("on_validation_end", step, STEPS) for step in (2, 7, 9)),
    # With max_steps, Lightning 2.6.6 counts an epoch twice that was saved in this hook.
    ("on_train_epoch_end", 5, EPOCHS),
    ("on_train_epoch_end", 10, EPOCHS),
]


def test_a_trainer_that_overfits_sees_the_same_batches_in_each_epoch(tmp_path):
    seen = fit(tmp_path, {"max_epochs": 2, "overfit_batches": 2})

    assert seen[:2] == seen[2:]
    assert len(seen) == 4


@pytest.mark.parametrize(("hook", "step", "budget"), MOMENTS, ids=str)
def test_a_run_resumed_by_lightning_sees_exactly_the_batches_it_had_left(
    tmp_path, hook, step, budget
):
    path = tmp_path / "saved.ckpt"

    whole = fit(tmp_path, budget, [SaveAt(hook, step, path)])
    resumed = fit(tmp_path, budget, resume_from=path)
    assert len(whole) == 3 * BATCHES
    assert resumed == whole[step:]
