"""Measure how long each kind of cell remembers: the longest task that it solves, by its width.

    python scripts/measure_memory_span.py --task copy --cells rnn,lstm --widths 16,32

For each cell (a name of configs/model/cell) and width, a model of one layer is trained anew at each
length: the shortest, then double that, and so on up to the longest, or to the first that is not
solved. Solved means, on 1,000 sequences of their own: an accuracy of 0.99, or a hundredth of the
squared error of always saying 1. A model has so many steps of Adam on new sequences to get there,
at one of the rates, which are tried one after the other.

What is found is written after each training, so that the same command goes on where it was stopped.
With --output FILE.json the picture is FILE.png.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf

from seqnets.benchmarking.surroundings import write_found
from seqnets.cli.build import build
from seqnets.datasets import Adding, Copy, Recall, SequenceData
from seqnets.insight.spans import span_lines
from seqnets.models import SequenceClassifier, SequenceRegressor, SequenceTagger
from seqnets.training import Classification, Objective, Regression, Tagging

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "memory_span.json"
BATCH = 32
CHECKED_EVERY = 100


class Task(NamedTuple):
    """Data of a length, the model's class, the objective, what it is called, the first length."""

    data: Callable[..., SequenceData]
    model: Callable[..., torch.nn.Module]
    objective: Objective
    title: str
    shortest: int


def copy(length: int, **options: Any) -> SequenceData:
    return Copy(length, symbols=4, copied=4, **options)


def recall(length: int, **options: Any) -> SequenceData:
    return Recall(length, keys=64, values=4, **options)


TASKS = {
    "adding": Task(Adding, SequenceRegressor, Regression(), "Adding problem", 8),
    "copy": Task(copy, SequenceTagger, Tagging(), "Copy problem, four of four symbols", 4),
    "recall": Task(recall, SequenceClassifier, Classification(), "Recall of one of 4 values", 1),
}


def main() -> None:
    """Measure what is not yet known, write and draw."""
    asked = arguments()
    task = TASKS[asked.task]
    settings = {
        "task": asked.task,
        "shortest": task.shortest,
        "longest": asked.longest,
        "steps": asked.steps,
        "batch": BATCH,
        "rates": asked.rates,
    }
    tried = resumed(asked.output, settings)
    for name in asked.cells:
        for width in asked.widths:
            length = task.shortest
            while length <= asked.longest:
                key = {"cell": name, "units": width, "length": length}
                known = [entry for entry in tried if key.items() <= entry.items()]
                if not known:
                    known = [{**key, **solve(task, name, width, length, asked.steps, asked.rates)}]
                    tried += known
                    write(asked.output, settings, tried)
                    print(known[0], flush=True)
                if not known[0]["solved"]:
                    break
                length *= 2
    found = spans(tried, asked.longest)
    title = f"{task.title}: {asked.steps:,} steps of {BATCH} sequences"
    figure = span_lines(found, task.shortest, asked.longest, title)
    figure.savefig(asked.output.with_suffix(".png"), dpi=150)
    print(f"Written: {asked.output} and its picture.")


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description="Measure how long each kind of cell remembers.")
    listed = {"type": lambda text: text.split(",")}
    numbers = {"type": lambda text: [int(number) for number in text.split(",")]}
    rates = {"type": lambda text: [float(number) for number in text.split(",")]}
    parser.add_argument("--task", choices=sorted(TASKS), default="copy")
    parser.add_argument(
        "--cells", **listed, default=["rnn", "irnn", "exprnn", "gru", "lstm", "lru"]
    )
    parser.add_argument("--widths", **numbers, default=[16, 32, 64])
    parser.add_argument("--longest", type=int, default=128, help="stop at this length")
    parser.add_argument("--steps", type=int, default=1000, help="optimizer steps of a training")
    parser.add_argument("--rates", **rates, default=[3e-3, 1e-3], help="learning rates to try")
    parser.add_argument("--output", type=Path, default=RESULT, help="a .json file")
    return parser.parse_args()


def solve(
    task: Task, name: str, width: int, length: int, steps: int, rates: list[float]
) -> dict[str, Any]:
    """Train at each rate until one solves the task; whether, at which rate and step, how well."""
    data = task.data(length, train_size=steps * BATCH, batch_size=BATCH)
    best: dict[str, Any] = {}
    started = time.monotonic()
    for rate in rates:
        torch.manual_seed(0)
        model = task.model(cell_factory(name), **data.sizes, hidden_size=width)
        optimizer = torch.optim.Adam(model.parameters(), rate)
        for step, batch in enumerate(data.train_dataloader(), 1):
            optimizer.zero_grad()
            task.objective(model, batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if step % CHECKED_EVERY and step < steps:
                continue
            score, solved = judge(task.objective, model, data)
            if not best or better(task.objective, score, best[task.objective.metric]):
                best = {task.objective.metric: round(score, 6), "rate": rate, "step": step}
            if solved:
                seconds = round(time.monotonic() - started, 1)
                return {"solved": True, **best, "seconds": seconds}
    return {"solved": False, **best, "seconds": round(time.monotonic() - started, 1)}


def judge(objective: Objective, model: torch.nn.Module, data: SequenceData) -> tuple[float, bool]:
    """The metric that counts on the test part, and whether that is a solution."""
    metric = objective.metrics(data.describe())[objective.metric]
    model.eval()
    with torch.no_grad():
        for batch in data.test_dataloader():
            outcome = objective(model, batch)
            metric.update(outcome.predictions, outcome.targets)
    model.train()
    score = float(metric.compute())
    if objective.mode == "max":
        return score, score >= 0.99
    return score, score <= 0.01 * min(data.baselines().values())


def better(objective: Objective, score: float, than: float) -> bool:
    return score > than if objective.mode == "max" else score < than


def cell_factory(name: str) -> Any:
    """What makes the cells of a file of configs/model/cell."""
    path = ROOT / "configs" / "model" / "cell" / f"{name}.yaml"
    return build(OmegaConf.to_container(OmegaConf.load(path)), [], f"model/cell={name}")


def spans(tried: list[dict[str, Any]], longest: int) -> dict[str, dict[int, int]]:
    """The longest length solved, 0 where none was, by cell and units; of those that are done."""
    pairs: dict[tuple[str, int], dict[int, bool]] = {}
    for entry in tried:
        pairs.setdefault((entry["cell"], entry["units"]), {})[entry["length"]] = entry["solved"]
    found: dict[str, dict[int, int]] = {}
    for (name, units), lengths in pairs.items():
        if not all(lengths.values()) or 2 * max(lengths) > longest:
            solved = [length for length, done in lengths.items() if done]
            found.setdefault(name, {})[units] = max(solved, default=0)
    return found


def resumed(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """What a file of the same settings already has."""
    if not path.exists():
        return []
    known = json.loads(path.read_text(encoding="utf-8"))
    return known["tried"] if known["settings"] == settings else []


def write(path: Path, settings: dict[str, Any], tried: list[dict[str, Any]]) -> None:
    """Everything found so far, with where it comes from."""
    found = spans(tried, settings["longest"])
    write_found(path, {"settings": settings, "spans": found, "tried": tried})


if __name__ == "__main__":
    main()
