"""Predictions as rows, and reading them back for metrics."""

from functools import partial

import pytest
import torch
from torch import nn

from seqnets.cells import GRUCell
from seqnets.datasets.text.streams import EvaluationStream
from seqnets.errors import ConfigError, DataError, DtypeError
from seqnets.models import LanguageModel
from seqnets.training import (
    Classification,
    FramePrediction,
    LanguageModelling,
    Objective,
    Outcome,
    Regression,
    SequenceModule,
)
from seqnets.training.predict import predict
from seqnets.typing import IGNORE, Batch

from .runs import trainer

CLASSES = {"sizes": {"num_classes": 3}, "labels": ["a", "b", "c"]}


class Steps(Objective):
    """Writes the loss of every batch."""

    def __call__(self, model, batch, state=None):
        return LanguageModelling()(model, batch, state)

    def metrics(self, known):
        return {}

    def rows(self, outcome, batch, known):
        return [{"loss": float(outcome.loss), "scored": int(outcome.scored)}]


def test_state_is_carried_where_batches_continue():
    torch.manual_seed(0)
    model = LanguageModel(GRUCell, 5, hidden_size=6, dropout=0.5).eval()
    ids = torch.randint(5, (41,)).numpy()

    def mean(chunk_length):
        rows = list(predict(model, Steps(), EvaluationStream(ids, 1, chunk_length), {}))
        total = sum(row["loss"] * row["scored"] for row in rows)
        return len(rows), total / sum(row["scored"] for row in rows)

    assert mean(10)[0] == 4
    assert mean(10)[1] == pytest.approx(mean(40)[1], rel=1e-6)


def test_a_trainer_predicts_the_same_rows_a_batch_at_a_time(tmp_path):
    torch.manual_seed(0)
    model = LanguageModel(GRUCell, 5, hidden_size=6, dropout=0.5)
    module = SequenceModule(model, Steps(), {}, partial(torch.optim.SGD, lr=1.0))
    batches = EvaluationStream(torch.randint(5, (41,)).numpy(), 1, 10)

    found = trainer(tmp_path).predict(module, batches)

    rows = list(predict(model, Steps(), batches, {}))
    assert found == [[row] for row in rows]


def test_a_module_is_called_as_its_model_is():
    model = LanguageModel(GRUCell, 5, hidden_size=6)
    module = SequenceModule(model, Steps(), {}, partial(torch.optim.SGD, lr=1.0))
    x, lengths = torch.randint(5, (2, 8)), torch.tensor([8, 3])

    torch.testing.assert_close(module(x, None, lengths), model(x, None, lengths))


def test_sampling_restores_the_training_mode_and_uses_no_dropout():
    model = LanguageModel(GRUCell, 5, hidden_size=6, dropout=0.5).train()
    batch = Batch(torch.randint(5, (2, 8)), torch.randint(5, (2, 8)))

    first, again = (list(predict(model, Steps(), [batch], {})) for _ in range(2))

    assert first == again
    assert model.training
    assert torch.is_grad_enabled()


def test_gradients_are_as_they_were_between_two_rows():
    model = LanguageModel(GRUCell, 5, hidden_size=6)
    batch = Batch(torch.randint(5, (2, 8)), torch.randint(5, (2, 8)))
    rows = predict(model, Steps(), [batch, batch], {})

    next(rows)

    assert torch.is_grad_enabled()


def test_an_objective_without_predictions_raises_an_error():
    class Silent(Steps):
        rows = Objective.rows

    model = LanguageModel(GRUCell, 5, hidden_size=6)
    batch = Batch(torch.randint(5, (2, 8)), torch.randint(5, (2, 8)))

    with pytest.raises(ConfigError, match="Silent: writes no predictions"):
        next(predict(model, Silent(), [batch], {}))


def outcome_of(predictions, targets):
    return Outcome(torch.zeros(()), torch.tensor(len(targets)), predictions, targets, None)


def test_tensors_in_place_of_batches_are_refused():
    x, y = torch.rand(2, 3, 1)
    of_torch = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y))
    for given, came in ((x, "Tensor"), (of_torch, "list")):
        with pytest.raises(DtypeError, match=f"batches has a {came}, expected a Batch"):
            list(predict(nn.Linear(1, 1), Regression(), given, {}))


def test_a_class_is_written_with_the_probabilities_of_the_likeliest():
    logits = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 5.0]])
    known = {"sizes": {"num_classes": 3}, "labels": None}
    outcome = outcome_of(logits, torch.tensor([1, IGNORE]))

    first, second = Classification().rows(outcome, Batch(logits, outcome.targets), known)

    weights = logits[0].exp() / logits[0].exp().sum()
    assert first == {
        "prediction": 1,
        "probability": pytest.approx(float(weights[1]), abs=1e-6),
        "target": 1,
        "probabilities": {str(n): pytest.approx(float(weights[n]), abs=1e-6) for n in (1, 0, 2)},
    }
    assert list(first["probabilities"]) == ["1", "0", "2"]
    assert (second["prediction"], second["target"]) == (2, None)


