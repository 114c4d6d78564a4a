import itertools
import math

import numpy as np
import pytest
import torch
from torchmetrics.functional import symmetric_mean_absolute_percentage_error

from seqnets.cells import GRUCell
from seqnets.datasets import SeriesTable
from seqnets.errors import ConfigError, DataError
from seqnets.models import (
    Direct,
    EncoderDecoder,
    Forecaster,
    GaussianHead,
    NegativeBinomialHead,
    Parallel,
    QuantileHead,
    Recursive,
    SequenceTagger,
)
from seqnets.training import Forecasting
from seqnets.training.scores import scores_of_parts
from seqnets.typing import Batch

KNOWN = {
    "sizes": {"input_size": 3, "output_size": 2, "horizon": 4},
    "columns": ["a", "b", "c"],
    "scaling": {"mean": [10.0, 0.0, 0.0], "deviation": [2.0, 1.0, 1.0]},
    "lookback": 6,
}
LEVELS = [0.1, 0.5, 0.9]


def said(head=None, targets=None):
    """What an objective finds in a batch of three windows, and the batch."""
    options = {} if head is None else {"head": head}
    model = Forecaster(GRUCell, 3, 2, 4, hidden_size=5, **options)
    y = torch.randn(3, 4, 2) if targets is None else targets
    batch = Batch(torch.randn(3, 6, 3), y)
    objective = Forecasting(model.output.quantiles)
    return objective, objective(model, batch), batch


def quantile_head():
    return QuantileHead(LEVELS)


def test_the_loss_is_the_mean_over_what_is_scored():
    _, outcome, batch = said()
    median = outcome.predictions[..., 0]

    assert outcome.predictions.shape == (3, 4, 2, 1)
    assert outcome.scored == 24
    torch.testing.assert_close(outcome.loss, (median - batch.y).square().mean())


def test_targets_that_are_missing_count_nowhere():
    y = torch.randn(3, 4, 2)
    y[0, 1, 1] = y[2] = math.nan
    objective, outcome, _ = said(quantile_head, y)
    there = ~y.isnan()
    median = outcome.predictions[..., 1]
    scores = {
        name: metric(outcome.predictions, y) for name, metric in objective.metrics(KNOWN).items()
    }

    assert outcome.scored == 15
    assert outcome.loss.isfinite()
    torch.testing.assert_close(scores["mse"], (median - y)[there].square().mean())
    torch.testing.assert_close(scores["mae"], (median - y)[there].abs().mean())


def test_quantiles_are_scored_as_plain_floats_say():
    predictions = torch.tensor([[[-1.0, 0.0, 1.0]], [[0.0, 0.5, 1.0]]])
    targets = torch.tensor([[0.5], [3.0]])
    loss = [
        max(q * (y - s), (q - 1) * (y - s))
        for y, row in ((0.5, (-1.0, 0.0, 1.0)), (3.0, (0.0, 0.5, 1.0)))
        for q, s in zip(LEVELS, row, strict=True)
    ]
    metrics = Forecasting(LEVELS).metrics(KNOWN)

    assert metrics["pinball"](predictions, targets).item() == pytest.approx(sum(loss) / 6)
    assert metrics["coverage"](predictions, targets).item() == 0.5


@pytest.mark.parametrize("head", [None, quantile_head])
def test_symmetric_errors_are_those_of_the_datas_units(head):
    y = torch.randn(3, 4, 2)
    y[0, 1, 1] = y[2] = math.nan
    objective, outcome, _ = said(head, y)
    median = outcome.predictions[..., objective.quantiles.index(0.5)]
    units, there = torch.tensor([2.0, 1.0]), ~y.isnan()
    own = [(torch.tensor([10.0, 0.0]) + units * values)[there] for values in (median, y)]
    metric = objective.metrics(KNOWN)["smape"]

    torch.testing.assert_close(
        metric(outcome.predictions, y), symmetric_mean_absolute_percentage_error(*own)
    )
    assert metric.higher_is_better is False


