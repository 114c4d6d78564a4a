from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from seqnets.errors import ConfigError, DataError
from seqnets.training import FramePrediction
from seqnets.typing import IGNORE, Batch

KNOWN = {"sizes": {"channels": 1, "height": 1, "width": 2}}


class Said(nn.Module):
    """Says what it was given."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, x, state=None, lengths=None):
        return self.logits, "after"


def frames(values):
    """Videos of frames of one row of two pixels, (B, T, 1, 1, 2)."""
    return torch.tensor(values, dtype=torch.float32)[:, :, None, None]


LOGITS = [[[0.0, 2.0], [-1.0, 0.5]], [[1.0, 1.0], [9.0, 9.0]]]
TRUE = [[[0.0, 1.0], [0.25, 0.5]], [[0.5, 0.0], [IGNORE, IGNORE]]]
RAGGED = Batch(frames(TRUE).clamp(min=0), frames(TRUE), torch.tensor([2, 1]))
SCORED = [(0.0, 0.0), (2.0, 1.0), (-1.0, 0.25), (0.5, 0.5), (1.0, 0.5), (1.0, 0.0)]


def run(batch=RAGGED, logits=LOGITS):
    return FramePrediction()(Said(frames(logits)), batch)


def test_the_loss_is_the_cross_entropy_of_a_pixel_that_has_a_target():
    said = [(1 / (1 + math.exp(-logit)), true) for logit, true in SCORED]
    nats = [-true * math.log(p) - (1 - true) * math.log(1 - p) for p, true in said]

    outcome = run()

    assert float(outcome.loss) == pytest.approx(sum(nats) / 6, rel=1e-6)
    assert int(outcome.scored) == 6
    assert outcome.state == "after"


def test_the_metric_is_the_squared_error_of_a_pixel_that_has_a_target():
    errors = [(1 / (1 + math.exp(-logit)) - true) ** 2 for logit, true in SCORED]
    objective, outcome = FramePrediction(), run()
    metric = objective.metrics(KNOWN)[objective.metric]

    assert float(metric(outcome.predictions, outcome.targets)) == pytest.approx(sum(errors) / 6)


def test_a_video_without_an_end_of_its_own_is_scored_in_full():
    whole = Batch(RAGGED.x[:1], RAGGED.y[:1])

    assert int(run(whole, LOGITS[:1]).scored) == 4


def test_written_predictions_are_read_back_and_score_the_same():
    objective, outcome = FramePrediction(), run()
    rows = objective.rows(outcome, RAGGED, KNOWN)

    assert [len(row["prediction"]) for row in rows] == [2, 1]
    assert rows[0]["prediction"][0] == [[[0.5, 0.881]]]
    assert rows[1]["target"] == [[[[0.5, 0.0]]]]
    metrics = objective.metrics(KNOWN).items()
    scores = {name: float(m(outcome.predictions, outcome.targets)) for name, m in metrics}
    assert objective.scores(rows, KNOWN) == pytest.approx(scores, abs=1e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"target": [[[[0.0, 1.0]]]]}, "Row 2: the frames cannot be read: 'prediction'"),
        ({"prediction": [[[[0.0], [1.0, 2.0]]]], "target": []}, "Row 2: the frames cannot be read"),
        ({"prediction": [[0.5]], "target": [[0.5]]}, r"Row 2: prediction has shape \(1, 1\)"),
        (
            {"prediction": [[[[0.0, 1.0]]]], "target": [[[[0.0]]]]},
            r"and target \(1, 1, 1, 1\), expected the same",
        ),
    ],
)
def test_an_unreadable_row_is_reported(wrong, message):
    objective = FramePrediction()
    rows = [objective.rows(run(), RAGGED, KNOWN)[0], wrong]

    with pytest.raises(DataError, match=message):
        objective.read(rows, KNOWN)


def test_large_frames_are_not_written_as_text():
    video = torch.zeros(1, 1, 1, 65, 64)
    batch = Batch(video, video)
    objective = FramePrediction()

    with pytest.raises(ConfigError, match=r"a frame has 4,160 numbers, expected at most 4,096"):
        objective.rows(objective(Said(video), batch), batch, KNOWN)


def test_targets_of_another_shape_are_refused():
    with pytest.raises(DataError, match=r"shape \(2, 2, 1, 1, 2\), expected \(1, 2, 1, 1, 2\)"):
        run(RAGGED, LOGITS[:1])


def test_the_picture_has_a_row_of_frames_for_seen_to_come_and_predicted():
    pytest.importorskip("matplotlib")
    figure = FramePrediction().pictures(run(), RAGGED, KNOWN)["next frame"]

    drawn = [panel.images[0].get_array().tolist() for panel in figure.axes]
    assert [panel.get_ylabel() for panel in figure.axes[::2]] == ["seen", "to come", "predicted"]
    assert drawn[2] == [[0.0, 1.0]]
    assert drawn[5] == [pytest.approx([1 / (1 + math.e), 1 / (1 + math.exp(-0.5))])]
