import io
import os
import re
import sys
from csv import DictReader
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from matplotlib.figure import Figure
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.plugins.hparams import metadata
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter

from seqnets import GRU
from seqnets.cells import GRUCell
from seqnets.datasets import Parity
from seqnets.errors import ConfigError
from seqnets.insight import Sound
from seqnets.layers import DeepRNN
from seqnets.training import Classification, loggers
from seqnets.training.callbacks import (
    Checkpoints,
    CUDAGraphs,
    DivergenceGuard,
    Dynamics,
    GradientFlow,
    Hyperparameters,
    ModelCard,
    ModelGraph,
    Monitor,
    MusicSamples,
    Pictures,
    Progress,
    TextSamples,
    monitor,
    pictures,
)
from seqnets.training.callbacks.display import first_rows, write
from seqnets.training.callbacks.hyperparameters import flatten
from seqnets.training.callbacks.model_card import summary
from seqnets.training.callbacks.throughput import Timed
from seqnets.typing import Batch

from .runs import SignalAt, fit, language_module, parity_data, parity_module, text_data

make = partial(language_module, scheduler=None)


def events(folder):
    return EventAccumulator(
        str(folder), size_guidance={"tensors": 0, "scalars": 0, "histograms": 0}
    ).Reload()


@pytest.fixture
def watched(tmp_path):
    """A short run with everything that TensorBoard shows."""

    def with_card(data):
        module = make(data)
        module.card["config"] = {
            "seed": 1,
            "model": {"cell": {"_target_": "a.LSTMCell"}, "hidden_size": 8, "num_layers": 2},
            "optimizer": {"lr": 0.01, "weight_decay": 0.0},
            "allow": ["a", "b"],
            "resume": None,
        }
        return module

    _, module = fit(
        with_card,
        text_data(tmp_path),
        tmp_path / "run",
        Monitor(histograms_every_n_steps=4),
        TextSamples(length=40, prompt="gone.\nThe"),
        ModelCard(),
        ModelGraph(),
        Hyperparameters(compared=["optimizer.weight_decay", "unknown"]),
        logger=TensorBoardLogger(tmp_path / "run", name="", version="", default_hp_metric=False),
        max_steps=12,
        log_every_n_steps=3,
        val_check_interval=6,
    )
    return events(tmp_path / "run"), module


def test_tensorboard_gets_losses_metrics_norms_rates_and_throughput(watched):
    found, module = watched
    tags = set(found.Tags()["scalars"])

    assert {"train/loss", "val/loss", "val/bits_per_character", "learning_rate"} <= tags
    assert {"throughput/time_steps_per_second", "gradient_norm/total"} <= tags
    layers = {t for t in tags if t.startswith("gradient_norm/")} - {"gradient_norm/total"}
    owners = {name.rpartition(".")[0] for name, _ in module.model.named_parameters()}
    assert layers == {f"gradient_norm/{owner}" for owner in owners}
    assert [point.step for point in found.Scalars("learning_rate")] == [0, 3, 6, 9]
    assert [point.step for point in found.Scalars("throughput/time_steps_per_second")] == [3, 6, 9]
    assert [point.step for point in found.Scalars("val/loss")] == [6, 12]


def test_the_total_gradient_norm_is_the_norm_of_the_layers(watched):
    found, _ = watched
    layers = [t for t in found.Tags()["scalars"] if re.fullmatch(r"gradient_norm/(?!total).*", t)]

    total = found.Scalars("gradient_norm/total")[-1].value
    squares = sum(found.Scalars(tag)[-1].value ** 2 for tag in layers)

    assert total == pytest.approx(squares**0.5, rel=1e-4)


def test_a_parameter_that_layers_share_counts_once_in_the_norm():
    torch.manual_seed(0)
    model = DeepRNN(GRUCell, 8, 8, num_layers=3, tied=True)
    model(torch.randn(2, 9, 8))[0].sum().backward()

    found = monitor._norms(model)

    total = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
    torch.testing.assert_close(found["total"], total)


