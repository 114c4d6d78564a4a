"""One LightningModule for all tasks."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import Metric, MetricCollection

import seqnets
from seqnets.errors import CheckpointError, ConfigError
from seqnets.layers import detach, map_state
from seqnets.models.heads import wide
from seqnets.training import random_state
from seqnets.training.averaging import NonMonotonicASGD
from seqnets.training.checkpoint import check_data, check_weights
from seqnets.training.graphs import BatchGraphs
from seqnets.training.metrics import MeanLoss, Metrics
from seqnets.training.objectives import Objective, Outcome
from seqnets.typing import Batch, Known

FORMAT = 1

_MODES = {True: "max", False: "min", None: None}
"""Which way a metric improves, by whether it says that higher is better."""


class SequenceModule(LightningModule):
    """A model, what it is to learn, and how.

    Where a batch continues the one before (``batch.carry``), the model's state is carried over
    without its history: gradients flow through one batch, which is truncated backpropagation
    through time. Training and evaluation carry states of their own.

    Its checkpoints hold, beside Lightning's part, what an exact resume needs of every process:
    random states, carried state, and gradients that wait for more to be added.

    Args:
        model: Takes (x, state, lengths), gives (output, state).
        objective: Scores what it gives.
        known: What the dataset says of itself, for the metrics and the card.
        optimizer: Makes the optimizer from the parameters. The averages of one that averages
            weights are what is validated, kept in checkpoints and left at the end.
        scheduler: Makes the learning-rate schedule from the optimizer; constant if omitted. One
            that takes ``total_steps`` is told the run's optimizer steps and advances each step;
            one that waits for a plateau looks at the validation loss; others advance each epoch.

    Attributes:
        card: Plain values that the checkpoint keeps: the resolved "config", and what the dataset
            says of itself as "data".
        last_loss: The loss of the last training batch, over all processes, on its device; None
            before the first.
        gradient_norm: The norm of the gradients that are about to be used, if somebody has found
            it; clipping then need not.
        graphs: What runs training batches in one launch each, where it can; the callback CUDAGraphs
            puts it there.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        known: Known,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.optimizer_factory = optimizer
        self.scheduler_factory = scheduler
        self.card: dict[str, Any] = {"config": {}, "data": known}
        self.last_loss: Tensor | None = None
        self.gradient_norm: Tensor | None = None
        self.graphs: BatchGraphs | None = None
        self._differentiated = False
        self.losses = Metrics({part: MeanLoss() for part in ("val", "test")})
        scored = {part: objective.metrics(known) for part in ("val", "test")}
        self.scores = Metrics(
            {part: _together(metrics.values()) for part, metrics in scored.items()}
        )
        self._modes = {name: _MODES[m.higher_is_better] for name, m in scored["val"].items()}
        self._carried: dict[str, Any] = {"train": None, "val": None, "test": None}
        self._plateau: ReduceLROnPlateau | None = None
        self._averaging: NonMonotonicASGD | None = None
        self._validating = ExitStack()
        self._resumed: dict[str, Any] | None = None

    @property
    def figures(self) -> dict[str, str | None]:
        """What is logged of a part that is scored, by name, and which way it improves.

        That is "min" or "max"; None where nobody says.
        """
        figures = {"loss": "min", **dict.fromkeys(self.objective.derived(0.0)), **self._modes}
        return {**figures, self.objective.metric: self.objective.mode}

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # which Lightning sets some forty times a step
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        state, replayed = self._before(batch, "train"), None
        if self.graphs is not None:
            replayed = self.graphs.run(batch, state)
        self._differentiated = replayed is not None
        if replayed is not None:
            self.last_loss, self._carried["train"] = replayed.loss, replayed.state
            return replayed.total
        outcome = self._run(batch, state, "train")
        self.last_loss = _mean_of_all_processes(outcome.loss.detach())
        return outcome.total

    def optimizer_zero_grad(self, *args: Any) -> None:
        """Forget the last gradients, unless those of a replayed batch are there already."""
        if not self._differentiated:
            super().optimizer_zero_grad(*args)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Find the gradients, unless those of a replayed batch are there already.

        In this thread, for the one that torch keeps for a GPU has to be woken each time.
        """
        if not self._differentiated:
            with torch.autograd.set_multithreading_enabled(False):
                super().backward(loss, *args, **kwargs)

    def as_validated(self) -> AbstractContextManager[None]:
        """Have the weights that validations see: averages, where the optimizer makes them."""
        return nullcontext() if self._averaging is None else self._averaging.averaged()

    def on_validation_start(self) -> None:
        """Take the averaged weights, if there are any."""
        self._validating.enter_context(self.as_validated())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a validation batch."""
        self._score(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a test batch."""
        self._score(batch, "test")

    def on_validation_epoch_end(self) -> None:
        """Log the figures of the whole validation part, and tell those that wait for them."""
        loss = self._summarise("val")
        if not is_training(self.trainer):
            return
        if self._plateau is not None:
            self._plateau.step(loss)
        if self._averaging is not None:
            self._averaging.observe(loss)

    def on_validation_end(self) -> None:
        """Take the weights that training goes on with; the callbacks have been called."""
        self._validating.close()

    def on_train_end(self) -> None:
        """Leave the averaged weights, if there are any."""
        if self._averaging is not None:
            self._averaging.finish()

    def on_test_epoch_end(self) -> None:
        """Log the figures of the whole test part."""
        self._summarise("test")

    def configure_optimizers(self) -> Any:
        """The optimizer, and the schedule with when it advances."""
        optimizer = self.optimizer_factory(self.model.parameters())
        self._averaging = optimizer if isinstance(optimizer, NonMonotonicASGD) else None
        if self._averaging is not None:
            self._check_validates("NonMonotonicASGD")
        if self.scheduler_factory is None:
            return optimizer
        if "total_steps" in inspect.signature(self.scheduler_factory).parameters:
            total = _steps_of_the_run(self.trainer)
            if total is None:
                raise ConfigError(
                    "scheduler: one that spans the run came with a run of no known length.\n"
                    "  Give trainer.max_epochs or trainer.max_steps beside max_time, or take "
                    "scheduler=constant."
                )
            schedule = self.scheduler_factory(optimizer, total_steps=total)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]
        schedule = self.scheduler_factory(optimizer)
        if isinstance(schedule, ReduceLROnPlateau):
            if schedule.mode != "min":
                raise ConfigError(
                    f"scheduler: mode is {schedule.mode!r}, expected 'min': a plateau is one of "
                    f"the validation loss."
                )
            self._check_validates("scheduler: ReduceLROnPlateau")
            # Lightning would advance it after the moment at which checkpoints are written
            self._plateau = schedule
            return optimizer
        return [optimizer], [{"scheduler": schedule, "interval": "epoch"}]

    def _check_validates(self, who: str) -> None:
        """Raise where something waits for validations and there are none."""
        if not self.trainer.limit_val_batches:
            raise ConfigError(
                f"{who} came with trainer.limit_val_batches=0, expected validations: it goes by "
                f"their loss, and would do nothing."
            )

    def on_train_start(self) -> None:
        """Go on where the run that is resumed was: random numbers, gradients, schedule."""
        if self._resumed is None:
            return
        random_state.restore(self._resumed["random"])
        for name, parameter in self.named_parameters():
            if name in self._resumed["gradients"]:
                parameter.grad = self._resumed["gradients"][name].to(parameter.device)
        if self._plateau is not None and self._resumed["plateau"] is not None:
            self._plateau.load_state_dict(self._resumed["plateau"])
        self._resumed = None

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Tell callbacks the loss now and then; Monitor writes it to the loggers."""
        if self.last_loss is not None and is_time_to_log(self.trainer):
            self.log("train/loss", self.last_loss, logger=False)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients as the trainer says, by the norm that is known where one is."""
        norm, self.gradient_norm = self.gradient_norm, None
        if norm is None or not gradient_clip_val or gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grads_with_norm_(parameters, float(gradient_clip_val), norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what an exact resume needs, and the card."""
        waiting = self.trainer.accumulate_grad_batches > 1
        mine = {
            "random": random_state.capture(),
            "gradients": {
                name: parameter.grad.cpu()
                for name, parameter in self.named_parameters()
                if waiting and parameter.grad is not None
            },
            "carried": map_state(Tensor.cpu, self._carried["train"]),
            "plateau": None if self._plateau is None else self._plateau.state_dict(),
        }
        checkpoint["seqnets"] = {
            "format": FORMAT,
            "version": seqnets.__version__,
            **self.card,
            "processes": _of_all_processes(mine),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the carried state, and the random states for when training starts.

        Raises:
            CheckpointError: The checkpoint is of another format or model, its run had other data,
                or it was written by another number of processes.
        """
        path = str(self.trainer.ckpt_path)
        ours = checkpoint["seqnets"]
        if ours["format"] != FORMAT:
            raise CheckpointError(
                f"Checkpoint {path}: has format {ours['format']}, expected {FORMAT}.\n"
                f"  It was written by seqnets {ours['version']}."
            )
        check_weights(self, checkpoint, path)
        # Lightning would fill the weights first, and round those of float64
        self.trainer.precision_plugin.convert_module(self)
        if self.trainer.state.fn != "fit":
            return
        check_data(ours["data"], self.card["data"], path)
        processes = ours["processes"]
        if len(processes) != self.trainer.world_size:
            raise CheckpointError(
                f"Checkpoint {path}: was written by {len(processes)} processes, expected "
                f"{self.trainer.world_size}.\n"
                f"  Each has a state of its own; resume with as many (trainer.devices)."
            )
        self._resumed = processes[self.trainer.global_rank]
        self._carried["train"] = self._resumed["carried"]

    def _before(self, batch: Batch, part: str) -> Any:
        """The state that is carried into a batch; None if it begins anew."""
        state = self._carried[part] if batch.carry else None
        return map_state(lambda tensor: tensor.to(self.device), state)

    def _run(self, batch: Batch, state: Any, part: str) -> Outcome:
        outcome = self.objective(self.model, batch, state)
        self._carried[part] = detach(outcome.state)
        return outcome

    def _score(self, batch: Batch, part: str) -> None:
        outcome = self._run(batch, self._before(batch, part), part)
        self.losses[part].update(outcome.loss, outcome.scored)  # type: ignore[operator]
        self.scores[part].update(wide(outcome.predictions), wide(outcome.targets))  # type: ignore[operator]

    def _summarise(self, part: str) -> float:
        loss: Any = self.losses[part]
        scores: Any = self.scores[part]
        mean = float(loss.compute())
        names = list(self._modes)
        named = {names[int(place)]: score for place, score in scores.compute().items()}
        figures = {"loss": mean, **self.objective.derived(mean), **named}
        if self.trainer.loggers:  # whose step may lag behind by one, left to Lightning
            self.log("step", float(self.global_step))
        self.log_dict({f"{part}/{name}": value for name, value in figures.items()})
        loss.reset()
        scores.reset()
        return mean


def _together(metrics: Iterable[Metric]) -> MetricCollection:
    """Metrics by their places: a name may have a dot, which the name of a module may not.

    Each counts for itself. torchmetrics would let those share what they have counted that agree
    after a first batch, though it be one without targets.
    """
    placed = {str(place): metric for place, metric in enumerate(metrics)}
    return MetricCollection({**placed}, compute_groups=False)


def is_training(trainer: Trainer) -> bool:
    """Whether a trainer trains: a validation is no trial before it, and not asked for alone."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def is_time_to_log(trainer: Trainer) -> bool:
    """Whether the optimizer step that comes is one of those that are logged."""
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return bool(every) and trainer.global_step % every == 0


def _mean_of_all_processes(mine: Tensor) -> Tensor:
    if not _are_several():
        return mine
    everyones = mine / dist.get_world_size()
    dist.all_reduce(everyones)
    return everyones


def _are_several() -> bool:
    return dist.is_available() and dist.is_initialized()


def _of_all_processes(mine: dict[str, Any]) -> list[dict[str, Any]]:
    if not _are_several():
        return [mine]
    everyones: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, mine)
    return everyones


def _steps_of_the_run(trainer: Trainer) -> int | None:
    """Optimizer steps from the first to the last; None where only time ends the run.

    Lightning's own estimate sets up the data. What is set up so early is not told, on resume, how
    far its epoch had come.
    """
    longest = None if trainer.max_steps == -1 else trainer.max_steps
    if trainer.max_epochs in (None, -1):
        return longest
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    batches, limit = len(data.train_dataloader()), trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = math.ceil(batches / trainer.accumulate_grad_batches) * max(trainer.max_epochs, 1)
    return steps if longest is None else min(steps, longest)
