"""A small Search Space Odyssey: the LSTM and its eight variants on three tasks, several seeds.

    python scripts/odyssey.py --data FOLDER [--seeds N] [--output FILE] [--draw]

A seed determines the initial weights, the order of the data and the learning rate (log-uniform
between 1e-3 and 1e-2, as in the random search of Greff et al., 2017), the same for all variants. A
run's score is that of the test part, with the weights that were best on the validation part. Runs
that the output file already has are skipped; --draw only plots the file, to FILE.png.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import nn

from seqnets import cells
from seqnets.benchmarking.surroundings import write_results
from seqnets.cli.console import quiet
from seqnets.cli.report import figures
from seqnets.datasets import PolyphonicMusic, Shakespeare, TimeSeriesFiles
from seqnets.insight.boxes import draw_boxes
from seqnets.models import LanguageModel, SequenceClassifier, SequenceTagger
from seqnets.training import Classification, LanguageModelling, Polyphony, SequenceModule

VARIANTS: dict[str, tuple[type, str]] = {
    "V": (cells.PeepholeLSTMCell, "vanilla: the LSTM with peepholes"),
    "NIG": (cells.NIGLSTMCell, "no input gate"),
    "NFG": (cells.NFGLSTMCell, "no forget gate"),
    "NOG": (cells.NOGLSTMCell, "no output gate"),
    "NIAF": (cells.NIAFLSTMCell, "no input activation"),
    "NOAF": (cells.NOAFLSTMCell, "no output activation"),
    "CIFG": (cells.CIFGLSTMCell, "coupled input and forget gate"),
    "NP": (cells.LSTMCell, "no peepholes"),
    "FGR": (cells.FGRLSTMCell, "full gate recurrence"),
}


@dataclass(frozen=True)
class Task:
    """A task and its training.

    Attributes:
        says: Name of the score; lower is better.
        data: Creates the dataset, given the folder of all data and a seed.
        model: Creates the model, given a cell.
        objective: The objective's class.
        score: Computes the score from a part's metrics.
        steps: Optimizer steps.
        looks: Number of validations.
    """

    says: str
    data: Callable[[str, int], Any]
    model: Callable[..., nn.Module]
    objective: Callable[[], Any]
    score: Callable[[dict[str, float]], float]
    steps: int
    looks: int = 10


TASKS = {
    "music": Task(
        "JSB chorales, nats a step",
        lambda root, seed: PolyphonicMusic(root, batch_size=16, seed=seed),
        partial(SequenceTagger, hidden_size=64),
        Polyphony,
        lambda figures: figures["nll"],
        steps=2400,
        looks=20,
    ),
    "speech": Task(
        "Japanese vowels, error in %",
        lambda root, seed: TimeSeriesFiles(root, batch_size=16, seed=seed),
        partial(SequenceClassifier, hidden_size=32),
        Classification,
        lambda figures: 100 * (1 - figures["accuracy"]),
        steps=400,
    ),
    "text": Task(
        "Shakespeare, bits a character",
        lambda root, seed: Shakespeare(root, batch_size=32, chunk_length=64, seed=seed),
        partial(LanguageModel, hidden_size=128, embedding_size=32),
        LanguageModelling,
        lambda figures: figures["bits_per_character"],
        steps=400,
        looks=2,
    ),
}


class Best(Callback):
    """Keeps the weights with the best validation score."""

    def __init__(self, task: Task) -> None:
        self.task, self.score, self.weights = task, math.inf, None

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Copy the weights if the score is the best so far."""
        score = self.task.score(figures(trainer, "val"))
        if score < self.score:
            self.score, self.weights = score, copy.deepcopy(pl_module.model.state_dict())


def run(task: Task, data: Any, variant: str, seed: int) -> dict[str, Any]:
    """Train one variant, and return its test score."""
    seed_everything(seed, verbose=False)
    rate = float(10 ** np.random.default_rng(seed).uniform(-3, -2))
    model = task.model(VARIANTS[variant][0], **data.sizes)
    optimizer = partial(torch.optim.Adam, lr=rate)
    module = SequenceModule(model, task.objective(), data.describe(), optimizer)
    best = Best(task)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, max_steps=task.steps, max_epochs=-1,
        val_check_interval=task.steps // task.looks, check_val_every_n_epoch=None,
        gradient_clip_val=1.0, callbacks=[best], use_distributed_sampler=False,
    )  # fmt: skip
    started = time.monotonic()
    trainer.fit(module, data)
    if best.weights is not None:
        module.model.load_state_dict(best.weights)
    trainer.test(module, data, verbose=False)
    return {
        "variant": variant,
        "seed": seed,
        "lr": rate,
        "score": task.score(figures(trainer, "test")),
        "seconds": round(time.monotonic() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="A small Search Space Odyssey.")
    parser.add_argument("--data", help="folder of all data, as for `dataset.root`")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("odyssey.json"))
    parser.add_argument("--draw", action="store_true", help="only plot the output file")
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f"--seeds: is {args.seeds}, expected at least 1.")
    if args.draw and not args.output.exists():
        parser.error(f"--draw: there is no {args.output}, expected a file that this script wrote.")
    if args.draw:
        draw(args.output)
        return
    found = json.loads(args.output.read_text()) if args.output.exists() else {"runs": []}
    done = {(r["task"], r["variant"], r["seed"]) for r in found["runs"]}
    found |= {
        "tasks": {name: {"says": t.says, "steps": t.steps} for name, t in TASKS.items()},
        "variants": {name: title for name, (_, title) in VARIANTS.items()},
        "seeds": list(range(args.seeds)),
    }
    for seed in range(args.seeds):
        for name, task in TASKS.items():
            data = task.data(args.data, seed)
            data.prepare_data()
            data.setup()
            for variant in VARIANTS:
                if (name, variant, seed) in done:
                    continue
                with quiet():
                    found["runs"].append({"task": name, **run(task, data, variant, seed)})
                print(found["runs"][-1], flush=True)
                write_results(args.output, found)
    draw(args.output)


def draw(path: Path) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))
    panels = {
        task["says"]: {
            variant: [
                run["score"] if math.isfinite(run["score"]) else 1e9
                for run in found["runs"]
                if (run["task"], run["variant"]) == (name, variant)
            ]
            for variant in found["variants"]
        }
        for name, task in found["tasks"].items()
    }
    draw_boxes(panels, "V").savefig(path.with_suffix(".png"), dpi=130)


if __name__ == "__main__":
    main()
