"""`import seqnets` loads torch and nothing heavier."""

import pkgutil
import subprocess
import sys
from functools import cache

import pytest

import seqnets

HEAVY = ["lightning", "hydra", "omegaconf", "torchmetrics", "tensorboard", "matplotlib", "rich"]
HEAVY += ["keras", "jax", "flax", "onnx", "onnxruntime", "onnxscript"]


def loaded_by(*statements):
    """The packages that are loaded after each of some statements, which one process runs."""
    script = "; ".join(["import sys", *(f"{s}; print(*sys.modules)" for s in statements)])
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return [{name.split(".")[0] for name in line.split()} for line in done.stdout.splitlines()]


@cache
def loaded_in_turn():
    """What torch loads, then seqnets, then all parts that need only torch, then first calls."""
    parts = "seqnets.models, seqnets.testing, seqnets.benchmarking, seqnets.conversion"
    cell = "seqnets.cells.MGUCell(2, 3)"
    layers = ["seqnets.GRU(2, 3)", f"seqnets.Recurrent({cell}, backend='eager')"]
    calls = [f"{layer}(torch.zeros(4, 1, 2))[0].sum().backward()" for layer in layers]
    return loaded_by(
        "import torch", "import seqnets", f"from seqnets import *; import {parts}", "; ".join(calls)
    )


def test_importing_seqnets_loads_neither_lightning_nor_hydra_nor_other_heavy_things():
    by_torch, loaded, *_ = loaded_in_turn()

    assert not loaded & (set(HEAVY) - by_torch)


def test_every_part_is_there_once_seqnets_is_imported_and_needs_no_hydra():
    own = {"__main__", "alignment", "atomic", "checks", "cli", "configs"}
    own |= {"optional", "quoting", "signals", "signatures", "warn"}
    parts = {module.name for module in pkgutil.iter_modules(seqnets.__path__)} - own
    script = f"import seqnets, sys; all = [getattr(seqnets, p).__name__ for p in {sorted(parts)}]"
    script += "; import seqnets.training.callbacks"

    said = subprocess.run(
        [sys.executable, "-c", f"{script}; print(*all, 'hydra' in sys.modules)"],
        capture_output=True,
        text=True,
        check=False,
    )

    *found, hydra = said.stdout.split() or [said.stderr]
    assert found == [f"seqnets.{part}" for part in sorted(parts)], said.stderr
    assert hydra == "False", "training from Python needs no Hydra"
    assert parts <= set(dir(seqnets))


def test_a_first_call_loads_no_algebra_which_takes_longer_than_to_trace():
    by_torch, *_, loaded = loaded_in_turn()

    assert not loaded & ({"sympy", "networkx"} - by_torch)


def test_all_of_seqnets_models_laws_benchmarks_and_conversion_need_only_torch():
    by_torch, _, loaded, _ = loaded_in_turn()

    assert not loaded & (set(HEAVY) - by_torch)


@pytest.mark.parametrize(
    "arguments", [["completion", "query"], ["train", "model/cel=gru"]], ids=["tab", "mistyped"]
)
def test_completion_and_usage_errors_do_not_import_torch(arguments, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "seqnets train model/ce")

    *_, loaded = loaded_by(f"from seqnets.cli.main import command; command({arguments})")

    assert "hydra" in loaded
    assert "torch" not in loaded