def test_of_many_classes_five_are_written():
    logits = torch.arange(30.0).reshape(1, 30)
    known = {"sizes": {"num_classes": 30}, "labels": None}
    outcome = outcome_of(logits, torch.tensor([0]))

    (row,) = Classification().rows(outcome, Batch(logits, outcome.targets), known)

    assert list(row["probabilities"]) == ["29", "28", "27", "26", "25"]


def test_classes_are_read_as_they_were_written():
    rows = [{"prediction": "b", "target": "a"}, {"prediction": "c", "target": "c"}]

    said, right = Classification().read(rows, CLASSES)

    assert (said.tolist(), right.tolist()) == ([1, 2], [0, 2])
    assert Classification().scores(rows, CLASSES)["accuracy"] == 0.5


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prediction": "d", "target": "a"}, "Row 2: got prediction 'd', expected one of 'a'"),
        ({"prediction": "a", "target": 1}, "Row 2: got target 1"),
        ({"prediction": "a"}, "Row 2: 'target' is missing"),
        ({"prediction": None, "target": "a"}, "Row 2: 'prediction' is null"),
        ({"prediction": {"a": 1}, "target": "a"}, "Row 2: got prediction {'a': 1}"),
    ],
)
def test_an_unknown_class_is_reported_with_its_row(row, told):
    with pytest.raises(DataError) as error:
        Classification().read([{"prediction": "b", "target": "a"}, row], CLASSES)
    assert str(error.value).startswith(told)


@pytest.mark.parametrize(
    ("known", "written"),
    [
        ({"sizes": {"output_size": 2}}, [0.1, -3.0]),
        ({"sizes": {"output_size": 2}, "targets": ["u", "v"]}, {"u": 0.1, "v": -3.0}),
        (
            {
                "sizes": {"output_size": 2},
                "targets": ["u", "v"],
                "scaling": {"y": {"mean": [1000.0, 1.0], "deviation": [0.5, 2.0]}},
            },
            {"u": 1000.05, "v": -5.0},
        ),
    ],
)
def test_numbers_are_written_in_the_datas_units_and_read_back(known, written):
    values = torch.tensor([[0.1, -3.0]])
    outcome = outcome_of(values, values + 1)

    rows = Regression().rows(outcome, Batch(values, values), known)

    (row,) = rows
    assert row["prediction"] == pytest.approx(written, rel=1e-7)
    said, right = Regression().read(rows, known)
    assert torch.allclose(said, values, atol=1e-5)
    assert torch.allclose(right, values + 1, atol=1e-5)


class Elsewhere(torch.Tensor):
    """On a device without float64, as Apple's GPUs are."""

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def double(self):
        raise TypeError("there is no float64 here")


@pytest.mark.parametrize(
    ("objective", "shape"), [(Regression(), (2, 1)), (FramePrediction(), (2, 1, 4, 4))]
)
def test_numbers_are_written_from_a_device_without_float64(objective, shape):
    values, y = torch.full(shape, 0.5).as_subclass(Elsewhere), torch.zeros(1, *shape)
    known = {"sizes": {"output_size": 1}}

    rows = objective.rows(outcome_of(values, values), Batch(y, y), known)

    assert rows == objective.rows(outcome_of(values.cpu(), values.cpu()), Batch(y, y), known)


def test_a_single_number_is_not_a_list_and_an_unknown_target_is_null():
    outcome = outcome_of(torch.tensor([[2.5]]), torch.tensor([[torch.nan]]))

    rows = Regression().rows(outcome, Batch(*outcome[2:4]), {"sizes": {"output_size": 1}})

    assert rows == [{"prediction": 2.5, "target": None}]


@pytest.mark.parametrize("entry", ["x", True, [1.0, 2.0, 3.0], {"u": 1.0}, [1.0, None]])
def test_invalid_numbers_are_reported_with_their_row(entry):
    known = {"sizes": {"output_size": 2}, "targets": ["u", "v"]}

    with pytest.raises(DataError, match=r"Row 1: got prediction .*, expected 2 numbers: u, v"):
        Regression().read([{"prediction": entry, "target": [1.0, 2.0]}], known)


def test_regression_draws_a_picture_per_target():
    pytest.importorskip("matplotlib")
    values = torch.rand(8, 2)
    known = {"sizes": {"output_size": 2}, "targets": ["u", "v"]}

    pictures = Regression().pictures(outcome_of(values, values), Batch(values, values), known)

    assert list(pictures) == ["predicted and true, u", "predicted and true, v"]


def test_a_linear_layer_is_a_valid_model():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.output = nn.Linear(1, 1)

        def forward(self, x, state=None, lengths=None):
            return self.output(x.mean(1)), None

    batch = Batch(torch.rand(3, 4, 1), torch.rand(3, 1))

    rows = list(predict(Mean(), Regression(), [batch], {"sizes": {"output_size": 1}}))

    targets = [row["target"] for row in rows]
    assert targets == pytest.approx(batch.y[:, 0].tolist())
