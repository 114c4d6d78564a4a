"""The LightningModule for all tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

import seqnets
from seqnets.datasets import SequenceData
from seqnets.datasets.loader import Loader
from seqnets.errors import CheckpointError, ConfigError
from seqnets.layers import Recurrent, detach, map_state
from seqnets.training import random_state
from seqnets.training.averaging import NonMonotonicASGD
from seqnets.training.checkpoint import check_data, check_parts, check_weights
from seqnets.training.graphs import BatchGraphs
from seqnets.training.learning import Rules
from seqnets.training.objectives import Objective, Outcome, Row
from seqnets.training.param_groups import (
    ParamGroups,
    check_groups,
    check_kept,
    check_options,
    check_same,
    named_by_group,
    to_optimize,
)
from seqnets.training.processes import gather, mean_over_processes
from seqnets.training.retuning import retune
from seqnets.training.schedules import make_schedule
from seqnets.training.scores import scores_of_parts
from seqnets.training.standardised import check_times
from seqnets.training.trainers import (
    callbacks_of,
    data_of,
    is_epoch_complete,
    is_time_to_log,
    is_training,
    require_one_average,
    require_validations,
)
from seqnets.typing import Batch, Known

FORMAT = 1


class SequenceModule(LightningModule):
    """A model with its objective, optimizer and schedule.

    If a batch continues the one before (``batch.carry``), the model's state is carried over
    detached: gradients flow through one batch, which is truncated backpropagation through time
    unless ``learning`` carries more. Training, validation, test and prediction each carry their own
    state.

    Besides Lightning's part, checkpoints hold what an exact resume needs of every process: random
    states, the carried state and its influences, and gradients that are still being accumulated.

    Args:
        model: Maps (x, state, lengths) to (output, state).
        objective: Scores the output.
        known: The dataset's description of itself, for the metrics and the card.
        optimizer: Builds the optimizer from the parameters. If it averages weights, the averages
            are what is validated, saved in checkpoints and left at the end.
        scheduler: Builds the learning-rate schedule from the optimizer; constant if omitted. One
            that takes ``total_steps`` receives the run's optimizer steps and advances each step;
            ReduceLROnPlateau follows the validation loss; others advance each epoch.
        param_groups: Options for some parameters, by names of groups: under "params" a pattern of
            their names in the model, or several ("*bias*"), and the optimizer's options for them.
            The first group that matches a parameter has it.
        learning: The rule by which recurrent layers learn: makes one that does from one that does
            not, such as :class:`~seqnets.layers.RTRL`; backpropagation through time if omitted.

    Attributes:
        card: Plain values saved in checkpoints: the resolved "config", and ``known`` as "data".
        last_loss: The loss of the last training batch, averaged over processes, on its device;
            None before the first batch. Where gradients are accumulated, it is the mean over the
            batches of the optimizer step so far.
        gradient_norm: The norm of the gradients for the next optimizer step if a callback has
            computed it, so that clipping need not; else None.
        graphs: Replays training batches as CUDA graphs; set by the callback CUDAGraphs.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        known: Known,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., Any] | None = None,
        param_groups: ParamGroups | None = None,
        learning: Callable[[Recurrent], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        _check_given(model, objective, known, optimizer)
        self.model = model
        self.objective = objective
        self.optimizer_factory = optimizer
        self.scheduler_factory = scheduler
        check_groups(param_groups or {})
        self.param_groups: ParamGroups = param_groups or {}
        self.rules = None if learning is None else Rules(model, learning)
        self.card: dict[str, Any] = {"config": {}, "data": known}
        self.last_loss: Tensor | None = None
        self.gradient_norm: Tensor | None = None
        self.graphs: BatchGraphs | None = None
        self._has_gradients = False
        self._accumulated: list[Tensor] = []
        scores = scores_of_parts(objective, known)
        self.scores = nn.ModuleDict(scores)
        self._modes = scores["val"].modes
        self._carried: dict[str, Any] = dict.fromkeys(("train", "val", "test", "predict"))
        self._plateau: ReduceLROnPlateau | None = None
        self._averaging: NonMonotonicASGD | None = None
        self._validating = ExitStack()
        self._resumed: dict[str, Any] | None = None
        self._config_before: dict[str, Any] = {}

    @property
    def figures(self) -> dict[str, str | None]:
        """The names of the figures logged for validation and test, with their modes.

        A mode is "min" or "max"; None if unknown.
        """
        figures = {"loss": "min", **dict.fromkeys(self.objective.derived(0.0)), **self._modes}
        return {**figures, self.objective.metric: self.objective.mode}

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # Lightning sets it about forty times a step
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model: (x, state, lengths) to (output, state)."""
        return self.model(*args, **kwargs)

    def on_fit_start(self) -> None:
        """Have objective and rule of learning check the data before anything is computed."""
        require_one_average(self.trainer)
        check_times(self.model, self.card["data"])
        data = data_of(self.trainer)
        if data is not None:
            self.objective.check(self.model, data)
            if isinstance(data, SequenceData) and data.augmenter is not None:
                data.augmenter.check(self.model)
            if self.rules is not None and self.trainer.ckpt_path is None:  # a run may go on
                self.rules.check(data)

    def configure_optimizers(self) -> Any:
        """The optimizer, and the schedule with the interval at which it advances."""
        optimizer = self.optimizer_factory(to_optimize(self.model, self.param_groups))
        check_options(optimizer, self.param_groups)
        self._averaging = optimizer if isinstance(optimizer, NonMonotonicASGD) else None
        if self._averaging is not None:
            require_validations(self.trainer, "NonMonotonicASGD")
        if self.scheduler_factory is None:
            return optimizer
        schedule, interval = make_schedule(self.scheduler_factory, optimizer, self.trainer)
        check_kept(optimizer, self.param_groups, schedule)
        if isinstance(schedule, ReduceLROnPlateau):
            # Lightning would advance it only after checkpoints are written
            self._plateau = schedule
            return optimizer
        return [optimizer], [{"scheduler": schedule, "interval": interval}]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        replayed = None
        if self.graphs is not None:
            replayed = self.graphs.run(batch, self._carried_state(batch, "train"))
        self._has_gradients = replayed is not None
        if replayed is not None:
            self.last_loss, self._carried["train"] = replayed.loss, replayed.state
            return replayed.total
        rules = self.rules
        with nullcontext() if rules is None else rules.learning(batch.carry):
            outcome = self._run(batch, "train")
        self.last_loss = self._mean_so_far(mean_over_processes(outcome.loss.detach()))
        return self._scaled_to_its_step(outcome.total, batch_idx)

    def _scaled_to_its_step(self, loss: Tensor, batch_idx: int) -> Tensor:
        """The loss of a batch, larger if an epoch ends before its optimizer step is complete.

        Lightning divides it by the number of batches of a complete one.
        """
        complete = 1 if self._trainer is None else self.trainer.accumulate_grad_batches
        if complete == 1:
            return loss
        left = self.trainer.num_training_batches - batch_idx + batch_idx % complete
        return loss if left >= complete else loss * (complete / left)

    def _mean_so_far(self, loss: Tensor) -> Tensor:
        """The mean of the losses of an optimizer step's batches up to this one."""
        if self._trainer is None or self.trainer.accumulate_grad_batches == 1:
            return loss
        self._accumulated.append(loss)
        return torch.stack(self._accumulated).mean()

    def optimizer_zero_grad(self, *args: Any) -> None:
        """Zero the gradients, unless a replayed graph has already computed this batch's."""
        if not self._has_gradients:
            super().optimizer_zero_grad(*args)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute the gradients, unless a replayed graph has already done so.

        This runs in the current thread: waking autograd's GPU thread takes time at each step.
        """
        if not self._has_gradients:
            with torch.autograd.set_multithreading_enabled(False):
                super().backward(loss, *args, **kwargs)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Publish the loss to callbacks at logging steps; Monitor writes it to the loggers."""
        if self.last_loss is not None and is_time_to_log(self.trainer):
            self.log("train/loss", self.last_loss, logger=False)
        self._accumulated.clear()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients as the trainer is configured, with a known norm if there is one."""
        norm, self.gradient_norm = self.gradient_norm, None
        if norm is None or not gradient_clip_val or gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grads_with_norm_(parameters, float(gradient_clip_val), norm)

    def as_validated(self) -> AbstractContextManager[None]:
        """A context with the weights for validation: the averages, if the optimizer keeps any."""
        return nullcontext() if self._averaging is None else self._averaging.averaged()

    def on_validation_start(self) -> None:
        """Switch to the averaged weights, if there are any."""
        self._validating.enter_context(self.as_validated())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a validation batch."""
        self._score(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a test batch."""
        self._score(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Row]:
        """The predictions for a batch, a row per sequence or step, as `seqnets predict` has them.

        Raises:
            ConfigError: The objective writes no predictions.
        """
        outcome = self._run(batch, "predict")
        return self.objective.rows(outcome, batch, self.card["data"])

    def on_validation_epoch_end(self) -> None:
        """Log the figures of the validation part; notify schedule and optimizer that use them."""
        loss = self._summarise("val")
        if not is_training(self.trainer):
            return
        if self._plateau is not None:
            self._plateau.step(loss)
        if self._averaging is not None:
            self._averaging.observe(loss)

    def on_validation_end(self) -> None:
        """Switch back to the training weights, after the callbacks have run."""
        self._validating.close()

    def on_train_end(self) -> None:
        """Leave the averaged weights in the model, if there are any."""
        if self._averaging is not None:
            self._averaging.finish()

    def on_fit_end(self) -> None:
        """The same where nothing was left to train: Lightning then skips the end of training."""
        self.on_train_end()

    def on_test_epoch_end(self) -> None:
        """Log the figures of the test part."""
        self._summarise("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what an exact resume needs, and the card."""
        accumulates = self.trainer.accumulate_grad_batches > 1
        mine = {
            "random": random_state.capture(),
            "gradients": {
                name: parameter.grad.cpu()
                for name, parameter in self.named_parameters()
                if accumulates and parameter.grad is not None
            },
            "losses": [loss.cpu() for loss in self._accumulated],
            "carried": map_state(Tensor.cpu, self._carried["train"]),
            "influences": {
                name: map_state(Tensor.cpu, influence)
                for name, influence in (self.rules.influences if self.rules else {}).items()
            },
            "plateau": None if self._plateau is None else self._plateau.state_dict(),
        }
        checkpoint["seqnets"] = {
            "format": FORMAT,
            "version": seqnets.__version__,
            **self.card,
            "param_groups": named_by_group(self.model, self.param_groups),
            "processes": gather(mine),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the carried state, and keep the rest for when training starts.

        Raises:
            CheckpointError: The checkpoint has another format, or belongs to another model, other
                data or another number of processes.
        """
        attached = self._trainer is not None  # which it is not in load_from_checkpoint
        path = str(self.trainer.ckpt_path) if attached else "given"
        check_parts(checkpoint, path)
        ours = checkpoint["seqnets"]
        if ours["format"] != FORMAT:
            raise CheckpointError(
                f"Checkpoint {path}: has format {ours['format']}, expected {FORMAT}.\n"
                f"  It was written by seqnets {ours['version']}."
            )
        trains = attached and self.trainer.state.fn == "fit"
        if trains:  # before the weights, whose shapes follow from the data
            check_data(ours["data"], self.card["data"], path, ("metric", "naive_errors"))
        check_weights(self, checkpoint, path)
        if attached:  # Lightning would load the weights first, and round those of float64
            self.trainer.precision_plugin.convert_module(self)
        if not trains:
            return
        groups = named_by_group(self.model, self.param_groups)
        check_same(ours.get("param_groups", {}), groups, path)
        processes = ours["processes"]
        if len(processes) != self.trainer.world_size:
            raise CheckpointError(
                f"Checkpoint {path}: was written by {len(processes)} processes, expected "
                f"{self.trainer.world_size}.\n"
                f"  Each has its own state; resume with the same number (trainer.devices)."
            )
        self._resumed = processes[self.trainer.global_rank]
        self._config_before = ours["config"]
        self._carried["train"] = self._resumed["carried"]
        if self.rules is not None:
            self.rules.influences = self._resumed.get("influences", {})

    def on_train_start(self) -> None:
        """Restore random states, gradients and schedule of a resumed run.

        The processes of a new run, which began with the same seed, part here.
        """
        if self._resumed is None:
            random_state.diverge(self.trainer.global_rank)
            return
        random_state.restore(self._resumed["random"])
        for name, parameter in self.named_parameters():
            if name in self._resumed["gradients"]:
                parameter.grad = self._resumed["gradients"][name].to(parameter.device)
        self._accumulated = [loss.to(self.device) for loss in self._resumed.get("losses", ())]
        if self._plateau is not None and self._resumed["plateau"] is not None:
            self._plateau.load_state_dict(self._resumed["plateau"])
        schedule = self._plateau or self.lr_schedulers()
        before, now = self._config_before, self.card["config"]
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        retune(optimizer, schedule, self.scheduler_factory, before, now, self.trainer)
        for callback in callbacks_of(self.trainer, GradientAccumulationScheduler):
            callback.on_train_epoch_start(self.trainer)  # the epoch may go on, not start
        loader = self.trainer.train_dataloader
        if isinstance(loader, Loader) and is_epoch_complete(self.trainer):
            loader.finish()
        self._resumed = None

    def _carried_state(self, batch: Batch, part: str) -> Any:
        """The state carried into a batch; None if the batch starts new sequences."""
        state = self._carried[part] if batch.carry else None
        return map_state(lambda tensor: tensor.to(self.device), state)

    def _run(self, batch: Batch, part: str) -> Outcome:
        outcome = self.objective(self.model, batch, self._carried_state(batch, part))
        self._carried[part] = detach(outcome.state)
        return outcome

    def _score(self, batch: Batch, part: str) -> None:
        self.scores[part].update(self._run(batch, part))  # type: ignore[operator]

    def _summarise(self, part: str) -> float:
        figures = self.scores[part].take()  # type: ignore[operator]
        if self.trainer.loggers:  # Lightning's own step may lag behind by one
            self.log("step", float(self.global_step))
        self.log_dict({f"{part}/{name}": value for name, value in figures.items()})
        return figures["loss"]


def _check_given(model: Any, objective: Any, known: Any, optimizer: Any) -> None:
    """Raise ConfigError for a class in place of an object, or an object in place of what makes it.

    Objectives and optimizers may be of any class, or functions.
    """
    made = callable(objective) and not isinstance(objective, type)
    makes = "what makes one of parameters, such as partial(torch.optim.Adam, lr=1e-3)"
    for name, given, fits, expected in (
        ("model", model, isinstance(model, nn.Module), "a module"),
        ("objective", objective, made, "an objective, such as Classification()"),
        ("known", known, isinstance(known, Mapping), "the description of a dataset, describe()"),
        ("optimizer", optimizer, callable(optimizer), makes),
    ):
        if not fits:
            is_class = isinstance(given, type)
            came = f"the class {given.__name__}" if is_class else type(given).__name__
            raise ConfigError(f"SequenceModule: {name} is {came}, expected {expected}.")
