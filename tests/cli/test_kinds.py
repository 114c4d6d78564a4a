"""An option's value is of the kind that its annotation asks for, or it is named."""

import math
import sys

import pytest
import torch

from seqnets.cli.build import build
from seqnets.errors import ConfigError

TEXT = "seqnets.datasets.TextFiles"
TAGGING = "seqnets.datasets.TaggingFiles"
PTB = "seqnets.datasets.PennTreebank"
TAGGER = "seqnets.models.SequenceTagger"


def make(target, **options):
    return build({"_target_": target, **options}, key="it")


@pytest.mark.parametrize(
    ("target", "option", "message"),
    [
        (TEXT, {"path": 2024}, "it.path: is 2024, expected text.\n  Quoted .* 'it.path=\"2024\"'"),
        (TEXT, {"path": "a", "batch_size": "x"}, "it.batch_size: is 'x', expected a whole number"),
        (TEXT, {"path": "a", "batch_size": 1.5}, "it.batch_size: is 1.5, expected a whole number"),
        (TEXT, {"path": "a", "batch_size": True}, "it.batch_size: is True, expected a whole num"),
        (TEXT, {"path": "a", "chunk_spread": "x"}, "it.chunk_spread: is 'x', expected a number"),
        (TEXT, {"path": "a", "chunk_spread": math.nan}, "it.chunk_spread: is nan, expected a num"),
        (TEXT, {"path": "a", "cache": [1]}, r"it.cache: is \[1\], expected text or null"),
        (TAGGING, {"path": "a", "lowercase": "no"}, "it.lowercase: is 'no', expected true or fal"),
        (TAGGING, {"path": "a", "lowercase": None}, "it.lowercase: is None, expected true or fal"),
        (
            TAGGING,
            {"path": "a", "leave_out": "time"},
            r"it.leave_out: is 'time', expected a list.*text.*\n.*it.leave_out=\[time\]",
        ),
        (
            TAGGING,
            {"path": "a", "leave_out": "[v [m/s]]"},
            r"no quotes around it: 'it.leave_out=\[v \[m/s\]\]'",
        ),
        (TAGGING, {"path": "a", "leave_out": [1]}, r"it.leave_out: is \[1\], expected a list"),
        (PTB, {"unit": "letters"}, "it.unit: is 'letters', expected characters or words"),
    ],
)
def test_a_value_of_another_kind_is_named_before_anything_is_made(target, option, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        make(target, **option)


@pytest.mark.parametrize(
    ("option", "value"),
    [("bidirectional", "yes"), ("hidden_size", "x"), ("dropout", True), ("cell_options", 3)],
)
def test_what_a_model_passes_on_to_its_encoder_is_looked_at_as_well(option, value):
    with pytest.raises(ConfigError, match=rf"it\.{option}: is {value!r}, expected"):
        build({"_target_": TAGGER, "_partial_": True, option: value}, key="it")


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("torch.optim.Adam", {"lr": 1, "betas": [0.9, 0.99], "foreach": None}),
        ("torch.optim.lr_scheduler.MultiStepLR", {"milestones": [1, 2]}),
        ("torch.nn.Conv2d", {"in_channels": 1, "out_channels": 2, "kernel_size": [3, 3]}),
        (TAGGER, {"hidden_size": [4, 5], "dropout": {"input": 0.5}, "embedding_size": None}),
        ("lightning.pytorch.Trainer", {"devices": [0, 1], "max_epochs": None, "precision": 32}),
    ],
)
def test_what_an_annotation_allows_passes(target, options):
    build({"_target_": target, "_partial_": True, **options})


LATER = ["from __future__ import annotations", *[""] * (sys.version_info >= (3, 14))]


@pytest.mark.parametrize("evaluated_later", LATER)
def test_where_an_annotation_names_other_classes_any_value_passes(evaluated_later, write_module):
    write_module(
        "own_kinds",
        evaluated_later,
        "from typing import TYPE_CHECKING",
        "if TYPE_CHECKING:",
        "    from decimal import Decimal",
        "class Own:",
        "    def __init__(self, a: Decimal, b, *rest, c: int | Decimal = 0, d: int = None):",
        "        self.given = a, b, c, d",
    )
    config = {"_target_": "own_kinds.Own", "a": "x", "b": [1], "c": "y", "d": None}

    assert build(config, ["own_kinds"]).given == ("x", [1], "y", None)
    with pytest.raises(ConfigError, match="d: is 'z', expected a whole number"):
        build({**config, "d": "z"}, ["own_kinds"])


def test_a_named_tuple_takes_its_fields(write_module):
    fields = ["from typing import NamedTuple", "class Own(NamedTuple):", "    a: int"]
    write_module("own_fields", *fields)

    assert build({"_target_": "own_fields.Own", "a": 3}, ["own_fields"]).a == 3


def test_what_is_itself_made_is_not_judged_as_a_mapping():
    made = make(
        TAGGER,
        cell={"_target_": "seqnets.cells.GRUCell", "_partial_": True},
        num_classes=2,
        input_size=3,
        output={"_target_": "torch.nn.Linear", "_partial_": True},
    )

    assert made(torch.zeros(1, 2, 3))[0].shape == (1, 2, 2)
