"""Measure the overhead of the command line: steps per second of a language model of the PTB.

    python scripts/measure_training.py --output FILE [--data FOLDER] [--device cuda|cpu]

Four runs take turns: `seqnets train` with its defaults (progress bar, TensorBoard, guards), the
same without TensorBoard, both in separate processes as a user starts them, the same model in a
bare loop, and that loop with torch.nn.LSTM in the model. A turn is a number of steps, between which
the device is not synchronised; a process is stopped until its next turn, so disturbances of the
machine affect all runs alike. Ratios are medians over rounds. The batches per second of the data
loader alone are measured too. Without --data, the text is random words with the PTB's length and
vocabulary size.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from torch import Tensor, nn

from seqnets import engine
from seqnets.benchmarking.devices import found_device
from seqnets.benchmarking.surroundings import write_results
from seqnets.cells import LSTMCell
from seqnets.datasets import PennTreebank
from seqnets.layers import detach
from seqnets.models import LanguageModel

WORDS = {"ptb.train.txt": 929_589, "ptb.valid.txt": 73_760, "ptb.test.txt": 82_430}
V = 10_000
COMMAND, QUIET = "seqnets train", "seqnets train logger=none"
BARE, TORCH, LOADER = "bare loop", "bare loop, nn.LSTM", "data loader alone"
MISSING: list[str] = []
"""Measurements that could not be made."""
BACKENDS: dict[str, dict[str, int]] = {}
"""How often each backend ran: in the last turn of a loop, or since the start of a command."""


@dataclass(frozen=True)
class Recipe:
    """Sizes of configs/experiment/ptb_*.yaml; the run checks that they agree."""

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


class Turns(Callback):
    """Callback that writes the time of each turn, then stops the process until it is continued."""

    def __init__(self, warmup: int, steps: int, path: str) -> None:
        self.warmup, self.steps, self.path = warmup, steps, Path(path)
        self.start = 0.0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Synchronise the device at the end of a turn only."""
        done = trainer.global_step - self.warmup
        if done < 0 or done % self.steps:
            return
        seconds = clock(pl_module.device) - self.start
        seen = {
            "seconds": seconds,
            "shapes": [list(p.shape) for p in pl_module.model.parameters()],
            "backends": dict(engine.runs),
        }
        self.path.write_text(json.dumps(seen), encoding="utf-8")
        os.kill(os.getpid(), signal.SIGSTOP)
        self.start = time.perf_counter()


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
    """A training loop as in PyTorch's tutorials; batches are slices of one tensor on the device."""

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
        """Train on one batch."""
        x, y, carry = next(self.chunks)
        self.optimizer.zero_grad()
        logits, state = self.model(x, self.state if carry else None)
        F.cross_entropy(logits.flatten(0, 1), y.flatten()).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.state = detach(state)

    def turn(self, steps: int) -> float:
        """The time of some steps, in seconds."""
        device = next(self.model.parameters()).device
        start = clock(device)
        for _ in range(steps):
            self.step()
        return clock(device) - start


