import json
import math

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer

from seqnets.training.callbacks import Pruning

from .runs import fit, parity_data, parity_module


def others(folder, *histories, study="a", metric="accuracy"):
    """Other runs of a sweep, by their best scores so far."""
    for number, best in enumerate(histories):
        known = {"study": study, "metric": metric, "best": best}
        (folder / f"run_{study}_{metric}_{number}").mkdir()
        (folder / f"run_{study}_{metric}_{number}" / "validations.json").write_text(
            json.dumps(known)
        )


def run(folder, epochs=3, study="a", max_time=None, **options):
    """A run's pruning, and the epochs it was trained for."""
    pruning = Pruning(study, **{"least_runs": 2, **options})
    limits = {"max_epochs": epochs, "max_time": max_time}
    trainer, _ = fit(parity_module, parity_data(), folder / "mine", pruning, **limits)
    return pruning, trainer.global_step // 5


def test_a_run_below_the_median_ends_and_says_why(tmp_path):
    others(tmp_path, [0.9, 1.0], [1.0, 1.0])

    pruning, epochs = run(tmp_path, epochs=3)

    assert epochs == 2  # the first is the warm-up
    assert pruning.reason.startswith("after 2 validations its best accuracy is 0.")
    assert pruning.reason.endswith("and the median of 2 other runs 1")
    told = json.loads((tmp_path / "mine" / "validations.json").read_text())
    assert len(told["best"]) == 2
    assert told["best"] == sorted(told["best"])


@pytest.mark.parametrize(
    "there",
    [
        {"histories": [[0.0] * 9, [0.1] * 9, [1.0] * 9]},  # the median is worse
        {"histories": [[1.0] * 9]},  # too few
        {"histories": [[1.0], [1.0]]},  # none has come as far
        {"histories": [[1.0] * 9, [1.0] * 9], "study": "b"},
        {"histories": [[1.0] * 9, [1.0] * 9], "metric": "f1"},
    ],
)
def test_other_runs_go_on(there, tmp_path):
    others(tmp_path, *there.pop("histories"), **there)

    pruning, epochs = run(tmp_path, epochs=2)

    assert pruning.reason is None
    assert epochs == 2


def test_a_run_at_its_last_validation_has_nothing_left_to_prune(tmp_path):
    others(tmp_path, [1.0] * 9, [1.0] * 9)

    pruning, _ = run(tmp_path, epochs=2)

    assert pruning.reason is None
    assert len(json.loads((tmp_path / "mine" / "validations.json").read_text())["best"]) == 2


def test_a_run_whose_time_ends_with_a_validation_has_nothing_left_to_prune(tmp_path, monkeypatch):
    others(tmp_path, [1.0] * 9, [1.0] * 9)
    monkeypatch.setattr(Timer, "time_remaining", lambda self: -1.0)

    pruning, epochs = run(tmp_path, epochs=3, max_time={"hours": 1})

    assert pruning.reason is None
    assert epochs == 3


def test_a_score_that_is_no_number_is_the_worst(tmp_path, monkeypatch):
    others(tmp_path, [0.1] * 9, [0.1] * 9)
    monkeypatch.setattr(Trainer, "callback_metrics", {"val/accuracy": torch.tensor(math.nan)})

    pruning, epochs = run(tmp_path, epochs=3)

    assert epochs == 2
    assert pruning.reason == (
        "after 2 validations its best accuracy is -inf, and the median of 2 other runs 0.1"
    )


def test_outside_a_sweep_nothing_is_pruned(tmp_path):
    others(tmp_path, [1.0] * 9, [1.0] * 9, study=None)

    assert run(tmp_path, epochs=2, study=None)[0].reason is None
    assert not (tmp_path / "mine" / "validations.json").exists()
