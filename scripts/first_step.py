"""Report the time from `import seqnets` to the first training step, as a median over processes.

For the plain loop, and for the loops in C, compiled and cached by an earlier process; and of the
imports alone: names are imported on first use, so a layer costs more than the bare import. torch is
imported before.

python scripts/first_step.py [REPEATS]
"""

import argparse
import statistics
import subprocess
import sys

STEP = """
import seqnets
layer = seqnets.Recurrent(seqnets.cells.PeepholeLSTMCell(8, 64), backend={!r})
layer(torch.randn(4, 2, 8))[0].sum().backward()
"""
TIMED = {
    "import seqnets": "import seqnets",
    "import a layer": "import seqnets; seqnets.LSTM",
    "plain loop": STEP.format("reference"),
    "loops in C": STEP.format("c"),
}


def seconds(statements: str) -> float:
    """The time of some statements in a fresh process."""
    start, end = "import time, torch; start = time.perf_counter()", "time.perf_counter() - start"
    command = [sys.executable, "-c", f"{start}\n{statements}\nprint({end})"]
    return float(subprocess.run(command, capture_output=True, check=True).stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repeats", type=int, nargs="?", default=9, help="processes for each")
    repeats = parser.parse_args().repeats
    if repeats < 1:
        parser.error(f"repeats: is {repeats}, expected at least 1.")
    seconds(TIMED["loops in C"])  # compiles, unless the cache has it
    rounds = [[seconds(statements) for statements in TIMED.values()] for _ in range(repeats)]
    for name, times in zip(TIMED, zip(*rounds, strict=True), strict=True):
        print(f"{name:15} {statistics.median(times) * 1e3:6.1f} ms")