def test_zero_that_is_forecast_as_zero_is_no_symmetric_error():
    metric = Forecasting().metrics({**KNOWN, "scaling": {"mean": [0.0], "deviation": [1.0]}})

    assert metric["smape"](torch.zeros(2, 1, 1, 1), torch.tensor([[[0.0]], [[3.0]]])) == 1
    assert metric["smape"](torch.full((1, 1, 1, 1), math.nan), torch.zeros(1, 1, 1)).isnan()


def test_no_symmetric_error_exceeds_two_where_the_sizes_are_rounded_to_less_than_the_error():
    mean, deviation = 10 * torch.rand(2, 99, generator=torch.Generator().manual_seed(0))
    scaling = {"mean": mean.tolist(), "deviation": deviation.tolist()}
    metric = Forecasting().metrics({"sizes": {"output_size": 99}, "scaling": scaling})["smape"]
    zero = -mean / deviation
    nearly = zero.nextafter(zero + 1)  # their sizes may be 0

    assert 1 < metric(nearly[:, None], zero) <= 2


NAIVE = {**KNOWN, "naive_errors": {"x": [0.5, 2.0], "y": [0.25, 0.0], "z": [math.nan, 1.0]}}


@pytest.mark.parametrize("head", [None, quantile_head])
def test_scaled_errors_are_over_those_of_a_naive_forecast_of_their_series(head):
    y = torch.randn(3, 4, 2)
    y[0, 1, 1] = math.nan
    objective, _, batch = said(head, y)
    scales = torch.tensor([*NAIVE["naive_errors"].values()])
    model = Forecaster(GRUCell, 3, 2, 4, **({} if head is None else {"head": head}))
    outcome = objective(model, batch._replace(scales=scales))
    missed = (outcome.predictions[..., objective.quantiles.index(0.5)] - y).abs()
    expected = [
        float(missed[w, h, k] / scales[w, k])
        for w, h, k in itertools.product(range(3), range(4), range(2))
        if scales[w, k] > 0 and not y[w, h, k].isnan()
    ]
    found = scores_of_parts(objective, NAIVE)["test"]
    found.update(outcome)
    rows = objective.rows(outcome, batch, NAIVE)
    named = [{"id": name, **row} for name, row in zip("xyz", rows, strict=True)]

    assert len(expected) == 4 + 3 + 4 + 4
    assert found.take()["mase"] == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert objective.scores(named, NAIVE)["mase"] == pytest.approx(
        sum(expected) / len(expected), rel=1e-3
    )
    assert found.modes["mase"] == "min"


def test_an_objective_of_ones_own_may_leave_scales_out():
    objective, outcome, _ = said()
    scores = scores_of_parts(objective, NAIVE)["val"]
    scores.update(outcome)

    assert outcome.scales is None
    found = scores.take()
    assert math.isnan(found["mase"])
    assert found["mse"] > 0


def test_rows_of_series_that_the_training_had_not_have_no_scaled_error():
    objective, outcome, batch = said()
    rows = [{"id": "new", **row} for row in objective.rows(outcome, batch, NAIVE)]

    assert math.isnan(objective.scores(rows, NAIVE)["mase"])
    assert objective.scores(rows, {**KNOWN, "naive_errors": {"": [1.0, 1.0]}})["mase"] > 0


@pytest.mark.parametrize("naive", [{}, {"naive_errors": {"x": [0.0, math.nan]}}])
def test_series_that_never_change_have_no_scaled_error(naive):
    assert "mase" not in Forecasting().metrics({**KNOWN, **naive})


def test_data_without_a_scaling_have_no_symmetric_error():
    assert Forecasting().metrics({"sizes": KNOWN["sizes"]}).keys() == {"mse", "mae"}


def test_a_metric_of_two_batches_is_that_of_all():
    metric = Forecasting().metrics(KNOWN)["mse"]
    metric.update(torch.zeros(3, 1), torch.ones(3))
    metric.update(torch.zeros(1, 1), torch.tensor([3.0]))

    assert metric.compute() == 3


