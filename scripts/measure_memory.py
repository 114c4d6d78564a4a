"""Measure the memory of a training step of torch.nn, and of seqnets with memory full and lean.

python scripts/measure_memory.py    # writes benchmarks/results/memory.json
"""

import argparse
from pathlib import Path

import torch

from seqnets import Recurrent
from seqnets.benchmarking.memory import peak_memory
from seqnets.benchmarking.surroundings import write_results
from seqnets.cells import GRUCell, LSTMCell

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
B, T, H = 16, 512, 256


def main() -> None:
    """Measure, print and write MiB."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    args = parser.parse_args()
    x = torch.randn(B, T, H, requires_grad=True)
    rows = {}
    for name, cell_class in (("LSTM", LSTMCell), ("GRU", GRUCell)):
        layers = {"torch.nn": getattr(torch.nn, name)(H, H, batch_first=True)}
        layers |= {m: Recurrent(cell_class(H, H), memory=m, backend="c") for m in ("full", "lean")}
        for kind, layer in layers.items():
            wanted = [x, *layer.parameters()]

            def step(layer: torch.nn.Module = layer, wanted: list[torch.Tensor] = wanted) -> None:
                torch.autograd.grad(layer(x)[0].sum(), wanted)

            step()
            rows.setdefault(name, {})[kind] = round(peak_memory(step, x.device), 1)
        print(name, rows[name])
    sizes = {"B": B, "T": T, "I": H, "H": H}
    write_results(args.results / "memory.json", {"sizes": sizes, "MiB": rows})


if __name__ == "__main__":
    main()
