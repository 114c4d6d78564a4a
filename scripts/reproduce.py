"""Run an experiment and record its result, with its baselines and the published result.

    python scripts/reproduce.py NAME [OVERRIDES ...]

The run is `seqnets train experiment=NAME` with the overrides, for example dataset.root=FOLDER or
seed=1. The result is written to benchmarks/results/experiments/NAME.json, or NAME_seedN.json for
seeds other than 0; `python scripts/make_results_page.py` makes docs/results.md from these files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from seqnets.benchmarking.surroundings import surroundings

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "experiments"


def main() -> None:
    parser = argparse.ArgumentParser(description="Run an experiment and record its result.")
    parser.add_argument("name", help="a file of configs/experiment")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE, as for `seqnets train`")
    args = parser.parse_args()
    published = published_by(args.name)
    before = surroundings()  # the load is that of other programs
    with tempfile.TemporaryDirectory() as output:
        command = ["train", f"experiment={args.name}", *args.overrides]
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "seqnets", *command, f"output={output}"], check=True)
        seconds = time.monotonic() - started
        (finished,) = Path(output).glob("*/*/result.json")
        result = json.loads(finished.read_text(encoding="utf-8"))
        config = OmegaConf.load(finished.with_name("config.yaml"))
    ours = result["test"][result["metric"]]
    record = {
        "name": args.name,
        "metric": result["metric"],
        "mode": result["mode"],
        "ours": ours,
        "published": published,
        "baselines": result["baselines"],
        "test": result["test"],
        "steps": result["step"],
        "seed": config.seed,
        "seconds": round(seconds),
        "command": f"seqnets {' '.join(map(without_folder, command))}",
        "config": without_folders(OmegaConf.to_container(config)),
        **before,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    suffix = f"_seed{config.seed}" if config.seed else ""
    path = RESULTS / f"{args.name}{suffix}.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"{result['metric']}: {ours:.5g}. Written: {path}")


def published_by(name: str) -> dict[str, Any] | None:
    """An experiment's published result: source, metric and value; None if there is none."""
    path = ROOT / "configs" / "experiment" / f"{name}.yaml"
    if not path.is_file():
        known = [file.stem for file in sorted(path.parent.glob("*.yaml"))]
        sys.exit(f"reproduce: there is no experiment {name!r}, expected one of {', '.join(known)}.")
    config: Any = OmegaConf.load(path)
    found: Any = OmegaConf.to_container(config.published) if "published" in config else None
    return found


def without_folder(argument: str) -> str:
    """An override with any folder replaced by a placeholder."""
    key = argument.partition("=")[0]
    return f"{key}=FOLDER" if key.endswith((".root", ".cache")) else argument


def without_folders(config: Any) -> Any:
    """A configuration with folders replaced by a placeholder."""
    if not isinstance(config, dict):
        return config
    hidden = ("root", "cache", "output", "path")
    return {
        key: "FOLDER" if key in hidden and value else without_folders(value)
        for key, value in config.items()
    }


if __name__ == "__main__":
    main()
