"""The choice of the best checkpoint."""

import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from seqnets.training import load_checkpoint, save_checkpoint
from seqnets.training.callbacks import Checkpoints

from .runs import fit, parity_data, parity_module, trainer


class Recorder:
    """As much of a trainer as a validation's end looks at."""

    sanity_checking, global_step, default_root_dir = False, 0, "run"
    state = SimpleNamespace(fn="fit")
    loggers = ()
    lightning_module = SimpleNamespace(as_validated=nullcontext)
    strategy = SimpleNamespace(broadcast=lambda _: True)  # best.ckpt is there

    def __init__(self):
        self.saved = []

    def save_checkpoint(self, path, weights_only):
        self.saved.append((path.name, self.global_step))

    def starts(self, checkpoints, metric="accuracy"):
        objective = SimpleNamespace(metric=metric, mode="max")
        checkpoints.on_fit_start(self, SimpleNamespace(objective=objective))

    def validated(self, checkpoints, mode, metric, loss, name="accuracy"):
        self.global_step += 1
        self.callback_metrics = {f"val/{name}": metric, "val/loss": loss}
        objective = SimpleNamespace(metric=name, mode=mode)
        checkpoints.on_validation_end(self, SimpleNamespace(objective=objective))


@pytest.mark.parametrize(
    ("mode", "seen", "best"),
    [
        ("max", [(0.5, 1.0), (0.9, 0.4), (0.9, 0.3), (0.9, 0.35), (0.8, 0.1)], [1, 2, 3]),
        ("min", [(0.5, 1.0), (0.6, 0.2), (0.5, 1.1), (0.5, 0.9), (0.4, 2.0)], [1, 4, 5]),
        ("max", [(float("nan"), 1.0), (0.1, 1.0), (float("inf"), 0.1)], [2]),
    ],
    ids=["more is better", "less is better", "no number"],
)
def test_of_equal_figures_the_one_with_the_lower_loss_is_better(mode, seen, best):
    checkpoints, trainer = Checkpoints(), Recorder()
    for metric, loss in seen:
        trainer.validated(checkpoints, mode, metric, loss)

    assert [step for name, step in trainer.saved if name == "best.ckpt"] == best


def test_a_resumed_run_knows_what_was_best():
    first, trainer = Checkpoints(), Recorder()
    trainer.validated(first, "max", 0.9, 0.4)
    resumed = Checkpoints()
    resumed.load_state_dict(first.state_dict())
    trainer.saved.clear()
    trainer.validated(resumed, "max", 0.9, 0.5)
    trainer.validated(resumed, "max", 0.9, 0.3)

    assert [step for name, step in trainer.saved if name == "best.ckpt"] == [3]


def test_a_run_that_is_resumed_with_another_metric_forgets_what_was_best_in_the_one_before():
    first, trainer = Checkpoints(), Recorder()
    trainer.starts(first)
    trainer.validated(first, "max", 0.9, 0.4)
    resumed = Checkpoints()
    resumed.load_state_dict(first.state_dict())
    trainer.saved.clear()
    trainer.starts(resumed, "f1")
    assert resumed.best_score is None  # also where nothing is left to train, and to validate
    trainer.validated(resumed, "max", 0.5, 0.5, "f1")
    trainer.validated(resumed, "max", 0.4, 0.3, "f1")

    assert [step for name, step in trainer.saved if name == "best.ckpt"] == [2]
    assert resumed.best_score == 0.5


def test_a_run_that_goes_on_in_another_folder_keeps_what_is_best_there(tmp_path):
    data, moved = parity_data(), tmp_path / "moved.ckpt"
    fit(parity_module, data, tmp_path / "first", max_epochs=1)
    checkpoint = load_checkpoint(tmp_path / "first" / "checkpoints" / "last.ckpt")
    checkpoint["callbacks"]["Checkpoints"]["best_score"] = 2.0  # which no accuracy exceeds
    save_checkpoint(checkpoint, moved)
    fit(parity_module, data, tmp_path / "second", resume=moved, max_epochs=2)

    assert (tmp_path / "second" / "checkpoints" / "best.ckpt").exists()


def test_lightning_finds_the_best_checkpoint_of_a_new_and_of_a_resumed_run(tmp_path):
    data, checkpoints = parity_data(), tmp_path / "checkpoints"
    best = str(checkpoints / "best.ckpt")

    for resume in (None, checkpoints / "last.ckpt"):
        running, module = fit(parity_module, data, tmp_path, resume=resume, max_epochs=2)
        with torch.no_grad():
            module.model.output.weight.fill_(torch.nan)
        (figures,) = running.test(module, data, ckpt_path="best", weights_only=True, verbose=False)

        assert running.ckpt_path == running.checkpoint_callback.best_model_path == best
        assert math.isfinite(figures["test/loss"])


def test_before_the_first_validation_lightning_says_that_there_is_no_best_checkpoint(tmp_path):
    running = trainer(tmp_path)
    data = parity_data()

    with pytest.raises(ValueError, match="not configured to save the best model"):
        running.test(parity_module(data), data, ckpt_path="best")
