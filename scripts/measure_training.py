"""Measure what the command line costs: steps a second of a language model of PTB's words.

    python scripts/measure_training.py --output FILE [--data FOLDER] [--device cuda|cpu]

Four runs take turns in one process: `seqnets train` as it stands (progress bar, TensorBoard,
guards), the same without TensorBoard, the same model in a bare loop, and that loop with
torch.nn.LSTM in the model. Each window is so many steps of training; the device is waited for at
its ends alone. How many batches a second the data loader gives by itself is noted too. Without
--data the text is random words, as many and as different as those of PTB.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import chain, count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from torch import Tensor, nn

from seqnets import engine
from seqnets.benchmarking.surroundings import commit, machine, now, versions
from seqnets.cells import LSTMCell
from seqnets.datasets import PennTreebank
from seqnets.layers import detach
from seqnets.models import LanguageModel

WORDS = {"ptb.train.txt": 929_589, "ptb.valid.txt": 73_760, "ptb.test.txt": 82_430}
V = 10_000
COMMAND, QUIET = "seqnets train", "seqnets train logger=none"
BARE, TORCH, LOADER = "bare loop", "bare loop, nn.LSTM", "data loader alone"
MISSING: list[str] = []
"""What was to be measured and was not."""
BACKENDS: dict[str, dict[str, int]] = {}
"""How often each of the engine's backends ran in the last round of a run."""


@dataclass(frozen=True)
class Recipe:
    """An experiment's sizes: those of configs/experiment/ptb_*.yaml, which the run checks."""

    H: int
    T: int
    dropout: float
    init_range: float
    lr: float
    clip: float
    B: int = 20
    layers: int = 2


RECIPES = {
    "medium": Recipe(H=650, T=35, dropout=0.5, init_range=0.05, lr=35.0, clip=5 / 35),
    "small": Recipe(H=200, T=20, dropout=0.0, init_range=0.1, lr=20.0, clip=5 / 20),
}


class Windows(Callback):
    """Note when each window of a trainer's steps begins and ends."""

    marks: list[float]
    shapes: list[tuple[int, ...]]

    def __init__(self, warmup: int, steps: int) -> None:
        self.warmup, self.steps = warmup, steps

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin anew, where the script finds it all once the run is over."""
        Windows.marks = []
        Windows.shapes = [tuple(p.shape) for p in pl_module.model.parameters()]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Wait for the device at the ends of windows only."""
        done = trainer.global_step - self.warmup
        if done >= 0 and done % self.steps == 0:
            Windows.marks.append(clock(pl_module.device))


class TorchModel(nn.Module):
    """The language model with torch.nn.LSTM for its recurrent layers."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        H, p = recipe.H, recipe.dropout
        self.embedding = nn.Embedding(V, H)
        self.recurrent = nn.LSTM(H, H, recipe.layers, batch_first=True, dropout=p)
        self.dropout = nn.Dropout(p)
        self.output = nn.Linear(H, V)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -recipe.init_range, recipe.init_range)

    def forward(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Logits and state."""
        y, state = self.recurrent(self.dropout(self.embedding(tokens)), state)
        return self.output(self.dropout(y)), state


class BareLoop:
    """Training as PyTorch's tutorials write it; batches are cut from one tensor on the device."""

    def __init__(self, model: nn.Module, rows: Tensor, recipe: Recipe) -> None:
        self.model, self.recipe = model.to(rows.device), recipe
        self.optimizer = torch.optim.SGD(model.parameters(), recipe.lr)
        self.chunks = self._chunks(rows)
        self.state: Any = None

    def _chunks(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor, bool]]:
        T = self.recipe.T
        while True:
            for start in range(0, rows.shape[1] - T, T):
                end = start + T
                yield rows[:, start:end], rows[:, start + 1 : end + 1], start > 0

    def step(self) -> None:
        """One batch."""
        x, y, carry = next(self.chunks)
        self.optimizer.zero_grad()
        logits, state = self.model(x, self.state if carry else None)
        F.cross_entropy(logits.flatten(0, 1), y.flatten()).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.state = detach(state)

    def windows(self, number: int, steps: int, warmup: int) -> list[float]:
        """Steps a second of so many windows."""
        device = next(self.model.parameters()).device
        for _ in range(warmup):
            self.step()
        marks = [clock(device)]
        for _ in range(number):
            for _ in range(steps):
                self.step()
            marks.append(clock(device))
        return rates(marks, steps)


def clock(device: torch.device) -> float:
    """The time at which the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def rates(marks: list[float], steps: int) -> list[float]:
    """Steps a second between marks."""
    return [steps / (end - begin) for begin, end in pairwise(marks)]


def by_command(
    model: str, data: Path, device: str, windows: int, steps: int, warmup: int, also: list[str]
) -> list[float]:
    """Steps a second of `seqnets train`, by its own entry point; the bar is drawn into nowhere."""
    from seqnets.cli.main import command

    screen = io.StringIO()
    with tempfile.TemporaryDirectory() as output:
        arguments = [
            f"experiment=ptb_{model}", f"dataset.root='{data}'", f"output='{output}'",
            f"trainer={'gpu' if device == 'cuda' else 'cpu'}",
            f"trainer.max_steps={warmup + windows * steps + 1}", "trainer.max_epochs=-1",
            "+trainer.limit_test_batches=1", f"allow=[{__name__}]",
            f"+callbacks.windows._target_={__name__}.Windows",
            f"+callbacks.windows.warmup={warmup}", f"+callbacks.windows.steps={steps}",
            *also,
        ]  # fmt: skip
        with contextlib.redirect_stdout(screen):
            code = command(["train", *arguments])
    if code:
        raise RuntimeError(f"seqnets train ended with {code}:\n{screen.getvalue()[-2000:]}")
    if "training" not in screen.getvalue():
        MISSING.append(f"{COMMAND}: its progress bar was not drawn")
    return rates(Windows.marks, steps)


def random_words(folder: Path) -> Path:
    """Files as PTB's, of words drawn at random; every word stands in the one for training."""
    random = np.random.default_rng(0)
    names = np.array(["<unk>", *(f"w{n}" for n in range(V - 2))])  # the line's end is a word too
    for file, number in WORDS.items():
        words = names[random.integers(len(names), size=number)]
        words[: len(names)] = names
        words[20::21] = "\n"
        (folder / file).write_text(" ".join(words), encoding="utf-8")
    return folder


