"""`import seqnets` loads torch and nothing heavier."""

import pkgutil
import subprocess
import sys
from functools import cache

import pytest

import seqnets

HEAVY = ["lightning", "hydra", "omegaconf", "torchmetrics", "tensorboard", "matplotlib", "rich"]
HEAVY += ["keras", "jax", "flax", "onnx", "onnxruntime"]


@cache
def loaded_by(statement):
    script = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_seqnets_loads_neither_lightning_nor_hydra_nor_other_heavy_things():
    assert not loaded_by("import seqnets") & (set(HEAVY) - loaded_by("import torch"))


def test_models_laws_benchmarks_and_conversion_need_only_torch():
    parts = "seqnets.models, seqnets.testing, seqnets.benchmarking, seqnets.conversion"

    assert not loaded_by(f"import {parts}") & (set(HEAVY) - loaded_by("import torch"))


def test_every_part_is_there_once_seqnets_is_imported():
    own = {"atomic", "checks", "cli", "configs", "optional", "__main__"}
    parts = {module.name for module in pkgutil.iter_modules(seqnets.__path__)} - own
    script = f"import seqnets; print(*(getattr(seqnets, p).__name__ for p in {sorted(parts)}))"

    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert said.stdout.split() == [f"seqnets.{part}" for part in sorted(parts)], said.stderr
    assert parts <= set(dir(seqnets))


@pytest.mark.parametrize(
    "call", ["seqnets.GRU(2, 3)", "seqnets.Recurrent(seqnets.cells.MGUCell(2, 3), backend='eager')"]
)
def test_a_first_call_loads_no_algebra_which_takes_longer_than_to_trace(call):
    call = f"import torch, seqnets; {call}(torch.zeros(4, 1, 2))[0].sum().backward()"

    assert not loaded_by(call) & ({"sympy", "networkx"} - loaded_by("import torch"))


def test_importing_all_of_seqnets_needs_only_torch():
    assert not loaded_by("from seqnets import *") & (set(HEAVY) - loaded_by("import torch"))


def test_training_needs_no_hydra():
    assert "hydra" not in loaded_by("import seqnets.training.callbacks")


@pytest.mark.parametrize(
    "arguments", [["completion", "query"], ["train", "model/cel=gru"]], ids=["tab", "mistyped"]
)
def test_completion_and_usage_errors_do_not_import_torch(arguments, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "seqnets train model/ce")

    loaded = loaded_by(f"from seqnets.cli.main import command; command({arguments})")

    assert "hydra" in loaded
    assert "torch" not in loaded
