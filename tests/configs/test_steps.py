"""Every configuration file, found automatically, builds and takes a training step."""

from __future__ import annotations

import copy
import json
from itertools import islice

import pytest
import torch
from omegaconf import ListConfig, OmegaConf

from seqnets.cli.assemble import make_data, make_module
from seqnets.cli.options import plain
from seqnets.training.predict import predict
from seqnets.training.scores import scores_of_parts
from tests.configs.stand_ins import STAND_INS
from tests.configs.test_configs import CONFIGS, compose

SMALL = {
    "model": {"hidden_size": 16},
    "dataset": {"batch_size": 4, "chunk_length": 8, "train_size": 32, "test_size": 16},
}
"""What is made smaller where a configuration has such a number."""

VIDEO = ["dataset=moving_digits", "dataset.length=3"]
TOKENS = ["dataset=parity", "dataset.length=8"]

OF_DATASET = {
    "attention": "sort",
    "head": "forecasting",
    "output": "python_docs",
    "strategy": "forecasting",
}
"""The dataset whose model has parts of such a group, beside cells and their options."""

COUNTS = ["dataset.targets=[price]", "dataset.counts=true", "model.normalization=mean"]
ALSO = {"head=negative_binomial": COUNTS}
"""What a part needs beside itself."""


def options(group):
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


PARTS_OF_MODELS = [
    f"{folder.name}={name}"
    for folder in sorted((CONFIGS / "model").glob("*/"))
    if folder.name not in ("cell", "option")
    for name in options(f"model/{folder.name}")
]


