"""Measure who runs a cell that is linear in its state fastest: minGRU, a training step.

python scripts/measure_linear.py    # writes benchmarks/results/linear.json
"""

import json
from functools import partial
from pathlib import Path

import torch

from seqnets import GatedCell
from seqnets.benchmarking.surroundings import commit, machine, versions
from seqnets.benchmarking.timer import race
from seqnets.engine import unroll

RESULT = Path(__file__).parent.parent / "benchmarks" / "results" / "linear.json"
SIZES = [
    (1, 512, 256), (1, 4096, 64), (1, 4096, 256), (4, 512, 64), (16, 128, 128), (32, 128, 256),
]  # fmt: skip


class MinGRUCell(GatedCell):
    """Feng et al., 2024, "Were RNNs All We Needed?": its recurrent weights are not used."""

    gates = ("z", "h")

    def step(self, wx, state):
        """A gate and a candidate that see the input alone."""
        (h,) = state
        w = self.split(wx)
        return (h + torch.sigmoid(w.z) * (w.h - h),)


def main() -> None:
    """Print and write milliseconds."""
    rows = []
    for B, T, H in SIZES:
        cell, grad = MinGRUCell(H, H), torch.randn(B, T, H)
        x = torch.randn(B, T, H, requires_grad=True)
        wanted = [x, cell.weight_ih, cell.bias_ih]

        def step(backend: str, cell=cell, x=x, wanted=wanted, grad=grad) -> None:
            torch.autograd.grad(unroll(cell, x, backend=backend)[0], wanted, grad)

        runs = {name: partial(step, name) for name in ("c", "scan", "eager")}
        times = race(runs, 2.0, torch.device("cpu"))
        rows.append({"B": B, "T": T, "H": H} | {k: round(t.median, 3) for k, t in times.items()})
        print(rows[-1])
    whole = {"ms": rows, "machine": machine(), "versions": versions(), "commit": commit()}
    RESULT.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