class Command:
    """`seqnets train` in a separate process, with its progress bar written to a file."""

    def __init__(self, args: argparse.Namespace, data: Path, folder: Path, *more: str) -> None:
        script = Path(__file__)
        path = os.pathsep.join(filter(None, [str(script.parent), os.environ.get("PYTHONPATH")]))
        # makes rich draw the progress bar although this is not a terminal
        terminal = {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TERM": "xterm"}
        folder.mkdir()
        self.seen, self.screen = folder / "turn.json", folder / "screen.txt"
        turns = f"{script.stem}.{Turns.__name__}"
        arguments = [
            f"experiment=ptb_{args.model}", f"dataset.root='{data}'", f"output='{folder}'",
            f"trainer={'gpu' if args.device == 'cuda' else 'cpu'}",
            f"trainer.max_steps={args.warmup + args.rounds * args.steps + 1}",
            "trainer.max_epochs=-1", "+trainer.limit_test_batches=0", f"allow=[{script.stem}]",
            f"+callbacks.turns._target_={turns}", f"+callbacks.turns.warmup={args.warmup}",
            f"+callbacks.turns.steps={args.steps}", f"+callbacks.turns.path='{self.seen}'",
            *args.overrides, *more,
        ]  # fmt: skip
        with self.screen.open("w") as screen:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "seqnets", "train", *arguments],
                env={**os.environ, **terminal, "PYTHONPATH": path},
                stdout=screen,
                stderr=subprocess.STDOUT,
            )

    def turn(self, steps: int) -> float:
        """Continue the process until the end of its turn, and return the turn's time in seconds."""
        self.go_on()
        self.wait()
        return float(self.saw()["seconds"])

    def wait(self) -> None:
        """Wait until the process stops itself."""
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            self.process.returncode = os.waitstatus_to_exitcode(status)
            raise RuntimeError(self._ended())

    def saw(self) -> dict[str, Any]:
        """What the callback wrote at the end of the last turn."""
        seen: dict[str, Any] = json.loads(self.seen.read_text(encoding="utf-8"))
        return seen

    def told(self) -> str:
        """The process's terminal output."""
        return self.screen.read_text(encoding="utf-8")

    def _ended(self) -> str:
        return f"seqnets train ended with {self.process.returncode}:\n{self.told()[-3000:]}"

    def go_on(self) -> None:
        """Continue the process."""
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Wait until the process has ended."""
        self.process.wait()
        if self.process.returncode:
            raise RuntimeError(self._ended())
        if "training" not in self.told():
            MISSING.append(f"{COMMAND}: its progress bar was not drawn")


class Loader:
    """The training data loader alone."""

    def __init__(self, data: PennTreebank) -> None:
        self.batches = chain.from_iterable(data.train_dataloader() for _ in count())

    def turn(self, steps: int) -> float:
        """The time of some batches, in seconds."""
        start = time.perf_counter()
        for _ in range(steps):
            next(self.batches)
        return time.perf_counter() - start


def clock(device: torch.device) -> float:
    """The time at which the device has finished its work, in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def random_words(folder: Path) -> Path:
    """Write files like the PTB's of random words, all of which occur in the training file."""
    random = np.random.default_rng(0)
    names = np.array(["<unk>", *(f"w{n}" for n in range(V - 2))])  # the line end is a word too
    for file, number in WORDS.items():
        words = names[random.integers(len(names), size=number)]
        words[: len(names)] = names
        words[20::21] = "\n"
        (folder / file).write_text(" ".join(words), encoding="utf-8")
    return folder


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder with ptb.train.txt and the others")
    available = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=found_device, choices=("cuda", "cpu"), default=available)
    parser.add_argument("--model", choices=RECIPES, default="medium")
    parser.add_argument(
        "--steps", type=int, default=50, help="steps per turn; 50 are one logging interval"
    )
    parser.add_argument("--rounds", type=int, default=12, help="turns of each run")
    parser.add_argument("--warmup", type=int, default=50, help="steps before the first turn")
    parser.add_argument("overrides", nargs="*", help="more for `seqnets train`, as KEY=VALUE")
    args = parser.parse_args()
    if args.data and not args.data.is_dir():
        parser.error(f"--data: is {str(args.data)!r}, expected a folder.")
    for key in ("steps", "rounds", "warmup"):
        if vars(args)[key] < 1:
            parser.error(f"--{key}: is {vars(args)[key]}, expected at least 1.")

    with tempfile.TemporaryDirectory() as temporary:
        data = args.data or random_words(Path(temporary))
        found = measure(args, data.absolute(), Path(temporary))

    medians = {name: statistics.median(values) for name, values in found.items()}
    pairs = [(COMMAND, BARE), (COMMAND, QUIET), (COMMAND, TORCH), (BARE, TORCH), (LOADER, BARE)]
    ratios = {
        f"{one} / {other}": round(median_ratio(found[one], found[other]), 4)
        for one, other in pairs
        if one in medians
    }
    result = {
        "what": "optimizer steps per second",
        "data": "Penn Treebank" if args.data else "random words of the same sizes",
        "model": args.model,
        "recipe": asdict(RECIPES[args.model]) | {"V": V},
        "device": args.device,
        "backends": BACKENDS,
        "steps_of_a_turn": args.steps,
        "overrides": args.overrides,
        "missing": sorted(set(MISSING)),
        "median": {name: round(value, 2) for name, value in medians.items()},
        "ratios": ratios,
        "turns": {name: [round(v, 2) for v in values] for name, values in found.items()},
    }
    write_results(args.output, result)
    for missing in result["missing"]:
        print(f"missing: {missing}")
    print(f"{args.model}, {result['data']}, {args.device}, by {', '.join(BACKENDS[BARE])}")
    for name, value in medians.items():
        print(f"{name:20} {value:8.1f} steps/s  {1e3 / value:7.2f} ms")
    for name, value in ratios.items():
        print(f"{name:38} {value:6.3f}")


def median_ratio(ones: list[float], others: list[float]) -> float:
    """The median over rounds of the speed ratio."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def measure(args: argparse.Namespace, data: Path, folder: Path) -> dict[str, list[float]]:
    """Start all runs, let them take turns, and return the steps per second of each turn."""
    recipe, device = RECIPES[args.model], torch.device(args.device)
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
    commands: dict[str, Command] = {}
    try:
        if find_spec("hydra"):
            commands[COMMAND] = Command(args, data, folder / "as it stands")
            commands[QUIET] = Command(args, data, folder / "no logger", "logger=none")
        else:
            MISSING.append(f"{COMMAND}: hydra is not installed")
        for loop in loops.values():
            loop.turn(args.warmup)
        for command in commands.values():
            command.wait()
        found = take_turns({**commands, **loops, LOADER: Loader(ptb)}, args)
        shapes = [list(p.shape) for p in model.parameters()]
        for name, command in commands.items():
            seen = command.saw()
            BACKENDS[name] = seen["backends"]
            if seen["shapes"] != shapes and not args.overrides:
                raise RuntimeError(f"{name} trained a model of {seen['shapes']}, not {shapes}.")
            command.go_on()
        for command in commands.values():
            command.end()
    finally:
        for command in commands.values():
            command.process.kill()
    return found


def take_turns(runs: dict[str, Any], args: argparse.Namespace) -> dict[str, list[float]]:
    """The steps per second of each turn of each run."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            engine.runs.clear()
            found[name].append(args.steps / run.turn(args.steps))
            BACKENDS[name] = dict(engine.runs)
        print("  ".join(f"{name} {values[-1]:.1f}" for name, values in found.items()), flush=True)
    return found


if __name__ == "__main__":
    main()
