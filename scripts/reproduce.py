"""Run an experiment of a published result and write down what came out.

    python scripts/reproduce.py NAME [OVERRIDES ...]

NAME is a file of configs/experiment that has a `published` part. The run is `seqnets train
experiment=NAME`, with the overrides (for instance dataset.root=FOLDER seed=1). What came out is
written to benchmarks/results/published/NAME.json, or NAME_seedN.json for another seed than 0;
`python scripts/make_results_page.py` makes docs/results.md from those files.
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

from seqnets.benchmarking.surroundings import commit, machine, now, versions

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "published"


def main() -> None:
    parser = argparse.ArgumentParser(description="Run an experiment of a published result.")
    parser.add_argument("name", help="a file of configs/experiment with a `published` part")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE, as for `seqnets train`")
    asked = parser.parse_args()
    published = published_by(asked.name)
    load = machine()["load"]
    with tempfile.TemporaryDirectory() as output:
        command = ["train", f"experiment={asked.name}", *asked.overrides]
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "seqnets", *command, f"output={output}"], check=True)
        seconds = time.monotonic() - started
        (finished,) = Path(output).glob("*/*/result.json")
        result = json.loads(finished.read_text(encoding="utf-8"))
        config = OmegaConf.load(finished.with_name("config.yaml"))
    metric = published["metric"]
    record = {
        "name": asked.name,
        "published": published,
        "ours": result["test"][metric],
        "test": result["test"],
        "rivals": result["rivals"],
        "optimizer steps": result["step"],
        "seed": config.seed,
        "seconds": round(seconds),
        "command": f"seqnets {' '.join(map(without_folder, command))}",
        "config": without_folders(OmegaConf.to_container(config)),
        "machine": {**machine(), "load": load},
        "versions": versions(),
        "commit": commit(),
        "date": now(),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    suffix = f"_seed{config.seed}" if config.seed else ""
    path = RESULTS / f"{asked.name}{suffix}.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"{metric}: {record['ours']:.5g}, published {published['value']}. Written: {path}")


def published_by(name: str) -> dict[str, Any]:
    """What an experiment's file says was published: source, metric, value, mode."""
    path = ROOT / "configs" / "experiment" / f"{name}.yaml"
    if not path.is_file() or "published" not in (config := OmegaConf.load(path)):
        known = [
            p.stem for p in sorted(path.parent.glob("*.yaml")) if "\npublished:" in p.read_text()
        ]
        sys.exit(f"reproduce: {name} has nothing published, expected one of {', '.join(known)}.")
    found: Any = OmegaConf.to_container(config.published)
    return found


def without_folder(argument: str) -> str:
    """An override as it is to be typed elsewhere: folders have other names there."""
    key, _, value = argument.partition("=")
    return (
        f"{key}=FOLDER" if key.endswith((".root", ".cache")) else f"{key}={value}" if value else key
    )


def without_folders(config: Any) -> Any:
    """A configuration without the places of this machine."""
    if not isinstance(config, dict):
        return config
    hidden = ("root", "cache", "output", "path")
    return {
        key: "FOLDER" if key in hidden and value else without_folders(value)
        for key, value in config.items()
    }


if __name__ == "__main__":
    main()