@pytest.mark.parametrize("head", [None, quantile_head, lambda: GaussianHead([0.05, 0.5, 0.95])])
def test_rows_are_written_in_the_datas_units_and_read_back(head):
    y = torch.randn(3, 4, 2)
    y[1, 2, 0] = math.nan
    objective, outcome, batch = said(head, y)
    rows = objective.rows(outcome, batch, KNOWN)
    predictions, targets = objective.read(rows, KNOWN)

    assert rows[0]["target"]["a"] == pytest.approx((10 + 2 * y[0, :, 0]).tolist(), rel=1e-5)
    assert rows[1]["target"]["a"][2] is None
    assert ("quantiles" in rows[0]) == (head is not None)
    torch.testing.assert_close(predictions, outcome.predictions, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(targets, y, equal_nan=True, atol=1e-5, rtol=1e-5)
    assert objective.scores(rows, KNOWN)["mse"] == pytest.approx(
        objective.metrics(KNOWN)["mse"](outcome.predictions, y).item(), rel=1e-4
    )


def test_rows_of_new_data_have_no_target():
    objective, outcome, batch = said(targets=torch.full((3, 4, 2), math.nan))

    assert [row["target"] for row in objective.rows(outcome, batch, KNOWN)] == [None] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantiles": {"0.5": {}}}, "Row 2: quantile 0.1 is missing"),
        ({"quantiles": None}, "Row 2: quantile 0.1 is missing"),
        ({"target": {"a": [1, 2, 3, 4]}}, "Row 2: column b has no list of 4 numbers"),
        ({"target": {"a": [1, 2, 3], "b": [1, 2, 3, 4]}}, "Row 2: column a has no list of 4"),
        ({"target": {"a": [1, 2, 3, "x"], "b": [1, 2, 3, 4]}}, "Row 2: column a has no list"),
    ],
)
def test_a_malformed_row_is_refused_with_its_number(change, message):
    objective, outcome, batch = said(quantile_head)
    rows = objective.rows(outcome, batch, KNOWN)
    rows[1] = {**rows[1], **change}

    with pytest.raises(DataError, match=message):
        objective.read(rows, KNOWN)


def test_a_picture_is_drawn_of_few_windows():
    pytest.importorskip("matplotlib")
    objective, outcome, batch = said(quantile_head)
    figure = objective.pictures(outcome, batch, KNOWN)["forecast"]

    assert [axis.get_ylabel() for axis in figure.axes] == ["a", "", "", "b", "", ""]
    assert "80% interval" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_model_without_such_a_head_is_refused():
    model, batch = SequenceTagger(GRUCell, 2, input_size=3), Batch(torch.zeros(1, 6, 3), None)

    with pytest.raises(ConfigError, match="the model's head is Linear"):
        Forecasting()(model, batch)


def test_quantiles_that_are_not_the_heads_are_refused():
    model = Forecaster(GRUCell, 3, 2, 4, head=quantile_head)

    with pytest.raises(ConfigError, match=r"with quantiles \[0.1, 0.5, 0.9\], expected"):
        Forecasting()(model, Batch(torch.zeros(1, 6, 3), torch.zeros(1, 4, 2)))


@pytest.mark.parametrize("quantiles", [0.5, "0.5", [0.9, 0.5]])
def test_quantiles_that_are_no_list_of_rising_levels_are_refused(quantiles):
    with pytest.raises(ConfigError, match=r"^Forecasting: quantiles is .*, expected rising numb"):
        Forecasting(quantiles)
    with pytest.raises(ConfigError, match=r"^QuantileHead: quantiles is .*, expected rising numb"):
        QuantileHead(quantiles)


def test_quantiles_without_a_median_are_refused():
    with pytest.raises(ConfigError, match=r"quantiles is \[0.1\], expected 0.5"):
        Forecasting([0.1])


def test_targets_of_another_horizon_are_refused():
    model = Forecaster(GRUCell, 3, 2, 4)

    with pytest.raises(DataError, match=r"targets have shape \(1, 5, 2\), expected \(1, 4, 2\)"):
        Forecasting()(model, Batch(torch.zeros(1, 6, 3), torch.zeros(1, 5, 2)))


class Deaf(Forecaster):
    """A model of one's own that takes nothing ahead."""

    def features(self, x, state=None, lengths=None):
        return super().features(x, state, lengths)


