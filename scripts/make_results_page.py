"""Make docs/results.md from the result files of `scripts/reproduce.py` and `scripts/odyssey.py`.

python scripts/make_results_page.py [--check]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"
RESULTS = ROOT / "benchmarks" / "results"
LOWER = ("perplexity", "bits_per_character", "nll", "mse", "loss")
"""Metrics of which less is better."""

HEAD = """\
# Published results, reproduced

Each row is one run of `python scripts/reproduce.py NAME`, which trains `experiment=NAME`, scores
the weights that were best on the validation part on the test part, and writes everything down:
figures, seed, wall time, configuration, machine, versions and revision are in
[benchmarks/results/published](../benchmarks/results/published). This page is made from those files
by `scripts/make_results_page.py`; a number that was not run is not here. Wall times are those of a
machine
that did other work as well.

| experiment | what | metric | published | ours | | seed | wall time | steps |
|---|---|---|---:|---:|---|---:|---:|---:|
"""

NOT_RUN = """
## Ready, and not run

Made for a GPU or for a longer evening; the published figure is what to compare with.

| experiment | what | metric | published | source |
|---|---|---|---:|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Make docs/results.md.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    asked = parser.parse_args()
    made = page()
    if asked.check:
        if PAGE.read_text(encoding="utf-8") != made:
            sys.exit("docs/results.md: is not what scripts/make_results_page.py makes; run it.")
        return
    PAGE.write_text(made, encoding="utf-8")


def page() -> str:
    """The whole page."""
    files = sorted((RESULTS / "published").glob("*.json"))
    records = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    told = {
        path.stem: comment(path) for path in sorted((ROOT / "configs/experiment").glob("*.yaml"))
    }
    lines = [HEAD, *(row(record, told) for record in records)]
    lines += [sources(records), machines(records), waiting(records, told), odyssey()]
    return "".join(lines)


def row(record: dict[str, Any], told: dict[str, str]) -> str:
    """A line of the table."""
    published = record["published"]
    metric, ours = published["metric"], record["ours"]
    reached = ours <= published["value"] if metric in LOWER else ours >= published["value"]
    return (
        f"| `{record['name']}` | {told[record['name']]} | {metric.replace('_', ' ')} | "
        f"{published['value']:g} | **{ours:.4g}** | {'reached' if reached else 'not reached'} | "
        f"{record['seed']} | {minutes(record['seconds'])} | {record['optimizer steps']:,} |\n"
    )


def minutes(seconds: float) -> str:
    """A duration for people."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def comment(path: Path) -> str:
    """What an experiment's file says of itself, without what is to be given."""
    lines = path.read_text(encoding="utf-8").splitlines()
    said = next(
        line[1:].strip() for line in lines if line.startswith("# ") and "@package" not in line
    )
    return said.split("; give ")[0]


def sources(records: list[dict[str, Any]]) -> str:
    """Where the published figures are from."""
    found = dict.fromkeys(f"`{r['name']}`: {r['published']['source']}" for r in records)
    return "\nPublished in: " + "; ".join(found) + ".\n"


def machines(records: list[dict[str, Any]]) -> str:
    """What ran them."""
    found = dict.fromkeys(
        f"{r['machine']['gpu'] or r['machine']['processor']}, "
        f"{r['machine']['threads']} thread{'s' if r['machine']['threads'] > 1 else ''}, "
        f"torch {r['versions']['torch']}"
        for r in records
    )
    return "\nRun on: " + "; ".join(found) + ".\n"


def waiting(records: list[dict[str, Any]], told: dict[str, str]) -> str:
    """Experiments of published results that have no result file."""
    ran = {record["name"] for record in records}
    lines = []
    for path in sorted((ROOT / "configs" / "experiment").glob("*.yaml")):
        config: Any = OmegaConf.load(path)
        if path.stem in ran or "published" not in config:
            continue
        p = config.published
        lines.append(
            f"| `{path.stem}` | {told[path.stem]} | {p.metric.replace('_', ' ')} | {p.value:g} | "
            f"{p.source} |\n"
        )
    return NOT_RUN + "".join(lines) if lines else ""


def odyssey() -> str:
    """The small Search Space Odyssey."""
    path = RESULTS / "odyssey.json"
    if not path.exists():
        return ""
    found = json.loads(path.read_text(encoding="utf-8"))
    tasks, variants = found["tasks"], found["variants"]
    about, says = found["about"], " | ".join(task["says"] for task in tasks.values())
    lines = [
        "\n## A small Search Space Odyssey\n\n",
        f"{about['text']}\n\n",
        "![Test figures of the eight variants](../benchmarks/results/odyssey.png)\n\n",
        f"| median of {len(found['seeds'])} seeds | {says} |\n",
        f"|---|{'---:|' * len(tasks)}\n",
    ]
    for name, said in variants.items():
        medians = []
        for task in tasks:
            scores = [
                r["score"] for r in found["runs"] if (r["task"], r["variant"]) == (task, name)
            ]
            medians.append(f"{statistics.median(scores):.4g}")
        lines.append(f"| {name}: {said} | {' | '.join(medians)} |\n")
    return "".join(lines) + f"\n{about['findings']}\n" if about.get("findings") else "".join(lines)


if __name__ == "__main__":
    main()
