"""Report what `import seqnets` costs beside `import torch`: medians, each in a fresh process.

python scripts/import_cost.py [REPEATS]
"""

import statistics
import subprocess
import sys

TIMED = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def median_seconds(module: str, repeats: int) -> float:
    """The median time of an import."""
    command = [sys.executable, "-c", TIMED.format(module)]
    runs = (subprocess.run(command, capture_output=True, check=True) for _ in range(repeats))
    return statistics.median(float(run.stdout) for run in runs)


if __name__ == "__main__":
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    torch, seqnets = (median_seconds(module, repeats) for module in ("torch", "seqnets"))
    print(f"import torch    {torch:.3f} s")
    print(f"import seqnets  {seqnets:.3f} s, {seqnets - torch:+.3f} s")