def test_every_parameter_and_gradient_has_histograms(watched):
    found, module = watched
    names = [name for name, _ in module.model.named_parameters()]

    expected = {f"{kind}/{name}" for kind in ("parameters", "gradients") for name in names}
    assert set(found.Tags()["histograms"]) == expected
    assert [e.step for e in found.Histograms(f"gradients/{names[0]}")] == [0, 4, 8]
    at = {e.step: e.histogram_value for e in found.Histograms(f"parameters/{names[0]}")}
    assert [*at] == [0, 4, 8, 12]
    trained = module.model.get_parameter(names[0])
    assert at[12].sum == pytest.approx(trained.sum().item(), rel=1e-4)


def test_the_text_tab_has_samples_the_model_and_the_config(watched):
    found, _ = watched

    def text(tag):
        return [e.tensor_proto.string_val[0].decode() for e in found.Tensors(f"{tag}/text_summary")]

    assert len(text("sample")) == 2
    assert text("sample")[0].startswith("    gone.\n    The")  # as it stands, by Markdown's rules
    assert "| total | LanguageModel | |" in text("model")[0]
    assert "hidden_size: 8" in text("config")[0]
    assert text("config")[0].startswith("    seed: 1")  # the first of the configuration


def test_the_card_counts_a_shared_parameter_at_the_first_layer_that_has_it():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight

    rows = summary(nn.Sequential(first, nn.Tanh(), second)).splitlines()[2:]

    assert rows == [
        "| 0 | Linear | weight 3×3, bias 3 | 12 |",
        "| 2 | Linear | weight 3×3, bias 3 | 3 |",
        "| total | Sequential | | 15 |",
    ]


def test_the_graphs_tab_has_the_layers_with_their_sizes(watched):
    found, module = watched
    graph = GraphDef.FromString(found.Graph().SerializeToString())

    nodes = {node.name: node for node in graph.node}
    sizes = [dim.size for dim in nodes["output"].attr["_output_shapes"].list.shape[0].dim]
    layers = [f"encoder/recurrent/layers/{place}" for place in (0, 1)]
    assert list(nodes) == ["input", "encoder/embedding", *layers, "output"]
    assert list(nodes["encoder/embedding"].input) == ["input"]
    assert "parameters" not in nodes["input"].attr
    assert list(nodes["output"].input) == [layers[1]]
    assert (sizes[0], sizes[-1]) == (2, module.model.output.out_features)
    assert nodes["output"].attr["parameters"].i == module.model.output.weight.numel() + sizes[-1]


def test_the_hparams_tab_has_the_config_and_its_metrics_are_logged(watched):
    found, _ = watched
    raw = found.PluginTagToContent(metadata.PLUGIN_NAME)
    start = metadata.parse_session_start_info_plugin_data(raw[metadata.SESSION_START_INFO_TAG])
    experiment = metadata.parse_experiment_plugin_data(raw[metadata.EXPERIMENT_TAG])
    metrics = [info.name.tag for info in experiment.metric_infos]

    assert metadata.SESSION_END_INFO_TAG in raw
    assert start.hparams["model.hidden_size"].number_value == 8
    names = ("bits_per_character", "loss")  # in this order they are the table's columns
    assert metrics == [f"{part}/{name}" for part in ("val", "test") for name in names]
    assert set(metrics[:2]) <= set(found.Tags()["scalars"])


def test_the_hparams_tab_first_shows_what_runs_are_compared_by(watched):
    found, _ = watched
    raw = found.PluginTagToContent(metadata.PLUGIN_NAME)
    experiment = metadata.parse_experiment_plugin_data(raw[metadata.EXPERIMENT_TAG])

    first = {info.name for info in experiment.hparam_infos if info.differs}
    sizes = {"model.hidden_size", "model.num_layers"}
    assert first == {"model.cell", "optimizer.lr", "optimizer.weight_decay", *sizes}


def test_keys_to_compare_by_are_a_list():
    with pytest.raises(ConfigError, match="compared is 'seed', expected a list of keys"):
        Hyperparameters(compared="seed")


