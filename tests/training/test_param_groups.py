"""Options of the optimizer for some parameters."""

import csv
from functools import partial

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, OneCycleLR

from seqnets.cells import GRUCell
from seqnets.errors import CheckpointError, ConfigError
from seqnets.models import SequenceClassifier
from seqnets.training import Classification, Cosine, SequenceModule
from seqnets.training.callbacks import Monitor
from seqnets.training.param_groups import rates_by_name
from seqnets.training.retuning import retune_optimizer

from .runs import fit, parity_data

GROUPS = {
    "biases": {"params": "*bias*", "weight_decay": 0.0},
    "slow": {"params": ["*.weight_hh", "output.*"], "lr": 1e-3},
}


def module_with(groups, scheduler=None):
    optimizer = partial(AdamW, lr=1e-2, weight_decay=0.1)

    def make(data):
        model = SequenceClassifier(GRUCell, **data.sizes, hidden_size=8)
        known = data.describe()
        return SequenceModule(model, Classification(), known, optimizer, scheduler, groups)

    return make


def optimizer_of(module):
    found = module.configure_optimizers()
    return found if isinstance(found, torch.optim.Optimizer) else found[0][0]


def test_a_parameter_has_the_options_of_the_first_group_that_matches_its_name():
    module = module_with(GROUPS)(parity_data())
    optimizer = optimizer_of(module)

    names = {parameter: name for name, parameter in module.model.named_parameters()}
    found = {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found.keys() == set(names.values())
    for name, options in found.items():
        if "bias" in name:
            assert options == (1e-2, 0.0)
        else:
            slow = name.endswith("weight_hh") or name.startswith("output.")
            assert options == (1e-3 if slow else 1e-2, 0.1)


def test_all_parameters_may_be_in_groups():
    (group,) = optimizer_of(
        module_with({"all": {"params": "*", "lr": 0.5}})(parity_data())
    ).param_groups
    assert group["lr"] == 0.5


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            {"slow": {"params": "*weight_hx"}},
            r"slow: '\*weight_hx' matches no .* expected one of en",
        ),
        ({"a": {"params": "*"}, "b": {"params": "*bias*"}}, "b: .* none: all are in groups"),
        ({"slow": {"params": "*bias*", "momentum": 0}}, "slow: has momentum, expected .*AdamW: am"),
        ({"slow": {"lr": 1.0}}, "slow: is {'lr': 1.0}, expected params, a pattern or several"),
        ({"slow": ["*bias*"]}, "slow: is .*, expected params"),
        ({"slow": {"params": [], "lr": 1.0}}, "slow: is .*, expected params"),
        ({"slow": {"params": [1]}}, "slow: is .*, expected params"),
        (["*bias*"], "param_groups: is .*, expected groups by name"),
    ],
)
def test_a_group_that_makes_no_sense_is_refused(groups, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        module_with(groups)(parity_data()).configure_optimizers()


def test_a_schedule_scales_the_rate_of_each_group(tmp_path):
    logger, monitor = CSVLogger(tmp_path, name="", version=""), Monitor(0)
    make = module_with(GROUPS, scheduler=Cosine)
    fit(make, parity_data(), tmp_path, monitor, logger=logger, max_epochs=1)

    with (tmp_path / "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row["learning_rate"]]
    rates, slow = (
        [float(row[name]) for row in logged] for name in ("learning_rate", "learning_rate/slow")
    )
    assert len(set(rates)) > 3
    assert slow == pytest.approx([rate / 10 for rate in rates])
    assert "learning_rate/biases" not in logged[0]  # the same


@pytest.mark.parametrize(
    ("groups", "option"),
    [
        (GROUPS, "lr"),
        ({"all": {"params": "*", "lr": 1e-4}}, "lr"),
        ({"biases": {"params": "*bias*", "betas": [0.5, 0.6]}}, "betas"),
    ],
)
def test_a_schedule_that_sets_what_groups_have_of_their_own_is_refused(groups, option, tmp_path):
    cycle = partial(OneCycleLR, max_lr=0.1)
    with pytest.raises(ConfigError, match=f"OneCycleLR sets {option} for all parameters, expected"):
        fit(module_with(groups, scheduler=cycle), parity_data(), tmp_path, max_epochs=1)


def test_a_schedule_may_set_rates_group_by_group(tmp_path):
    each = partial(OneCycleLR, max_lr=[0.1, 0.1, 0.01])
    running, _ = fit(module_with(GROUPS, scheduler=each), parity_data(), tmp_path, max_epochs=1)
    first, _, slow = running.optimizers[0].param_groups
    assert first["lr"] == pytest.approx(10 * slow["lr"])


def test_a_groups_rate_is_logged_to_the_end_though_rates_meet():
    optimizer = SGD([{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr": 0.1}], lr=1.0)
    CosineAnnealingLR(optimizer, T_max=2)
    for group in optimizer.param_groups:
        group["lr"] = 0.0

    assert dict(rates_by_name(optimizer)) == {"learning_rate": 0.0, "learning_rate/1": 0.0}


def test_a_run_with_groups_resumes_with_the_same_weights(tmp_path):
    make = module_with(GROUPS, scheduler=partial(ExponentialLR, gamma=0.5))
    _, whole = fit(make, parity_data(), tmp_path / "whole", max_epochs=2)

    fit(make, parity_data(), tmp_path / "cut", max_epochs=2, max_steps=4)
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    running, cut = fit(make, parity_data(), tmp_path / "cut", max_epochs=2, resume=last)

    assert running.global_step == 10
    weights = cut.state_dict()
    assert all(torch.equal(part, weights[name]) for name, part in whole.state_dict().items())


def test_a_run_whose_groups_have_other_parameters_does_not_resume(tmp_path):
    fit(module_with(GROUPS), parity_data(), tmp_path, max_epochs=1)
    last = tmp_path / "checkpoints" / "last.ckpt"

    other = {**GROUPS, "slow": {"params": "*.weight_ih", "lr": 1e-3}}
    for groups, message in (
        (other, "slow: .*weight_hh, output.weight(?s:.*)expected .*slow: .*weight_ih$"),
        ({}, "expected none$"),
    ):
        with pytest.raises(CheckpointError, match=f"(?m){message}"):
            fit(module_with(groups), parity_data(), tmp_path, resume=last, max_epochs=2)


def test_options_that_change_on_resume_are_those_of_their_group():
    made = [{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr": 0.1}]
    optimizer = SGD(made, lr=1.0)
    schedule = ExponentialLR(optimizer, gamma=0.5)
    for _ in range(2):
        optimizer.step()
        schedule.step()

    kept = {"lr": 1.0}
    slower = {"lr": 0.1}, {"lr": 0.02, "weight_decay": 0.5}
    retune_optimizer(optimizer, schedule, [(kept, kept), slower])

    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.25, 0.005])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0, 0.5]
    assert schedule.base_lrs == pytest.approx([1.0, 0.02])
