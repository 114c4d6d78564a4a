"""Write docs/results.md from the result files of the other scripts, and the table in README.md.

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

from seqnets.cli.listing import option_files, options
from seqnets.errors import counted

ROOT = Path(__file__).parents[1]
PAGE, README = ROOT / "docs" / "results.md", ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- tasks -->\n", "<!-- /tasks -->"

HEAD = """\
# Results

What the experiments that come with seqnets reach on test data, beside published results and simple
baselines. Each row is one run of `python scripts/reproduce.py NAME`. The script trains
`experiment=NAME`, takes the weights that were best on the validation part, scores them on the test
part, and records the metrics, seed, wall time, configuration, machine, versions and revision in
`benchmarks/results/experiments`. `scripts/make_results_page.py` generates this page from those
files, so every number on it comes from a run. Wall times are from machines that were doing other
work as well.
"""

PUBLISHED = """
## Published results, reproduced

| experiment | what | metric | published | ours | | seed | wall time | steps |
|---|---|---|---:|---:|---|---:|---:|---:|
"""

TASKS = """
## Tasks and their baselines

| experiment | what | metric | ours | baselines of the data | seed | wall time |
|---|---|---|---:|---|---:|---:|
"""

NOT_RUN = """
## Ready, but not run

These experiments are for a GPU, or for a long evening. Compare with the published figure.

| experiment | what | metric | published | source |
|---|---|---|---:|---|
"""

ODYSSEY = """
## A small Search Space Odyssey

The LSTM with peepholes (V) and its eight variants (Greff et al., 2017, arXiv:1503.04069) on three
tasks, by `python scripts/odyssey.py --data FOLDER --seeds 3`. A seed determines weights, order of
the data and learning rate, the same for all variants. Runs are short (400 steps, 2,400 for music)
and models small, so do not compare these figures with those above. In the picture, a dot is a run,
and a triangle is a run beyond the edge.

![Test figures of the variants](../benchmarks/results/odyssey.png)

- **As in the paper, the forget gate and the output activation matter most.** On all three tasks,
  the mean of either variant is worse than that of V. On text, removing the forget gate costs half a
  bit, and without the output activation two of three runs diverged.
- **Coupling the gates or removing the peepholes** costs nothing, and even helps on music.
- **Full gate recurrence** hurts on all tasks.
- **The input activation** matters on music, and the input and output gates matter on vowels.

With three seeds, smaller differences mean little. After 600 steps instead of 2,400, music looked
different: the variant without the output activation learns fastest at first, and is then overtaken.

"""

SPANS = """
## How long a cell remembers

The longest delay at which a layer of a given size solves a copy task, by
`python scripts/measure_memory_span.py`: four symbols, each one of four, have to be repeated after
that many steps. Each length is trained from scratch for at most {steps:,} steps of {batch}
sequences, at {rates}, whichever solves it. Solved means an accuracy of 0.99. This is one seed: a
cell that misses a length may reach it with another seed, or with more training.

![Longest length solved, by units and cell](../benchmarks/results/memory_span.png)

"""

SHOWN = (
    "python_docs",
    "ptb_small",
    "multi30k",
    "names",
    "wnut17",
    "digit_strings",
    "nottingham_lstm",
    "etth1",
    "moving_digits_next",
    "adding_600",
)
"""The experiments in README.md: one for each kind of task."""

IN_README = """\
| experiment | what | metric | ours | best baseline |
|---|---|---|---:|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/results.md, and README.md's table.")
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    args = parser.parse_args()
    files = sorted((RESULTS / "experiments").glob("*.json"))
    records = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    titles = {name: text.split("; give ")[0] for name, text in options("experiment").items()}
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    made = {
        PAGE: page(records, titles),
        README: f"{before}{BEGIN}{readme(records, titles)}{END}{after}",
    }
    for path, text in made.items():
        if not args.check:
            path.write_text(text, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path.name}: is not what scripts/make_results_page.py makes; run it.")


def page(records: list[dict[str, Any]], titles: dict[str, str]) -> str:
    """The page."""
    published = [record for record in records if record["published"]]
    return "".join(
        [
            HEAD,
            PUBLISHED,
            *(published_row(record, titles) for record in published),
            sources(published),
            machines(records),
            waiting(records, titles),
            TASKS,
            *(task_row(record, titles) for record in records),
            memory_spans(),
            odyssey(),
        ]
    )