def drawn(data: PennTreebank, windows: int, steps: int) -> list[float]:
    """Batches a second that the training loader gives by itself."""
    batches = chain.from_iterable(data.train_dataloader() for _ in count())
    marks = [time.perf_counter()]
    for _ in range(windows):
        for _ in range(steps):
            next(batches)
        marks.append(time.perf_counter())
    return rates(marks, steps)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder with ptb.train.txt and the others")
    available = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cuda", "cpu"), default=available)
    parser.add_argument("--model", choices=RECIPES, default="medium")
    parser.add_argument("--steps", type=int, default=500, help="of a window; an epoch has 1327")
    parser.add_argument("--windows", type=int, default=2, help="of each run in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=50, help="steps before a round's windows")
    parser.add_argument("overrides", nargs="*", help="more for `seqnets train`, as KEY=VALUE")
    given = parser.parse_args()
    # rich draws its bar where it believes in a terminal
    os.environ.update(FORCE_COLOR="1", TTY_COMPATIBLE="1", TERM="xterm")

    with tempfile.TemporaryDirectory() as temporary:
        real = given.data is not None and given.data.is_dir()
        data = given.data if real else random_words(Path(temporary))
        found = measure(given, data.absolute())

    medians = {name: statistics.median(values) for name, values in found.items()}
    pairs = [(COMMAND, BARE), (COMMAND, QUIET), (COMMAND, TORCH), (BARE, TORCH), (LOADER, BARE)]
    ratios = {
        f"{one} / {other}": round(medians[one] / medians[other], 4)
        for one, other in pairs
        if one in medians
    }
    result = {
        "what": "optimizer steps a second",
        "data": "Penn Treebank" if real else "random words of the same sizes",
        "model": given.model,
        "recipe": asdict(RECIPES[given.model]) | {"V": V},
        "device": given.device,
        "backends": BACKENDS,
        "steps_of_a_window": given.steps,
        "overrides": given.overrides,
        "missing": sorted(set(MISSING)),
        "median": {name: round(value, 2) for name, value in medians.items()},
        "ratios": ratios,
        "windows": {name: [round(v, 2) for v in values] for name, values in found.items()},
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "date": now(),
    }
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for missing in result["missing"]:
        print(f"missing: {missing}")
    print(f"{given.model}, {result['data']}, {given.device}, by {', '.join(BACKENDS[BARE])}")
    for name, value in medians.items():
        print(f"{name:20} {value:8.1f} steps/s  {1e3 / value:7.2f} ms")
    for name, value in ratios.items():
        print(f"{name:38} {value:6.3f}")


def measure(given: argparse.Namespace, data: Path) -> dict[str, list[float]]:
    """Steps a second of each window of each run."""
    recipe, device = RECIPES[given.model], torch.device(given.device)
    torch.manual_seed(0)
    ptb = PennTreebank(str(data), batch_size=recipe.B, chunk_length=recipe.T)
    ids = torch.from_numpy(ptb.tokens.part("train").astype(np.int64))
    rows = ids[: len(ids) // recipe.B * recipe.B].view(recipe.B, -1).to(device)
    model = LanguageModel(
        LSTMCell,
        V,
        embedding_size=recipe.H,
        hidden_size=recipe.H,
        num_layers=recipe.layers,
        dropout=recipe.dropout,
        init_range=recipe.init_range,
    )
    loops = {
        BARE: BareLoop(model, rows, recipe),
        TORCH: BareLoop(TorchModel(recipe), rows, recipe),
    }
    plan = (given.windows, given.steps, given.warmup)
    runs: dict[str, Callable[[], list[float]]] = {}
    if find_spec("hydra"):

        def command(*more: str) -> Callable[[], list[float]]:
            also = [*given.overrides, *more]
            return lambda: by_command(given.model, data, given.device, *plan, also)

        runs |= {COMMAND: command(), QUIET: command("logger=none")}
    else:
        MISSING.append(f"{COMMAND}: hydra is not installed")
    runs |= {name: lambda loop=loop: loop.windows(*plan) for name, loop in loops.items()}
    runs[LOADER] = lambda: drawn(ptb, given.windows, given.steps)

    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(given.rounds):
        for name, run in runs.items():
            engine.runs.clear()
            found[name] += run()
            BACKENDS[name] = dict(engine.runs)
            print(f"{name}: {found[name][-1]:.1f} steps/s", flush=True)
    if COMMAND in runs and not given.overrides:
        shapes = [tuple(p.shape) for p in model.parameters()]
        if Windows.shapes != shapes:
            raise RuntimeError(
                f"{COMMAND} trained a model of shapes {Windows.shapes}, not {shapes}"
            )
    return found


if __name__ == "__main__":
    main()
