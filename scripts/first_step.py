"""Report how long a process takes from `import seqnets` to its first training step: medians.

By the plain loop, and by the loops in C, which lie compiled in the cache from an earlier process.

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
    """The time in a fresh process."""
    command = [sys.executable, "-c", TIMED.format(backend=backend)]
    return float(subprocess.run(command, capture_output=True, check=True).stdout)


if __name__ == "__main__":
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    seconds("c")  # compiles, if nobody has yet
    pairs = [(seconds("reference"), seconds("c")) for _ in range(repeats)]
    plain, fused = (statistics.median(times) * 1e3 for times in zip(*pairs, strict=True))
    print(f"plain loop   {plain:6.1f} ms")
    print(f"loops in C   {fused:6.1f} ms, {fused - plain:+.1f} ms")
