"""Compare cells as people write them with the plain loop: a training step.

    PYTHONPATH=. python scripts/measure_own_cells.py

The cells are those of tests/engine/user_cells.py. Writes benchmarks/results/own_cells.json and its
table, own_cells.md, in a minute, and prints how many times as fast as the loop "auto" is for B = 1
and 16.
"""

import argparse
from pathlib import Path

from seqnets.benchmarking import Case, Measured, Report, Settings, markdown, measure
from seqnets.cells import LSTMCell
from tests.engine import user_cells

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
ROWS, T, I, H = (1, 16), 128, 64, 128
CELLS = {  # in the order of docs/benchmarks.md
    "t_lstm": user_cells.TimeAwareLSTMCell,
    "gru_d": user_cells.DecayCell,
    "lmu": user_cells.LegendreCell,
    "cat_lstm": user_cells.SideBySideCell,
    "keras_gru": user_cells.KernelCell,
    "torch_cells": user_cells.TorchCell,
    "prepared": user_cells.PreparedCell,
    "surrogate": user_cells.SurrogateCell,
    "heads": user_cells.HeadsCell,
    "ordered": user_cells.OrderedCell,
    "lstm": LSTMCell,
}


def main() -> None:
    """Measure, print ratios, and write times in ms."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each cell and size")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    args = parser.parse_args()
    settings = Settings(budget=args.seconds)
    sizes = {"B": ROWS, "T": T, "I": I, "H": H}
    report = Report({"cells": list(CELLS), **sizes, "budget": args.seconds})
    for name, cell in CELLS.items():
        cases = [Case(name, B, T, I, H, "training", rows=("auto", "loop")) for B in ROWS]
        found = [measure(case, cell, settings) for case in cases]
        report.measured += found
        print(f"{name:12}", *map(speedup, found))
    report.save(args.results / "own_cells.json")
    (args.results / "own_cells.md").write_text(markdown(report), encoding="utf-8")


def speedup(found: Measured) -> str:
    """How many times as fast "auto" is, or why it was not timed."""
    if reasons := found.reasons():
        return f"{found.case.sizes}: {'; '.join(reasons)}"
    ms = {row.name: row.ms for row in found.rows}
    return f"{ms['loop'] / ms['auto']:5.1f}"


if __name__ == "__main__":
    main()
