"""Measure where torch's own kernels are faster than the loops in C, for engine/preference.json.

    python scripts/measure_preference.py    # about 5 minutes; nothing else should be running

Cells whose equations torch has no kernel for are not in the table: they have no choice.
"""

import json
from functools import partial
from itertools import product
from pathlib import Path

import torch

from seqnets.benchmarking.cases import Case
from seqnets.benchmarking.contestants import Workload, make_workload, run_pass
from seqnets.benchmarking.surroundings import commit, machine, versions
from seqnets.benchmarking.timer import race
from seqnets.cells import GRUCell, LSTMCell, RNNCell
from seqnets.engine import unroll

TABLE = Path(__file__).parent.parent / "src" / "seqnets" / "engine" / "preference.json"
CELLS = (LSTMCell, GRUCell, RNNCell)
SIZES = [
    *product((1, 4, 16, 64), (100,), (32, 128, 256, 512)),
    *product((1, 32), (1,), (64, 256)),  # single steps
]


def speed_of_native(work: Workload, seconds: float = 1.0) -> float:
    """The time of the loops in C over that of torch's kernel."""

    def call(backend: str) -> None:
        parameters = dict(work.cell.named_parameters())
        forward = partial(unroll, work.cell, backend=backend)
        run_pass(work.case.pass_, lambda x: forward(x)[0], work.x, work.grad, parameters)

    runs = {backend: partial(call, backend) for backend in ("c", "native")}
    times = race(runs, seconds, torch.device("cpu"))
    return round(times["c"].median / times["native"].median, 3)


def main() -> None:
    """Measure all sizes and write the table."""
    table: dict[str, dict[str, list[list[float]]]] = {"training": {}, "forward": {}}
    for pass_, cell_class, (B, T, H) in product(table, CELLS, SIZES):
        case = Case(cell_class.__name__, B=B, T=T, I=H, H=H, pass_=pass_)
        with torch.set_grad_enabled(pass_ == "training"):
            work = make_workload(case, cell_class, torch.device("cpu"), torch.float32)
            speed = speed_of_native(work)
        table[pass_].setdefault(cell_class.__name__, []).append([B, T, H, speed])
        print(f"{pass_} {cell_class.__name__} B={B} T={T} H={H}: {speed}", flush=True)
    rows = json.dumps(table, indent=1)
    for old, new in ((",\n    ", ", "), ("[\n    ", "["), ("\n   ]", "]")):
        rows = rows.replace(old, new)
    whole = {"machine": machine(), "versions": versions(), "commit": commit()}
    text = json.dumps(whole, indent=1)[:-2] + ',\n "speed_of_native": ' + rows + "\n}\n"
    json.loads(text)
    TABLE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
