"""The objective of polyphonic music, and sampling."""

import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.plugins.precision import Precision
from torch import nn

from seqnets.errors import DataError
from seqnets.insight import Sound
from seqnets.training import Polyphony
from seqnets.training.callbacks import samples
from seqnets.training.compose import compose
from seqnets.typing import IGNORE, Batch

KNOWN = {"sizes": {"input_size": 88, "num_classes": 88}}


class Says(nn.Module):
    """A model that says the same logit of every key."""

    def __init__(self, logit, keys=88):
        super().__init__()
        self.logit, self.keys = logit, keys

    def forward(self, x, state=None, lengths=None):
        return torch.full((*x.shape[:2], self.keys), self.logit), state


def batch_of(*rows, keys=88):
    """Rows of targets, each a list of chords; None is a step that is not scored."""
    y = torch.zeros(len(rows), max(map(len, rows)), keys)
    lengths = torch.tensor([len(row) for row in rows])
    for place, row in enumerate(rows):
        y[place, len(row) :] = IGNORE
        for step, chord in enumerate(row):
            y[place, step, chord] = 1
    return Batch(torch.zeros_like(y), y, lengths)


def test_the_loss_is_the_nats_of_all_keys_of_a_step_averaged_over_steps():
    batch = batch_of([[3], [3, 5]], [[]])
    outcome = Polyphony()(Says(-2.0), batch)

    on, off = math.log1p(math.exp(2.0)), math.log1p(math.exp(-2.0))
    steps = [on + 87 * off, 2 * on + 86 * off, 88 * off]
    assert float(outcome.loss) == pytest.approx(sum(steps) / 3, rel=1e-5)
    assert int(outcome.scored) == 3


def test_steps_past_the_end_count_nowhere():
    long, short = batch_of([[3]], [[5]]), batch_of([[3], [1], [2]], [[5]])
    metrics = Polyphony().metrics(KNOWN)
    for batch in (long, batch_of([[3]], [[5]])):
        outcome = Polyphony()(Says(1.0), batch)
    one = metrics["frame_accuracy"](outcome.predictions, outcome.targets)

    padded = Batch(torch.zeros(2, 3, 88), short.y.clone(), torch.tensor([1, 1]))
    padded.y[0, 1:] = IGNORE
    outcome = Polyphony()(Says(1.0), padded)
    assert int(outcome.scored) == 2
    assert (
        metrics["frame_accuracy"](outcome.predictions, outcome.targets)
        == one
        == pytest.approx(1 / 88)
    )


def test_a_file_of_predictions_gives_the_same_figures():
    torch.manual_seed(0)
    objective = Polyphony()
    model = nn.Linear(88, 88)
    batch = batch_of([[3], [4, 9], [5]], [[40]])

    class Linear(nn.Module):
        def forward(self, x, state=None, lengths=None):
            return model(x), state

    with torch.no_grad():
        outcome = objective(Linear(), batch._replace(x=torch.randn(2, 3, 88)))
    rows = objective.rows(outcome, batch, KNOWN)
    scores = objective.scores(rows, KNOWN)

    assert [len(row["target"]) for row in rows] == [3, 1]
    assert rows[0]["target"] == [[24], [25, 30], [26]]
    assert scores["nll"] == pytest.approx(float(outcome.loss), rel=1e-5)
    for name, metric in objective.metrics(KNOWN).items():
        assert scores[name] == pytest.approx(float(metric(outcome.predictions, outcome.targets)))


def test_a_wrong_certain_prediction_costs_the_same_as_in_the_loss():
    batch = batch_of([[3]])
    outcome = Polyphony()(Says(20.0), batch)
    (row,) = Polyphony().rows(outcome, batch, KNOWN)

    assert row["nats"] == [pytest.approx(87 * 20, rel=1e-6)]
    assert row["nats"] == [pytest.approx(float(outcome.loss), rel=1e-6)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction": 60}, "Row 1: prediction: got 60, expected a list"),
        ({"target": [60]}, "Row 1: target has the chord 60"),
        ({"target": [[60], [61]]}, "got 1 predicted and 2 heard chords"),
        ({"target": None}, "Row 1: 'target' is null"),
        ({"nats": 1.0}, "Row 1: nats: got 1.0, expected a list"),
        ({"nats": ["x"]}, "expected a number of at least 0 for each of 1 step"),
        ({"nats": [True]}, "expected a number of at least 0 for each of 1 step"),
        ({"nats": [1.0, 2.0]}, "expected a number of at least 0 for each of 1 step"),
    ],
)
def test_a_malformed_row_is_refused(change, message):
    row = {"prediction": [[60]], "target": [[60]], "nats": [1.0], **change}

    with pytest.raises(DataError, match=message):
        Polyphony().scores([row], KNOWN)


def test_a_chord_outside_the_piano_is_refused():
    rows = [{"prediction": [[60]], "target": [[12]], "nats": [1.0]}]

    with pytest.raises(DataError, match=r"Row 1: target has the chord \[12\]"):
        Polyphony().scores(rows, KNOWN)


def test_a_model_of_another_number_of_keys_is_refused():
    with pytest.raises(DataError, match=r"expected \(1, 1, 80\)"):
        Polyphony()(Says(0.0, keys=80), batch_of([[3]]))


def test_playing_draws_each_key_by_its_probability():
    beginning = torch.zeros(2, 88)

    assert torch.equal(compose(Says(50.0), beginning, 3)[2:], torch.ones(3, 88))
    assert torch.equal(compose(Says(-50.0), beginning, 3), torch.zeros(5, 88))
    played = compose(Says(0.0), beginning, 100)[2:]
    assert 0.45 < played.mean() < 0.55
    assert torch.equal(played, compose(Says(0.0), beginning, 100)[2:])


@pytest.mark.parametrize(("length", "given"), [(2, 2), (9, 4)])
def test_tensorboard_plays_and_draws_how_the_beginning_of_a_piece_goes_on(
    length, given, monkeypatch
):
    shown = []
    monkeypatch.setattr(samples, "sample_batch", lambda *_: batch_of([[3]] * length, [[3]] * 10))
    monkeypatch.setattr(samples, "write", lambda *what: shown.append(what[1:]))
    module = SimpleNamespace(objective=Polyphony(), model=Says(50.0))
    trainer = SimpleNamespace(precision_plugin=Precision(), global_step=7)

    samples.MusicSamples(beginning=4, length=3).show(trainer, module, None)

    (name, sound, step), (_, figure, _) = shown
    assert (name, step) == ("sample", 7)
    assert isinstance(sound, Sound)
    assert sound.samples.any()
    axis, _ = figure.axes
    assert axis.get_title(loc="left") == f"given for {given} steps, then played"
    assert axis.images[0].get_array().shape[1] == given + 3
