"""Report the time that `import seqnets` adds to `import torch`: medians over fresh processes.

Names are imported on first use, so the cost of a layer is shown besides that of the bare import.

python scripts/import_cost.py [REPEATS]
"""

import statistics
import subprocess
import sys

TIMED = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"


def median_seconds(statement: str, repeats: int) -> float:
    """Return the median time of a statement in fresh processes."""
    command = [sys.executable, "-c", TIMED.format(statement)]
    runs = (subprocess.run(command, capture_output=True, check=True) for _ in range(repeats))
    return statistics.median(float(run.stdout) for run in runs)


if __name__ == "__main__":
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    torch = median_seconds("import torch", repeats)
    print(f"import torch                        {torch:.3f} s")
    for statement in ("import seqnets", "import torch, seqnets; seqnets.LSTM"):
        found = median_seconds(statement, repeats)
        print(f"{statement:35} {found:.3f} s, {found - torch:+.3f} s")