def readme(records: list[dict[str, Any]], titles: dict[str, str]) -> str:
    """README's table: the first seed of the experiments that it shows."""
    first = {record["name"]: record for record in records if not record["seed"]}
    rows = []
    for name in SHOWN:
        record = first[name]
        best = max if record["mode"] == "max" else min
        baseline, value = best(record["baselines"].items(), key=lambda pair: pair[1])
        rows.append(
            f"| `{record['name']}` | {titles[record['name']]} | {named(record['metric'])} | "
            f"**{record['ours']:.4g}** | {value:.4g}, {baseline} |\n"
        )
    return IN_README + "".join(rows)


def published_row(record: dict[str, Any], titles: dict[str, str]) -> str:
    """A row that compares with a published result."""
    value, ours = record["published"]["value"], record["ours"]
    reached = ours >= value if record["mode"] == "max" else ours <= value
    return (
        f"| `{record['name']}` | {titles[record['name']]} | {named(record['metric'])} | "
        f"{value:g} | **{ours:.4g}** | {'reached' if reached else 'not reached'} | "
        f"{record['seed']} | {minutes(record['seconds'])} | {record['steps']:,} |\n"
    )


def task_row(record: dict[str, Any], titles: dict[str, str]) -> str:
    """A row that compares with the baselines."""
    baselines = ", ".join(f"{name} {value:.4g}" for name, value in record["baselines"].items())
    return (
        f"| `{record['name']}` | {titles[record['name']]} | {named(record['metric'])} | "
        f"**{record['ours']:.4g}** | {baselines} | {record['seed']} | "
        f"{minutes(record['seconds'])} |\n"
    )


def named(metric: str) -> str:
    """A metric's name with spaces."""
    return metric.replace("_", " ")


def minutes(seconds: float) -> str:
    """A duration as text."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def sources(records: list[dict[str, Any]]) -> str:
    """The sources of the published results."""
    found: dict[str, list[str]] = {}
    for record in records:
        names = found.setdefault(record["published"]["source"], [])
        if record["name"] not in names:
            names.append(record["name"])
    lines = (f"{source} (`{'`, `'.join(names)}`)" for source, names in found.items())
    return "\nPublished in: " + "; ".join(lines) + ".\n"


def machines(records: list[dict[str, Any]]) -> str:
    """The machines that ran the experiments."""
    found = dict.fromkeys(
        f"{r['machine']['gpu'] or r['machine']['processor']}, "
        f"{counted(r['machine']['threads'], 'thread')}, "
        f"torch {r['versions']['torch']}"
        for r in records
    )
    return "\nRun on: " + "; ".join(found) + ".\n"


def waiting(records: list[dict[str, Any]], titles: dict[str, str]) -> str:
    """A table of experiments that have a published result but were not run."""
    ran = {record["name"] for record in records}
    lines = []
    for path in option_files("experiment"):
        config: Any = OmegaConf.load(path)
        if path.stem in ran or "published" not in config:
            continue
        p = config.published
        lines.append(
            f"| `{path.stem}` | {titles[path.stem]} | {named(p.metric)} | {p.value:g} | "
            f"{p.source} |\n"
        )
    return NOT_RUN + "".join(lines) if lines else ""


def result(name: str) -> Any:
    """The results of another script; None if it has not run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def memory_spans() -> str:
    """The section on memory spans."""
    found = result("memory_span")
    if found is None:
        return ""
    settings, spans = found["settings"], found["spans"]
    rates = " or ".join(f"{rate:g}" for rate in settings["rates"])
    widths = list(next(iter(spans.values())))
    lines = [
        SPANS.format(steps=settings["steps"], batch=settings["batch"], rates=f"a rate of {rates}"),
        f"| units | {' | '.join(widths)} |\n|---|{'---:|' * len(widths)}\n",
    ]
    for name, lengths in spans.items():
        shown = (f"{length or 'none'}" for length in lengths.values())
        lines.append(f"| `{name}` | {' | '.join(shown)} |\n")
    return "".join(lines)


def odyssey() -> str:
    """The section on the small Search Space Odyssey."""
    found = result("odyssey")
    if found is None:
        return ""
    tasks, variants = found["tasks"], found["variants"]
    says = " | ".join(task["says"] for task in tasks.values())
    lines = [
        ODYSSEY,
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
    return "".join(lines)


if __name__ == "__main__":
    main()