def test_monitoring_changes_no_number_of_the_run(tmp_path, watched):
    _, watched_module = watched
    _, alone = fit(
        make, text_data(tmp_path), tmp_path / "alone", max_steps=12, val_check_interval=6
    )

    for a, b in zip(alone.parameters(), watched_module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_other_loggers_and_tasks_without_text_are_served_too(tmp_path):
    callbacks = [Monitor(), TextSamples(), ModelCard(), Hyperparameters()]
    for logger in (CSVLogger(tmp_path / "csv", name="", version=""), False):
        fit(parity_module, parity_data(), tmp_path, *callbacks, logger=logger, max_epochs=1)

    assert "gradient_norm/total" in (tmp_path / "csv" / "metrics.csv").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are Unicode elsewhere")
def test_a_folder_whose_name_tensorboard_cannot_write_is_an_error(tmp_path):
    logger = loggers.TensorBoardLogger(str(tmp_path / os.fsdecode(b"\xff")), name="", version="")

    with pytest.raises(ConfigError, match=r"udcff.*expected a path in UTF-8"):
        logger.experiment.flush()


def test_a_run_that_fails_has_the_figures_of_its_last_step(tmp_path):
    class Failing(Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 3:
                raise RuntimeError("it fails")

    logger = CSVLogger(tmp_path, name="", version="")
    with pytest.raises(RuntimeError, match="it fails"):
        fit(
            parity_module,
            parity_data(),
            tmp_path,
            Monitor(),
            Failing(),
            logger=logger,
            max_epochs=1,
        )

    with (tmp_path / "metrics.csv").open(encoding="utf-8") as file:
        assert [row["step"] for row in DictReader(file) if row["train/loss"]] == ["0", "1", "2"]


def test_confusions_are_of_all_that_was_validated(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(pictures, "write", lambda _, name, drawn, step: shown.append((step, drawn)))
    logger = TensorBoardLogger(tmp_path, name="", version="", default_hp_metric=False)
    fit(parity_module, parity_data(), tmp_path, Pictures(), logger=logger, max_epochs=1)

    ((step, figure),) = shown
    assert step == 5
    assert figure.axes[0].get_title(loc="left").startswith("16 sequences,")  # two batches of 8


def test_gradient_norms_of_any_lightning_module_are_logged(tmp_path):
    class Own(LightningModule):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = GRU(2, 3, batch_first=True), nn.Linear(3, 1)

        def training_step(self, batch, index):
            (x,) = batch
            return self.head(self.rnn(x)[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    logger = TensorBoardLogger(tmp_path, name=None, version="")
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        log_every_n_steps=1,
        logger=logger,
        callbacks=[Monitor(histograms_every_n_steps=1)],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(Own(), DataLoader(TensorDataset(torch.randn(4, 5, 2)), batch_size=2))

    tags = events(tmp_path).Tags()
    norms = {f"gradient_norm/{name}" for name in ("total", "rnn", "head")}
    assert set(tags["scalars"]) == {*norms, "learning_rate", "epoch"}
    assert "gradients/rnn.weight_hh_l0" in tags["histograms"]


def test_hyperparameters_become_dotted_keys_without_monitoring_options():
    cell = {"_target_": "seqnets.cells.GRUCell", "_partial_": True}
    config = {"model": {"cell": cell, "sizes": [1, 2]}, "seed": 3, "callbacks": {"a": 1}}

    assert flatten(config) == {"model.cell": "GRUCell", "model.sizes": "[1, 2]", "seed": 3}


def draw(tmp_path, make_module, data, terminal, **options):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=120, color_system=None)
    fit(make_module, data, tmp_path, Progress(console), **options)
    return screen.getvalue()


def test_the_bar_shows_loss_bits_validation_and_characters_per_second(tmp_path, monkeypatch):
    monkeypatch.setattr("seqnets.training.callbacks.progress._REFRESH", 0.0)

    shown = draw(tmp_path, make, text_data(tmp_path), True, max_steps=8, val_check_interval=4)
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).strip().splitlines()[-1]

    assert re.search(r"training .* 8/8 ", last)
    assert re.search(r"loss \d\.\d{3,4}  bits per character \d\.\d{3,4}", last)
    assert re.search(r"validation \d\.\d{3,4}  [\d,]+ characters/s", last)


def test_without_a_terminal_each_validation_is_one_line(tmp_path):
    shown = draw(tmp_path, parity_module, parity_data(), False, max_epochs=2)

    assert [line.split("  ")[0] for line in shown.splitlines()] == ["step 5", "step 10"]
    assert re.search(r"  [\d,]+ time steps/s$", shown, re.MULTILINE)
    assert re.search(r"loss \d\.\d{3,4}  validation accuracy \d\.\d{3,4}  ", shown)
    assert "\x1b" not in shown


@pytest.mark.parametrize("terminal", [True, False])
def test_a_stopped_run_shows_the_step_of_its_last_validation(tmp_path, terminal):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=120, color_system=None)
    fit(parity_module, parity_data(), tmp_path, Progress(console), SignalAt(7), max_epochs=4)

    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).strip().splitlines()[-1]
    assert re.search(r"validation accuracy \d\.\d{3,4} \(step 5\)  ", last)


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_can_only_write_lines_has_one_for_each_validation(
    tmp_path, monkeypatch, term
):
    monkeypatch.setenv("TERM", term)

    shown = draw(tmp_path, parity_module, parity_data(), True, max_epochs=2)

    assert [line.split("  ")[0] for line in shown.splitlines()] == ["step 5", "step 10"]


def test_small_and_large_figures_are_shown_with_their_digits(tmp_path, monkeypatch):
    figures = {"mse": 0.00012345, "perplexity": 12345.6}
    monkeypatch.setattr(Classification, "derived", lambda self, loss: figures)

    shown = draw(tmp_path, parity_module, parity_data(), False, max_epochs=1)

    assert "mse 0.0001234  perplexity 12,346  " in shown


def test_steps_of_pairs_and_videos_are_called_time_steps(tmp_path, monkeypatch):
    for unit in ("pairs", "videos", "windows"):
        monkeypatch.setattr(Parity, "unit", unit)
        assert "time steps/s" in draw(tmp_path, parity_module, parity_data(), False, max_epochs=1)


@pytest.mark.parametrize(
    ("pauses", "times", "rate"),
    [(True, (0.0, 1.0, 100.0, 101.0), 10), (False, (0.0, 1.0, 4.0), 5)],
)
def test_pauses_do_not_count_as_training_and_waiting_for_batches_does(
    pauses, times, rate, monkeypatch
):
    clock = iter(times)
    monkeypatch.setattr(
        "seqnets.training.callbacks.throughput.time.perf_counter", lambda: next(clock)
    )
    timed, trainer = Timed(), SimpleNamespace(world_size=2)
    batch = Batch(torch.zeros(1, 5), torch.zeros(1))

    for _ in range(2):
        timed.on_train_batch_start(trainer, None, batch, 0)
        timed.on_train_batch_end(trainer, None, None, batch, 0)
        if pauses:
            timed.on_validation_start(trainer, None)

    assert timed.read_throughput() == rate
    assert timed.read_throughput() == 0


def test_pictures_sounds_and_texts_each_have_their_tab(tmp_path):
    sound = Sound(np.zeros(8, np.float32), 8000)
    with SummaryWriter(tmp_path) as writer:
        for picture in (Figure(), sound, "a text"):
            write(writer, "shown", picture, 3)

    tags = events(tmp_path).Tags()
    assert [tags[tab] for tab in ("images", "audio", "tensors")] == [
        ["shown"],
        ["shown"],
        ["shown/text_summary"],
    ]


@pytest.mark.parametrize(("steps", "rows"), [(1, 5), (10, 3), (100, 1)])
def test_fewer_rows_are_shown_of_long_sequences(steps, rows):
    batch = Batch(torch.zeros(8, steps), torch.zeros(8))

    assert first_rows(batch, 5, steps=39).x.shape == (rows, steps)


@pytest.mark.parametrize(
    "callback",
    [
        CUDAGraphs,
        Checkpoints,
        DivergenceGuard,
        Dynamics,
        GradientFlow,
        Hyperparameters,
        ModelCard,
        ModelGraph,
        MusicSamples,
        Pictures,
        Progress,
        TextSamples,
    ],
)
def test_a_callback_for_sequence_modules_refuses_another_before_training(callback, tmp_path):
    class Own(LightningModule):
        def training_step(self, batch, index):
            raise AssertionError("trained")

        def configure_optimizers(self):
            return None

    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        callbacks=[callback()],
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    told = f"{callback.__name__}: the module is Own, expected a SequenceModule.\n  Leave this"
    with pytest.raises(ConfigError, match=re.escape(told)):
        trainer.fit(Own(), DataLoader(TensorDataset(torch.randn(4, 5, 2))))