def test_a_model_that_takes_nothing_ahead_is_refused_before_training_if_something_is(tmp_path):
    path = tmp_path / "shop.csv"
    path.write_text("\n".join(["sales,event", *(f"{n % 5},{n % 7}" for n in range(99))]))
    known, none = (
        SeriesTable(str(path), lookback=8, horizon=4, targets=["sales"], known_ahead=columns)
        for columns in (["event"], [])
    )
    deaf = Deaf(GRUCell, 2, 1, 4, segment=2, hidden_size=4)

    with pytest.raises(ConfigError, match="takes no argument ahead, expected one for 1 col"):
        Forecasting().check(deaf, known)
    Forecasting().check(deaf, none)
    Forecasting().check(Forecaster(GRUCell, **known.sizes, segment=2, hidden_size=4), known)


def test_counts_are_refused_before_training_if_the_data_are_standardised(tmp_path):
    path = tmp_path / "shop.csv"
    path.write_text("\n".join(["sales", *(f"{n % 5}" for n in range(99))]))
    counts, scaled = (
        SeriesTable(str(path), lookback=8, horizon=4, counts=counts) for counts in (True, False)
    )
    model = Forecaster(
        GRUCell, **counts.sizes, head=NegativeBinomialHead, normalization="mean", hidden_size=4
    )
    objective = Forecasting(model.output.quantiles)

    with pytest.raises(ConfigError, match=r"standardised, expected counts for NegativeBinomialHe"):
        objective.check(model, scaled)
    objective.check(model, counts)


def test_the_distribution_of_counts_is_learned(tmp_path):
    random = np.random.default_rng(0)
    means = 3 + 2 * np.sin(np.arange(1500))
    counts = random.negative_binomial(2, 2 / (2 + means))  # a dispersion of 1 / 2
    path = tmp_path / "shop.csv"
    path.write_text("\n".join(["sales", *map(str, counts)]))
    torch.manual_seed(0)
    data = SeriesTable(str(path), lookback=16, horizon=2, batch_size=64, counts=True)
    model = Forecaster(
        *(GRUCell, *list(data.sizes.values())[:3]),
        head=NegativeBinomialHead,
        normalization="mean",
        hidden_size=16,
    )
    objective = Forecasting(model.output.quantiles)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(8):
        for batch in data.loader("train"):
            optimizer.zero_grad()
            objective(model, batch).total.backward()
            optimizer.step()
    scores = scores_of_parts(objective, data.describe())["test"]
    model.eval()
    with torch.no_grad():
        for batch in data.loader("test"):
            scores.update(objective(model, batch))
            _, dispersion = model.features(batch.x)[0].unbind(-1)

    found = scores.take()

    assert found["loss"] < 2.3  # 2.15 by the true distribution, 2.39 by Poisson's of its means
    assert 0.85 < found["coverage"] <= 1
    assert 0.25 < dispersion.exp().mean() < 1


def learned_error(path, known_ahead, strategy):
    """The mean squared error of a test part after a short training."""
    torch.manual_seed(0)
    data = SeriesTable(
        str(path), lookback=8, horizon=4, targets=["sales"], known_ahead=known_ahead, batch_size=32
    )
    model = Forecaster(
        GRUCell, **data.sizes, strategy=strategy, segment=2, hidden_size=16, normalization="none"
    )
    objective = Forecasting()
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    for _ in range(4):
        for batch in data.loader("train"):
            optimizer.zero_grad()
            objective(model, batch).total.backward()
            optimizer.step()
    score = objective.metrics(data.describe())["mse"]
    with torch.no_grad():
        for batch in data.loader("test"):
            outcome = objective(model, batch)
            score.update(outcome.predictions, outcome.targets)
    return float(score.compute())


@pytest.mark.parametrize("strategy", [Direct, Recursive, EncoderDecoder, Parallel])
def test_a_jump_is_forecast_if_its_event_is_known_ahead(strategy, tmp_path):
    events = (torch.rand(800, generator=torch.Generator().manual_seed(1)) < 0.3).tolist()
    lines = [f"{math.sin(n) + 3 * event},{int(event)}" for n, event in enumerate(events)]
    path = tmp_path / "shop.csv"
    path.write_text("\n".join(["sales,event", *lines]) + "\n")
    unknown = strategy if strategy is not Recursive else Direct  # which takes no columns beside

    error = learned_error(path, ["event"], strategy)

    assert error < 0.1 * learned_error(path, [], unknown)
