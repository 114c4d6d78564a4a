"""Only what is allowed is ever built from a configuration."""

from functools import partial

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from omegaconf import OmegaConf

from seqnets.cells import LSTMCell
from seqnets.cli.assemble import make_model
from seqnets.cli.build import build
from seqnets.cli.names import UsageError
from seqnets.cli.trainers import make_loggers, make_trainer
from seqnets.errors import ConfigError
from seqnets.training import AtomicCheckpointIO


def test_a_target_becomes_an_object():
    made = build({"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3})

    assert isinstance(made, torch.nn.Linear)
    assert made.weight.shape == (3, 2)


def test_a_partial_target_becomes_a_factory():
    factory = build({"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.5})

    optimizer = factory([torch.nn.Parameter(torch.zeros(1))])

    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_model_is_passed_the_sizes_of_the_data_whether_or_not_its_file_calls_it_partial():
    model = {"_target_": "torch.nn.Linear", "out_features": 3}
    config = {"model": model, "dataset": {"_target_": "mine.Data"}}

    made = make_model(config, {"in_features": 2, "num_classes": 9}, [])

    assert made.weight.shape == (3, 2)


def test_what_lacks_an_option_may_be_meant_to_be_partial():
    cell = {"_target_": "seqnets.cells.LSTMCell", "hidden_size": 3}

    with pytest.raises(ConfigError, match=r"argument: 'input_size', .*\)\.\n.* _partial_: true"):
        build(cell, key="model.cell")


def test_targets_are_built_inside_targets():
    config = {
        "_target_": "seqnets.models.LanguageModel",
        "_partial_": True,
        "hidden_size": 4,
        "cell": {"_target_": "seqnets.cells.LSTMCell", "_partial_": True},
    }

    model = build(config)(vocab_size=5)

    assert type(model.encoder.recurrent.layers[0].cell) is LSTMCell


@pytest.mark.parametrize("several", [True, False])
def test_a_trainer_has_the_plugins_that_it_is_given(several):
    plugin = {"_target_": "lightning.pytorch.plugins.DoublePrecision"}
    options = {"accelerator": "cpu", "max_epochs": 1, "plugins": [plugin] if several else plugin}
    config = {"trainer": {"_target_": "lightning.pytorch.Trainer", **options}}

    trainer = make_trainer(config, [], [], logger=False)

    assert trainer.precision == "64-true"
    assert isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)


@pytest.mark.parametrize(
    ("option", "advice"),
    [("logger", "logger=none"), ("callbacks", "+callbacks.NAME"), ("default_root_dir", "output=")],
)
def test_an_option_of_the_trainer_that_the_command_sets_is_refused(option, advice):
    config = {"trainer": {"_target_": "lightning.pytorch.Trainer", option: None}}

    with pytest.raises(UsageError, match=rf"trainer\.{option}: is set by the command") as refused:
        make_trainer(config, [], [], trains=True)
    assert advice in str(refused.value)


def test_of_several_such_options_the_same_is_named_and_who_does_not_train_gets_no_advice():
    config = {"trainer": {"logger": None, "enable_progress_bar": False, "callbacks": []}}

    with pytest.raises(UsageError, match=r"^trainer\.callbacks: .* to be left out\.$"):
        make_trainer(config, [], [])


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook"])
def test_processes_that_would_train_in_place_of_the_command_are_refused_in_training(strategy):
    options = {"accelerator": "cpu", "devices": 2, "strategy": strategy, "max_epochs": 1}
    config = {"trainer": {"_target_": "lightning.pytorch.Trainer", **options}}

    with pytest.raises(ConfigError, match=r"trainer\.strategy: .*\n.*trainer=ddp"):
        make_trainer(config, [], [], trains=True, logger=False)
    make_trainer(config, [], [], logger=False)  # to evaluate and predict


def test_values_reach_a_target_as_plain_containers(users_module):
    config = OmegaConf.create(
        {"_target_": "own_module.echo", "sizes": [1, {"a": "${..._target_}"}]}
    )

    assert build(config, ["own_module"]) == {"sizes": [1, {"a": "own_module.echo"}]}
    assert type(build(config, ["own_module"])["sizes"]) is list


@pytest.fixture
def users_module(write_module):
    write_module(
        "own_module",
        "import os, torch",
        "from torch import load",
        "from os import system",
        "def echo(**options): return options",
        "def touch(path): open(os.path.join(os.path.dirname(__file__), path), 'w').close()",
        "class Pretender:",
        "    def __call__(self, *a): raise SystemExit",
        "pretender = Pretender()",
        "pretender.__module__, pretender.__qualname__ = 'own_module', 'echo'",
        "class Held: run = staticmethod(os.system)",
    )


@pytest.mark.parametrize(
    "target",
    [
        "torch.load",
        "torch.nn.modules.module.torch.load",
        "torch.hub.load",
        "torch.jit.load",
        "torch.nn.init.zeros_",
        "torch.nn.functional.linear",
        "numpy.load",
        "os.system",
        "builtins.eval",
        "builtins.dict",
        "eval",
        "functools.partial",
        "subprocess.Popen",
        "hydra.utils.get_method",
        "hydra.utils.instantiate",
        "seqnets.cells.torch.load",
        "seqnets.cells.base.torch.load",
        "seqnets.training.load_checkpoint",
        "seqnets.training.checkpoint.os.unlink",
        "seqnets.cells.LSTMCell.__init__",
        "seqnets.cells.LSTMCell.__mro__",
        "lightning.pytorch.Trainer.fit",
        "lightning.pytorch.callbacks.os.system",
        "lightning.fabric.utilities.cloud_io._load",
        "own_module.echo",
        "own_module.Held",
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_what_is_not_allowed_is_refused(target, nested, users_module):
    config = {"_target_": target, "_partial_": True}
    if nested:
        config = {"_target_": "torch.nn.ModuleList", "modules": [{"deep": config}]}

    with pytest.raises(ConfigError, match=r"may not be used|could not be imported") as raised:
        build(config, key="model.cell")

    assert "model.cell" in str(raised.value)
    assert target in str(raised.value)


@pytest.mark.parametrize(
    "target",
    ["load", "system", "torch.load", "os.system", "pretender", "Held.run"],
)
def test_allowing_a_module_allows_only_what_it_defines(target, users_module):
    with pytest.raises(ConfigError, match="may not be used"):
        build({"_target_": f"own_module.{target}"}, ["own_module"])


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("seqnets.cells.GRUCel", "Did you mean GRUCell"),
        ("nowhere.Cell", "No module named 'nowhere'\n  A module of your own must be on PYTHONPATH"),
        ("unfinished.Cell", "SyntaxError: '(' was never closed (unfinished.py, line 1)"),
        ("lacking.Cell", "ModuleNotFoundError: No module named 'a_library'"),
    ],
)
def test_what_cannot_be_imported_is_told_with_its_reason(target, said, tmp_path, monkeypatch):
    (tmp_path / "unfinished.py").write_text("x = (\n")
    (tmp_path / "lacking.py").write_text("import a_library\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(ConfigError) as raised:
        build({"_target_": target}, [target.split(".")[0]])

    assert said in str(raised.value)


def test_a_module_that_is_not_allowed_is_not_even_imported(tmp_path, monkeypatch):
    (tmp_path / "with_effects.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(ConfigError, match="'allow=\\[with_effects\\]'"):
        build({"_target_": "with_effects.Cell"}, key="model.cell")


def test_hydras_own_policy_stands_above_the_users_list(tmp_path):
    with pytest.raises(ConfigError, match=r"os\.system"):
        build({"_target_": "os.system", "command": f"touch {tmp_path}/x"}, ["os", "posix"])

    assert not list(tmp_path.iterdir())


def test_nothing_is_called_before_all_is_checked(users_module, tmp_path):
    config = [{"_target_": "own_module.touch", "path": "called"}, {"_target_": "torch.load"}]

    with pytest.raises(ConfigError):
        build(config, ["own_module"])
    assert not (tmp_path / "called").exists()


def test_an_escaped_interpolation_stays_text(users_module):
    text = r"\${oc.create:{_target_: torch.load}}"
    config = OmegaConf.create({"_target_": "own_module.echo", "x": text})

    assert build(config, ["own_module"]) == {"x": text[1:]}


def test_an_unknown_option_is_told_with_what_is_near():
    config = {"_target_": "torch.optim.AdamW", "_partial_": True, "weight_decai": 0.1}

    with pytest.raises(ConfigError, match=r"optimizer.weight_decai.*\n.*weight_decay"):
        build(config, key="optimizer")


def test_a_package_that_a_class_lacks_is_told_with_the_class(write_module):
    write_module("in_need", "def made(**_): import no_such_package")

    with pytest.raises(ConfigError, match=r"^x: in_need.made lacks a package: .*no_such_package"):
        build({"_target_": "in_need.made"}, ["in_need"], "x")


def test_a_mistyped_class_is_told_with_what_is_near():
    with pytest.raises(ConfigError, match="LSTMCell"):
        build({"_target_": "seqnets.cells.LSTMCel"}, key="model.cell")


def test_plain_values_stay_what_they_are():
    assert build({"a": [1, None, "x"]}) == {"a": [1, None, "x"]}
    assert build(None) is None


def test_a_factory_keeps_its_signature():
    assert isinstance(build({"_target_": "torch.nn.GELU", "_partial_": True}), partial)


class Tagged(CSVLogger):
    def __init__(self, tag, **options):
        super().__init__(**options)
        self.tag = tag


def test_a_logger_of_ones_own_gets_the_runs_folder_with_its_other_options(tmp_path):
    config = {"_target_": "tests.cli.test_build.Tagged", "tag": "mine"}

    (logger,) = make_loggers({"mine": config}, ["tests"], tmp_path)

    assert logger.tag == "mine"
    assert logger.save_dir == str(tmp_path)


def test_a_logger_among_others_must_have_a_name(tmp_path):
    tagged = {"_target_": "tests.cli.test_build.Tagged", "tag": "mine"}

    with pytest.raises(ConfigError, match=r"logger: names the class tests.*beside csv, expected"):
        make_loggers({**tagged, "csv": tagged}, ["tests"], tmp_path)
