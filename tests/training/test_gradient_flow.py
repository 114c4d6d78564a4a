from csv import DictReader
from functools import partial

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from seqnets.training.callbacks import GradientFlow
from seqnets.training.callbacks.gradient_flow import in_windows, with_last_targets
from seqnets.training.loggers import CSVLogger
from seqnets.typing import IGNORE, Batch

from .runs import fit, language_module, parity_data, parity_module, text_data


def flow_of(make, data, folder, *callbacks, **options):
    """A run's module, and its events."""
    logger = TensorBoardLogger(folder, name="", version="", default_hp_metric=False)
    _, module = fit(make, data, folder, *callbacks, logger=logger, **options)
    return module, EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()


def test_tensorboard_shows_how_far_gradients_reach_and_the_run_stays_the_same(tmp_path):
    make = partial(language_module, scheduler=None)
    data, options = text_data(tmp_path), {"max_steps": 4, "val_check_interval": 2}

    watched, found = flow_of(make, data, tmp_path / "run", GradientFlow(rows=2), **options)
    _, alone = fit(make, data, tmp_path / "alone", **options)

    layers = [f"encoder.recurrent.layers.{n}" for n in (0, 1)]
    tags = {f"gradient_flow/{name}/{layer}" for name in ("reach", "per_step") for layer in layers}
    assert tags <= set(found.Tags()["scalars"])
    assert all(0 < e.value < 1 for e in found.Scalars(f"gradient_flow/per_step/{layers[1]}"))
    assert [e.step for e in found.Images("gradient_flow")] == [2, 4]
    for a, b in zip(watched.parameters(), alone.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_last_target_is_at_the_end_of_a_whole_window(tmp_path):
    make = partial(language_module, scheduler=None, bptt_steps=15)
    data = text_data(tmp_path)  # chunks of 32 steps

    _, found = flow_of(make, data, tmp_path / "run", GradientFlow(rows=2), max_steps=1)

    (event,) = found.Scalars("gradient_flow/per_step/encoder.recurrent.layer.layers.1")
    assert 0 < event.value < 1
    (event,) = found.Scalars("gradient_flow/reach/encoder.recurrent.layer.layers.1")
    assert 2 < event.value <= 15


def test_padded_sequences_with_one_target_are_shown_too(tmp_path):
    _, found = flow_of(parity_module, parity_data(), tmp_path, GradientFlow(), max_epochs=1)

    (reach,) = found.Scalars("gradient_flow/reach/encoder.recurrent.layers.0")
    assert 1 <= reach.value <= 6


def test_other_loggers_get_the_scalars(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")

    fit(parity_module, parity_data(), tmp_path, GradientFlow(), logger=logger, max_epochs=1)

    with (tmp_path / "metrics.csv").open(encoding="utf-8") as file:
        found = [row["gradient_flow/reach/encoder.recurrent.layers.0"] for row in DictReader(file)]
    (reach,) = filter(None, found)
    assert 1 <= float(reach) <= 6


def test_only_the_last_target_of_each_row_is_left():
    y = torch.tensor([[1, 2, 3], [4, 5, IGNORE], [IGNORE] * 3])
    several = y[..., None].repeat(1, 1, 2).float()

    last = with_last_targets(Batch(torch.zeros(3, 3), y)).y
    of_several = with_last_targets(Batch(torch.zeros(3, 3), several)).y

    assert last.tolist() == [[IGNORE, IGNORE, 3], [IGNORE, 5, IGNORE], [IGNORE] * 3]
    assert torch.equal(of_several, last[..., None].repeat(1, 1, 2).float())


def test_rows_are_cut_to_whole_windows_unless_they_are_shorter():
    x, y = torch.zeros(3, 7), torch.arange(21).view(3, 7)
    several = y[..., None].repeat(1, 1, 2).float()

    cut = in_windows(Batch(x, y), 3)
    ragged = in_windows(Batch(x, several, torch.tensor([7, 5, 2])), 3)

    assert cut.x.shape == cut.y.shape == (3, 6)
    assert in_windows(Batch(x, y), 8).y.shape == (3, 7)
    assert ragged.lengths.tolist() == [6, 3, 2]
    assert (ragged.y != IGNORE).all(-1).sum(1).tolist() == [6, 3, 2]
