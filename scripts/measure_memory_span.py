"""Measure how long cells remember: the longest task that each solves, by number of units.

    python scripts/measure_memory_span.py --task copy --cells rnn,lstm --widths 16,32

For each cell (a name in configs/model/cell) and width, a model with one layer is trained from
scratch at each length: the shortest, double that, and so on, up to the longest or the first that is
not solved. Solved means, on 1,000 held-out sequences, an accuracy of 0.99, or a hundredth of the
squared error of the best baseline. A model is trained with Adam for at most --steps steps on new
sequences, at each of the rates in turn.

The output is written after each training, so the same command continues an interrupted run. With
--output FILE.json, the plot is FILE.png.
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

from seqnets.benchmarking.surroundings import write_results
from seqnets.cli.build import build
from seqnets.datasets import Adding, Copy, Recall, SequenceData
from seqnets.insight.spans import draw_spans
from seqnets.models import SequenceClassifier, SequenceRegressor, SequenceTagger
from seqnets.training import Classification, Objective, Regression, Tagging

ROOT = Path(__file__).parents[1]
CELLS = ROOT / "configs" / "model" / "cell"
RESULT = ROOT / "benchmarks" / "results" / "memory_span.json"
BATCH = 32
CHECKED_EVERY = 100


class Task(NamedTuple):
    """A synthetic task.

    Attributes:
        data: Creates the data for a length.
        model: The model's class.
        objective: The objective.
        title: Title for the plot.
        shortest: The first length to try.
    """

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
    """Run the trainings that are missing, write the results and plot them."""
    args = arguments()
    task = TASKS[args.task]
    settings = {
        "task": args.task,
        "shortest": task.shortest,
        "longest": args.longest,
        "steps": args.steps,
        "batch": BATCH,
        "rates": args.rates,
    }
    tried = resumed(args.output, settings)
    for name in args.cells:
        for width in args.widths:
            length = task.shortest
            while length <= args.longest:
                key = {"cell": name, "units": width, "length": length}
                known = [entry for entry in tried if key.items() <= entry.items()]
                if not known:
                    known = [{**key, **solve(task, name, width, length, args.steps, args.rates)}]
                    tried += known
                    write(args.output, settings, tried)
                    print(known[0], flush=True)
                if not known[0]["solved"]:
                    break
                length *= 2
    found = spans(tried, args.longest)
    title = f"{task.title}: {args.steps:,} steps of {BATCH} sequences"
    figure = draw_spans(found, task.shortest, args.longest, title)
    figure.savefig(args.output.with_suffix(".png"), dpi=150)
    print(f"Written: {args.output} and its picture.")


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Measure how long each kind of cell remembers.")
    parser.add_argument("--task", choices=sorted(TASKS), default="copy")
    parser.add_argument("--cells", type=names, default="rnn,irnn,exprnn,gru,lstm,lru")
    parser.add_argument("--widths", type=widths, default="16,32,64")
    parser.add_argument("--longest", type=int, default=128, help="stop at this length")
    parser.add_argument("--steps", type=int, default=1000, help="optimizer steps of a training")
    parser.add_argument("--rates", type=rates, default="3e-3,1e-3", help="learning rates to try")
    parser.add_argument("--output", type=Path, default=RESULT, help="a .json file")
    args = parser.parse_args()
    if args.longest < (shortest := TASKS[args.task].shortest):
        parser.error(f"--longest: is {args.longest}, expected at least {shortest}, for this task.")
    if args.output.suffix != ".json":
        parser.error(f"--output: is {str(args.output)!r}, expected a name that ends with .json.")
    return args


def names(text: str) -> list[str]:
    """Read cells, separated by commas."""
    known = {path.stem for path in CELLS.glob("*.yaml")}
    if unknown := [name for name in text.split(",") if name not in known]:
        raise argparse.ArgumentTypeError(f"no cells {unknown}; `seqnets list cells` has them")
    return text.split(",")


def widths(text: str) -> list[int]:
    """Read numbers of units, separated by commas."""
    return [int(number) for number in text.split(",")]


def rates(text: str) -> list[float]:
    """Read learning rates, separated by commas."""
    return [float(number) for number in text.split(",")]


def solve(
    task: Task, name: str, width: int, length: int, steps: int, rates: list[float]
) -> dict[str, Any]:
    """Train at each rate until one solves the task; return the best score, its rate and step."""
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
    """The main metric on the test part, and whether it counts as solved."""
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
    """The cell factory of a file in configs/model/cell."""
    return build(OmegaConf.load(CELLS / f"{name}.yaml"), key=f"model/cell={name}")


def spans(tried: list[dict[str, Any]], longest: int) -> dict[str, dict[int, int]]:
    """The longest length solved, 0 for none, by cell and units, if all were tried."""
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
    """The trainings in an earlier output with the same settings."""
    if not path.exists():
        return []
    known = json.loads(path.read_text(encoding="utf-8"))
    return known["tried"] if known["settings"] == settings else []


def write(path: Path, settings: dict[str, Any], tried: list[dict[str, Any]]) -> None:
    """Write all results so far."""
    found = spans(tried, settings["longest"])
    write_results(path, {"settings": settings, "spans": found, "tried": tried})


if __name__ == "__main__":
    main()
