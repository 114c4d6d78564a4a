"""`import seqnets` is for who writes PyTorch code: it brings torch and nothing heavy."""

import subprocess
import sys

import pytest

HEAVY = ["lightning", "hydra", "omegaconf", "torchmetrics", "tensorboard", "matplotlib", "rich"]
HEAVY += ["keras", "jax", "flax", "onnx", "onnxruntime"]


def loaded_by(statement):
    script = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_seqnets_loads_neither_lightning_nor_hydra_nor_other_heavy_things():
    assert not loaded_by("import seqnets") & (set(HEAVY) - loaded_by("import torch"))


@pytest.mark.parametrize(
    "part",
    ["seqnets.models", "seqnets.testing", "seqnets.benchmarking", "seqnets.conversion"],
)
def test_models_laws_benchmarks_and_conversion_need_no_more_than_torch(part):
    assert not loaded_by(f"import {part}") & (set(HEAVY) - loaded_by("import torch"))


def test_training_needs_no_hydra():
    assert "hydra" not in loaded_by("import seqnets.training.callbacks")