def dataset_of(experiment):
    """The dataset that an experiment is about; that of train.yaml if it does not say."""
    entries = OmegaConf.load(CONFIGS / "experiment" / f"{experiment}.yaml").get("defaults", [])
    own = [entry["override /dataset"] for entry in entries if "override /dataset" in entry]
    return own[0] if own else "python_docs"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What to override so that a dataset reads tiny files; those are written once."""
    written = {}

    def find(dataset):
        if dataset in STAND_INS and dataset not in written:
            written[dataset] = STAND_INS[dataset](tmp_path_factory.mktemp(dataset))
        return written.get(dataset, [])

    return find


def small(*overrides):
    """A plain configuration with little of everything."""
    config = copy.deepcopy(compose(*overrides))
    for group, numbers in SMALL.items():
        for name, number in numbers.items():
            if isinstance(config[group].get(name), int):
                config[group][name] = number
    widths = config.model.get("hidden_size")
    if isinstance(widths, ListConfig):
        config.model.hidden_size = [SMALL["model"]["hidden_size"]] * len(widths)
    if config.model.get("tie_weights"):
        config.model.embedding_size = SMALL["model"]["hidden_size"]
    if "backend" in config.model:
        config.model.backend = "reference"  # nothing is compiled
    return plain(config)


def step(config):
    """Take one optimizer step on the first batch; dataset and module, and whether all is well."""
    torch.manual_seed(0)
    data = make_data(config, [])
    module = make_module(config, data.describe(), [])
    optimizer = module.optimizer_factory(module.model.parameters())
    before = [parameter.detach().clone() for parameter in module.model.parameters()]
    loss = module.objective(module.model, next(iter(data.loader("train")))).loss
    loss.backward()
    optimizer.step()

    assert torch.isfinite(loss)
    after = list(module.model.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    return data, module


@pytest.mark.parametrize("dataset", options("dataset"))
def test_a_dataset_trains_its_model_whose_predictions_score_the_same(dataset, files):
    data, module = step(small(f"dataset={dataset}", *files(dataset)))
    objective, known = module.objective, json.loads(json.dumps(data.describe()))
    batches = list(islice(data.loader("test").in_order(), 3))
    tested, state = scores_of_parts(objective, known)["test"], None
    module.model.eval()
    for batch in batches:
        with torch.no_grad():
            outcome = objective(module.model, batch, state if batch.carry else None)
        state = outcome.state
        tested.update(outcome)
    rows = predict(module.model, objective, batches, known)
    written = [json.loads(json.dumps(row, allow_nan=False)) for row in rows]
    scores = objective.scores([row for row in written if row["target"] is not None], known)

    figures = tested.take()
    names = {*objective.metrics(known), objective.metric}
    assert written
    assert objective.metric in scores
    for name in names:
        assert scores[name] == pytest.approx(float(figures[name]), rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("dataset", options("dataset"))
@pytest.mark.parametrize("count", [0, 1])
def test_the_number_of_samples_shown_is_an_option(dataset, count, files):
    data = make_data(small(f"dataset={dataset}", *files(dataset)), [])

    assert len(data.examples("train", count)) == count


@pytest.mark.parametrize("dataset", options("dataset"))
def test_a_dataset_can_be_inspected(dataset, files):
    data = make_data(small(f"dataset={dataset}", *files(dataset)), [])

    samples = data.examples("train", 2)
    assert samples
    assert all(isinstance(text, str) for sample in samples for text in sample.values())
    assert 0 <= data.loader("train").padding < 1
    for part, count in data.counts().items():
        lengths = data.lengths(part)
        assert lengths is None or len(lengths) == count


@pytest.mark.parametrize("dataset", options("dataset"))
def test_the_training_part_is_reproducibly_ordered(dataset, files):
    data = make_data(small(f"dataset={dataset}", *files(dataset)), [])
    first, again = data.loader("train").in_order(), data.loader("train").in_order()
    again.set_epoch(1)

    for one, other in islice(zip(first, again, strict=True), 3):
        assert torch.equal(one.x, other.x)


@pytest.mark.parametrize("experiment", options("experiment"))
def test_an_experiment_takes_a_step(experiment, files):
    step(small(f"experiment={experiment}", *files(dataset_of(experiment))))


@pytest.mark.parametrize("group", ["model", "objective"])
def test_every_part_is_covered_by_a_dataset_or_experiment(group):
    brought = {
        value
        for file in [*CONFIGS.glob("dataset/*.yaml"), *CONFIGS.glob("experiment/*.yaml")]
        for entry in OmegaConf.load(file).get("defaults", [])
        for key, value in entry.items()
        if key.removeprefix("override /").partition("@")[0] == group
    }

    assert set(options(group)) <= brought


@pytest.mark.parametrize("option", PARTS_OF_MODELS)
def test_a_part_of_a_model_takes_a_step(option, files):
    group, _, name = option.partition("=")
    dataset = OF_DATASET[group]

    also = ALSO.get(option, [])
    step(small(f"dataset={dataset}", *files(dataset), f"model/{group}={name}", *also))


@pytest.mark.parametrize("cell", options("model/cell"))
def test_a_cell_takes_a_step(cell):
    step(small(*(VIDEO if "conv" in cell else TOKENS), f"model/cell={cell}"))


@pytest.mark.parametrize("option", options("model/option"))
def test_an_option_of_cells_takes_a_step(option):
    step(small(*TOKENS, f"model/option=[{option}]"))


@pytest.mark.parametrize("augmentation", options("dataset/augment"))
def test_an_augmentation_takes_a_step(augmentation):
    step(small("dataset=digits", f"dataset/augment=[{augmentation}]"))


@pytest.mark.parametrize("optimizer", options("optimizer"))
def test_an_optimizer_takes_a_step(optimizer):
    step(small(*TOKENS, f"optimizer={optimizer}"))


@pytest.mark.parametrize("rule", options("learning"))
def test_a_rule_of_learning_takes_a_step(rule):
    step(small(*TOKENS, "model/cell=gru", "model.hidden_size=4", f"learning={rule}"))


@pytest.mark.parametrize("scheduler", options("scheduler"))
def test_a_scheduler_takes_a_step(scheduler):
    step(small(*TOKENS, f"scheduler={scheduler}"))
