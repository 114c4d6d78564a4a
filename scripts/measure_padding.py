"""Compare packed sequences of different lengths with torch.nn: training step and forward pass.

python scripts/measure_padding.py    # writes benchmarks/results/padding.json, in a minute
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import seqnets
from seqnets.benchmarking.surroundings import write_results
from seqnets.benchmarking.timer import race

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
B, T, I, H = 32, 100, 64, 128
LENGTHS = {
    "all alike": [T] * B,
    "from 1 to all": [max(1, T * b // B) for b in range(B, 0, -1)],
    "one long row": [T] + [5] * (B - 1),
    "one very long row": [20 * T] + [5] * (B - 1),
}


def forward(layer: nn.Module, packed: PackedSequence) -> Tensor:
    """The outputs, without gradients."""
    with torch.no_grad():
        return layer(packed)[0].data


def training(layer: nn.Module, packed: PackedSequence) -> tuple[Tensor, ...]:
    """The gradients of all parameters."""
    return torch.autograd.grad(layer(packed)[0].data.sum(), list(layer.parameters()))


def main() -> None:
    """Measure, print and write times in ms."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    args = parser.parse_args()
    rows = []
    for cell, (title, lengths) in ((c, each) for c in ("LSTM", "GRU") for each in LENGTHS.items()):
        packed = pack_padded_sequence(torch.randn(max(lengths), B, I), torch.tensor(lengths))
        layers = {"torch.nn": getattr(nn, cell)(I, H), "seqnets": getattr(seqnets, cell)(I, H)}
        layers["seqnets"].load_state_dict(layers["torch.nn"].state_dict())
        for pass_ in (forward, training):
            runs = {name: partial(pass_, layer, packed) for name, layer in layers.items()}
            torch.testing.assert_close(*(run() for run in runs.values()), rtol=1e-3, atol=1e-3)
            times = race(runs, 3.0, torch.device("cpu"))
            ratio = times["torch.nn"].median / times["seqnets"].median
            rows.append(
                {"cell": cell, "lengths": title, "pass": pass_.__name__, "ratio": round(ratio, 2)}
                | {name: round(time.median, 3) for name, time in times.items()}
            )
            print(rows[-1])
    sizes = {"B": B, "T": T, "I": I, "H": H}
    write_results(args.results / "padding.json", {"sizes": sizes, "ms": rows})


if __name__ == "__main__":
    main()
