"""Measure the memory of a training step of torch.nn, and of seqnets with memory full and lean.

python scripts/measure_memory.py    # writes benchmarks/results/memory.json
"""

from pathlib import Path

import torch

from seqnets import Recurrent
from seqnets.benchmarking.memory import peak_memory
from seqnets.benchmarking.surroundings import write_results
from seqnets.cells import GRUCell, LSTMCell

RESULT = Path(__file__).parent.parent / "benchmarks" / "results" / "memory.json"
B, T, H = 16, 512, 256


def main() -> None:
    """Measure, print and write MiB."""
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
    write_results(RESULT, {"sizes": {"B": B, "T": T, "I": H, "H": H}, "MiB": rows})


if __name__ == "__main__":
    main()
