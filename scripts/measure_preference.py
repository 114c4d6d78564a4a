"""Measure where torch's kernels are faster than seqnets', for engine/preference.json.

    python scripts/measure_preference.py --products       # matrix products: first, in a minute
    python scripts/measure_preference.py                  # the loops in C, about 10 minutes
    python scripts/measure_preference.py --threads 1      # the same on one core, a separate table
    python scripts/measure_preference.py --device cuda    # the kernels in Triton

The machine should be idle. Only cells with a kernel in torch are in the table, as there is no
choice for the others.
"""

import argparse
import gc
import json
import re
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from seqnets.benchmarking.ahead import compile_ahead
from seqnets.benchmarking.cases import Case
from seqnets.benchmarking.contestants import Workload, backend, make_workload
from seqnets.benchmarking.devices import found_device
from seqnets.benchmarking.precision import precision
from seqnets.benchmarking.surroundings import surroundings
from seqnets.benchmarking.timer import race
from seqnets.cells import GRUCell, LSTMCell, RNNCell
from seqnets.engine.c.products import multiply
from seqnets.engine.measured import of_processor

TABLE = Path(__file__).parent.parent / "src" / "seqnets" / "engine" / "preference.json"
CELLS = (LSTMCell, GRUCell, RNNCell)
LOOPS = {"cpu": "c", "cuda": "triton"}
SECONDS = {"cpu": 0.6, "cuda": 0.05}  # for each case
SIZES = [
    *product((1, 4, 16, 32, 64, 128), (100,), (32, 64, 128, 256, 512, 768)),
    *product((1, 32), (1,), (8, 64, 256)),  # single steps
    *product((1, 32), (10,), (8,)),
    *product((4, 32, 256), (10,), (64, 256)),
    *product((1, 16, 64), (3, 30), (64, 256)),
]
_NARROW = [*product((1, 16, 64), (128,), (64, 128)), (16, 256, 128)]
_LONG = [(32, 128, 256), (64, 512, 512), (16, 512, 1024)]
_WIDE = [*product((16, 64), (128,), (256, 512, 1024)), *_LONG]
SIZES_OF_CUDA = {
    "float16": {LSTMCell: _NARROW + _WIDE, GRUCell: _NARROW, RNNCell: _NARROW + _WIDE},
    "tf32": {LSTMCell: _NARROW, GRUCell: _NARROW, RNNCell: [*_NARROW, (16, 128, 256)]},
    "float32": {LSTMCell: _NARROW, GRUCell: _NARROW, RNNCell: [*_NARROW, (16, 128, 256)]},
}
"""Sizes at which cuDNN runs all steps in one launch; the table is not consulted at others."""


def cases(device: str) -> Iterator[tuple[Case, type]]:
    """Yield the cases of a device, each with its cell class."""
    sizes = {"float32": dict.fromkeys(CELLS, SIZES)} if device == "cpu" else SIZES_OF_CUDA
    for dtype, of_cells in sizes.items():
        for pass_, (cell, of_cell) in product(("training", "forward"), of_cells.items()):
            for B, T, H in of_cell:
                case = Case(cell.__name__, B=B, T=T, I=H, H=H, pass_=pass_, dtype=dtype)
                yield case, cell


SIZES_OF_PRODUCTS = [*product((1, 16, 128, 1024, 8192), (4, 32, 256, 2048), (4, 32, 256, 2048))]
"""(m, k, n) of products of matrices (m, k) and (k, n)."""


def products() -> dict[str, Any]:
    """The time of seqnets' matrix product divided by that of torch's, by size."""
    found = []
    for m, k, n in SIZES_OF_PRODUCTS:
        a, b, out = torch.randn(m, k), torch.randn(n, k).T, torch.empty(m, n)
        runs = {
            "ours": partial(multiply, a, b, None, out),
            "torch": partial(torch.mm, a, b, out=out),
        }
        times = race(runs, 0.2, torch.device("cpu"))
        found.append([m, k, n, round(times["ours"].median / times["torch"].median, 3)])
        print("m={} k={} n={}: {}".format(*found[-1]))
    return {"speed_of_torch": found}


def speed_of_native(work: Workload, device: str) -> float:
    """The time of seqnets' loops divided by that of torch's kernel."""
    names = LOOPS[device], "native"
    runs = {name: backend(name, work).run for name in names}
    with precision(work.case.dtype):
        times = race(runs, SECONDS[device], torch.device(device))
    return round(times[names[0]].median / times["native"].median, 3)


def measured(device: str) -> dict[str, Any]:
    """The table of a device: by dtype on a GPU, then by pass and cell."""
    if device == "cuda":
        compile_ahead([case for case, _ in cases(device)], {c.__name__: c for c in CELLS})
    table: dict[str, Any] = {}
    gc.freeze()  # exempts existing objects from the collection before each case
    for case, cell in cases(device):
        with torch.set_grad_enabled(case.pass_ == "training"):
            speed = speed_of_native(make_workload(case, cell, torch.device(device)), device)
        rows = table.setdefault(case.dtype, {}).setdefault(case.pass_, {})
        rows.setdefault(case.cell, []).append([case.B, case.T, case.H, speed])
        print(f"{case.dtype} {case.pass_} {case.cell} B={case.B} T={case.T} H={case.H}: {speed}")
    return table if device == "cuda" else table["float32"]


def main() -> None:
    """Measure all sizes of a device, and update the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--products", action="store_true")
    parser.add_argument("--device", type=found_device, choices=LOOPS, default="cpu")
    parser.add_argument("--threads", type=int, help="torch's default if omitted")
    parser.add_argument("--output", type=Path, default=TABLE)
    args = parser.parse_args()
    if args.threads is not None and args.threads < 1:
        parser.error(f"--threads: is {args.threads}, expected at least 1.")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    tables = json.loads(TABLE.read_text(encoding="utf-8"))
    before = surroundings()
    kind = "products" if args.products else args.device
    if kind == "cpu" and torch.get_num_threads() == 1:
        kind = "cpu_alone"
    if kind != "cuda":
        kind = of_processor(kind)
    found = products() if args.products else {"speed_of_native": measured(args.device)}
    tables[kind] = before | found
    text = json.dumps(tables, indent=1)
    text = re.sub(
        r"\[\s+([\d.]+),\s+([\d.]+),\s+([\d.]+),\s+([\d.]+)\s+\]", r"[\1, \2, \3, \4]", text
    )
    args.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
