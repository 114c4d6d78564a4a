"""Report the time from `import seqnets` to the first training step, as a median over processes.

For the plain loop, and for the loops in C, compiled and cached by an earlier process.

python scripts/first_step.py [REPEATS]
"""

import statistics
import subprocess
import sys

TIMED = """
import time, torch
start = time.perf_counter()
import seqnets
layer = seqnets.Recurrent(seqnets.cells.PeepholeLSTMCell(8, 64), backend={backend!r})
layer(torch.randn(4, 2, 8))[0].sum().backward()
print(time.perf_counter() - start)
"""


def seconds(backend: str) -> float:
    """Return the time in a fresh process."""
    command = [sys.executable, "-c", TIMED.format(backend=backend)]
    return float(subprocess.run(command, capture_output=True, check=True).stdout)


if __name__ == "__main__":
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    seconds("c")  # compiles, unless the cache has it
    pairs = [(seconds("reference"), seconds("c")) for _ in range(repeats)]
    plain, fused = (statistics.median(times) * 1e3 for times in zip(*pairs, strict=True))
    print(f"plain loop   {plain:6.1f} ms")
    print(f"loops in C   {fused:6.1f} ms, {fused - plain:+.1f} ms")
