"""Compare backends for a cell that is linear in its state: a training step of minGRU.

python scripts/measure_linear.py                  # writes benchmarks/results/linear.json
python scripts/measure_linear.py --device cuda    # the scan against the sequential kernel
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from seqnets import GatedCell
from seqnets.benchmarking.devices import found_device
from seqnets.benchmarking.surroundings import write_results
from seqnets.benchmarking.timer import race
from seqnets.engine import unroll

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
SIZES = {
    "cpu": [
        (1, 512, 256), (1, 4096, 64), (1, 4096, 256), (4, 512, 64), (16, 128, 128), (32, 128, 256),
    ],
    "cuda": [(B, T, H) for B, H in ((1, 256), (16, 512)) for T in (1024, 4096, 16384)],
}  # fmt: skip
BACKENDS = {"cpu": ("c", "scan", "eager"), "cuda": ("triton", "scan")}


class MinGRUCell(GatedCell):
    """Feng et al., 2024, "Were RNNs All We Needed?": the recurrent weights are unused."""

    gates = ("z", "h")

    def step(self, wx, state):
        """Compute a gate and a candidate from the input only."""
        (h,) = state
        w = self.split(wx)
        return (h + torch.sigmoid(w.z) * (w.h - h),)


def main() -> None:
    """Measure, print and write times in ms."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", type=found_device, choices=SIZES, default="cpu")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    args = parser.parse_args()
    device = torch.device(args.device)
    rows = []
    for B, T, H in SIZES[args.device]:
        cell, grad = MinGRUCell(H, H).to(device), torch.randn(B, T, H, device=device)
        x = torch.randn(B, T, H, device=device, requires_grad=True)
        wanted = [x, cell.weight_ih, cell.bias_ih]

        def step(backend: str, cell=cell, x=x, wanted=wanted, grad=grad) -> tuple[Tensor, ...]:
            return torch.autograd.grad(unroll(cell, x, backend=backend)[0], wanted, grad)

        runs = {name: partial(step, name) for name in BACKENDS[args.device]}
        first, *others = (run() for run in runs.values())
        for other in others:  # check before timing
            for right, found in zip(first, other, strict=True):
                allowed = 1e-3 * right.abs().max().item()
                torch.testing.assert_close(found, right, rtol=0, atol=allowed)
        del first, others, other, right, found
        times = race(runs, 2.0, device)
        rows.append({"B": B, "T": T, "H": H} | {k: round(t.median, 3) for k, t in times.items()})
        print(rows[-1])
    name = "linear.json" if args.device == "cpu" else f"linear_{args.device}.json"
    write_results(args.results / name, {"ms": rows})


if __name__ == "__main__":
    main()
