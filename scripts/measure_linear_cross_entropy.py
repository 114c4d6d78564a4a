"""Measure time and memory of a training step of an output layer and its loss.

    python scripts/measure_linear_cross_entropy.py

Compares a linear layer and cross entropy with FusedSoftmax, on the CPU, at the sizes of a model of
the Penn Treebank and of one with 32,000 byte pairs. The machine should be idle. Writes
benchmarks/results/linear_cross_entropy.json; ratios are FusedSoftmax divided by the other.
"""

import argparse
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets.benchmarking.memory import peak_memory
from seqnets.benchmarking.surroundings import write_results
from seqnets.benchmarking.timer import race
from seqnets.models import FusedSoftmax

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
SIZES = [(20, 35, 650, 10_000), (20, 128, 256, 32_000)]
SEPARATE, FUSED = "linear and cross-entropy", "fused"


def main() -> None:
    """Measure, print and write ms and MiB."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="for each size")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    args = parser.parse_args()
    device, rows = torch.device("cpu"), []
    for B, T, H, V in SIZES:
        torch.manual_seed(0)
        head, targets = FusedSoftmax(H, V), torch.randint(V, (B, T))
        y = torch.randn(B, T, H, requires_grad=True)
        losses = {SEPARATE: partial(separate, head), FUSED: head.loss}
        runs = {name: partial(step, loss, head, y, targets) for name, loss in losses.items()}
        for right, found in zip(*(run() for run in runs.values()), strict=True):
            allowed = 1e-4 * right.abs().max().item()  # check before timing
            torch.testing.assert_close(found, right, rtol=0, atol=allowed)
        times = race(runs, args.seconds, device)
        row = {"B": B, "T": T, "H": H, "V": V}
        row["ms"] = {name: round(took.median, 1) for name, took in times.items()}
        row["iqr"] = {name: round(took.iqr, 1) for name, took in times.items()}
        row["MiB"] = {name: round(peak_memory(run, device), 1) for name, run in runs.items()}
        for unit in ("ms", "MiB"):
            row[f"{unit} ratio"] = round(row[unit][FUSED] / row[unit][SEPARATE], 3)
        rows.append(row)
        print(row)
    results = {"threads": torch.get_num_threads(), "rows": rows}
    write_results(args.results / "linear_cross_entropy.json", results)


def separate(head: FusedSoftmax, y: Tensor, targets: Tensor) -> Tensor:
    """The loss from all logits."""
    return F.cross_entropy(head(y).flatten(0, 1), targets.flatten(), reduction="sum")


def step(loss, head: FusedSoftmax, y: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """The gradients of the mean loss."""
    return torch.autograd.grad(loss(y, targets) / targets.numel(), [y, *head.parameters()])


if __name__ == "__main__":
    main()
