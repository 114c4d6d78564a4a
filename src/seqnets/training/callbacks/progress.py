"""A run's progress on the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from lightning.pytorch import Trainer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from seqnets.insight.rounded import rounded
from seqnets.training.callbacks.base import SequenceCallback
from seqnets.training.callbacks.deferred import Deferred
from seqnets.training.callbacks.throughput import Timed
from seqnets.training.trainers import data_of, is_training
from seqnets.typing import Batch

_REFRESH = 0.2  # seconds between two updates

_COUNTED = {"characters": "characters", "words": "words", "bpe": "tokens"}
"""What time steps are called, by the dataset's unit; "time steps" for other units."""


class Progress(SequenceCallback, Timed):
    """A progress bar with loss, the objective's metric, and throughput.

    If the output is not a terminal, or one that can only write lines (``TERM=dumb``), a line is
    printed after each validation and at the end instead.

    Args:
        console: Where to draw; the standard output if omitted.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self._console = console or Console()
        self._bar: _Bar | None = None
        self._task: Any = None
        self._fields: dict[str, Any] = {"figures": "", "validation": "", "rate": ""}
        self._looked = 0.0
        self._loss: Deferred | None = None
        self._printed = self._validated = -1

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Draw the bar if there is a terminal."""
        if not trainer.is_global_zero or not self._console.is_interactive:
            return
        self._bar = _Bar(
            TextColumn("[bold]{task.description:10}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            console=self._console,
            refresh_per_second=5,
        )
        total = trainer.estimated_stepping_batches
        self._task = self._bar.add_task(
            "training",
            total=int(total) if total < float("inf") else None,
            completed=trainer.global_step,
            **self._fields,
        )
        self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Update a few times a second, with the loss requested at the update before."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._bar is None or time.monotonic() - self._looked < _REFRESH:
            return
        self._looked = time.monotonic()
        self._show(trainer, pl_module)
        self._loss = Deferred(pl_module.last_loss[None])
        self._bar.update(self._task, completed=trainer.global_step, **self._fields)

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Show that validation is running."""
        super().on_validation_start(trainer, pl_module)
        if self._bar is not None:
            self._bar.update(self._task, description="validating")

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Show the validation's figure."""
        if not (is_training(trainer) and trainer.is_global_zero):
            return
        metric = pl_module.objective.metric
        score = float(trainer.callback_metrics[f"val/{metric}"])
        shown = metric == "loss" or metric in pl_module.objective.derived(0.0)
        name = "" if shown else f"{metric.replace('_', ' ')} "  # else training's figure names it
        self._fields["validation"] = f"validation {name}{rounded(score)}  "
        self._validated = trainer.global_step
        if self._bar is not None:
            self._bar.update(self._task, description="training", **self._fields)
        else:
            self._print(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Show the final figures and leave them on screen."""
        idle = pl_module.last_loss is None  # a resumed run with nothing left to train
        if self._validated not in (-1, trainer.global_step):  # stopped since
            figure = self._fields["validation"].rstrip()
            self._fields["validation"] = f"{figure} (step {self._validated:,})  "
        if self._bar is not None:
            self._look(trainer, pl_module)
            self._bar.update(self._task, completed=trainer.global_step, **self._fields)
        elif trainer.is_global_zero and self._printed != trainer.global_step and not idle:
            self._print(trainer, pl_module)
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Restore the terminal."""
        self._stop()

    def _look(self, trainer: Trainer, pl_module: Any) -> None:
        if pl_module.last_loss is not None:  # None in a resumed run with nothing left to train
            self._loss = Deferred(pl_module.last_loss[None])
        self._show(trainer, pl_module)

    def _show(self, trainer: Trainer, pl_module: Any) -> None:
        if self._loss is None:
            return
        (loss,) = self._loss.read()
        figures = {"loss": loss, **pl_module.objective.derived(loss)}
        shown = (f"{name.replace('_', ' ')} {rounded(value)}" for name, value in figures.items())
        self._fields["figures"] = "  ".join(shown) + "  "
        rate = self.read_throughput()
        if rate:  # 0 if no batch has ended since: keep the last rate
            counted = _COUNTED.get(getattr(data_of(trainer), "unit", ""), "time steps")
            self._fields["rate"] = f"{rate:,.0f} {counted}/s"

    def _print(self, trainer: Trainer, pl_module: Any) -> None:
        self._printed = trainer.global_step
        self._look(trainer, pl_module)
        line = f"step {trainer.global_step:,}  " + "".join(self._fields.values())
        self._console.print(line.rstrip(), highlight=False, soft_wrap=True)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _Bar(RichProgress):
    """A bar with its figures beside it if there is room, else below it."""

    def get_renderables(self) -> Iterable[RenderableType]:
        bar = self.make_tasks_table(self.tasks)
        for task in self.tasks:
            figures = Text.assemble(
                task.fields["figures"],
                (task.fields["validation"], "green"),
                (task.fields["rate"], "dim"),
            )
            room = self.console.width - self.console.measure(bar).maximum - 1
            if figures.cell_len > room:
                yield bar
                yield figures
            else:
                row = Table.grid(padding=(0, 1))
                row.add_row(bar, figures)
                yield row
