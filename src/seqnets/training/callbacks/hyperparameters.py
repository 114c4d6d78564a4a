"""The configuration beside the figures: TensorBoard's HPARAMS tab, and what others have for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard.summary import hparams

from seqnets.errors import ConfigError
from seqnets.training.callbacks.base import SequenceCallback
from seqnets.training.loggers import writer_of

_WITHOUT_EFFECT = ("allow", "callbacks", "logger", "output", "resume")

_COMPARED = ("model.cell", "model.hidden_size", "optimizer.lr", "model.num_layers", "seed")
"""Those that the table shows unasked, after those that are asked for."""

_COLUMNS = 5
"""The hyperparameters that TensorBoard's table shows: its first ones."""


class Hyperparameters(SequenceCallback):
    """Show the run's configuration beside its figures, so that runs can be compared.

    In TensorBoard it is the HPARAMS tab; W&B, MLflow and the like have a place of their own.

    The figures are the scalars that the run logs anyway, of validation and test: first the
    objective's metric, then the loss.

    Args:
        compared: Keys of the configuration, such as "model.dropout", that the tab's table shows
            before others; in a sweep, after those that it varies.

    Raises:
        ConfigError: The keys are a text.
    """

    def __init__(self, compared: Sequence[str] | None = None) -> None:
        if isinstance(compared, str):
            raise ConfigError(
                f"Hyperparameters: compared is {compared!r}, expected a list of keys."
            )
        self.compared = tuple(compared or ())
        self._end: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Write the configuration and the names of the figures."""
        flat = flatten(pl_module.card["config"])
        for logger in trainer.loggers:
            if not isinstance(logger, (TensorBoardLogger, CSVLogger)):  # whose runs have a file
                logger.log_hyperparams(flat)
        writer = writer_of(trainer)
        if writer is None:
            return
        names = dict.fromkeys((pl_module.objective.metric, "loss"))
        figures = {f"{part}/{name}": 0.0 for part in ("val", "test") for name in names}
        experiment, start, self._end = hparams(flat, figures)
        shown = [name for name in dict.fromkeys((*self.compared, *_COMPARED)) if name in flat]
        _show_first(experiment, shown[:_COLUMNS])
        for summary in (experiment, start):
            writer._get_file_writer().add_summary(summary)

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Mark the run as finished."""
        writer = writer_of(trainer)
        if writer is not None and self._end is not None:
            writer._get_file_writer().add_summary(self._end)


def _show_first(experiment: Any, names: Sequence[str]) -> None:
    """Have TensorBoard show hyperparameters before others, as it does with those that differ."""
    content = experiment.value[0].metadata.plugin_data
    data = HParamsPluginData.FromString(content.content)
    for info in data.experiment.hparam_infos:
        info.differs = info.name in names
    content.content = data.SerializeToString()


def flatten(config: Any, prefix: str = "") -> dict[str, bool | str | float | int]:
    """A configuration as dotted keys and plain values, as TensorBoard takes them.

    A group's class is stored by its name under the group's own key. Groups that do not affect the
    result, such as callbacks and loggers, are left out.
    """
    if not isinstance(config, dict):
        return {prefix: config if isinstance(config, (bool, float, int)) else _text(config)}
    flat: dict[str, bool | str | float | int] = {}
    for name, value in config.items():
        if name == "_target_":
            flat[prefix] = value.rpartition(".")[2]
        elif name != "_partial_" and (prefix or name not in _WITHOUT_EFFECT):
            flat |= flatten(value, f"{prefix}.{name}" if prefix else name)
    return flat


def _text(value: Any) -> str:
    """A value as UTF-8 has it, which the name of a file need not be."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")
