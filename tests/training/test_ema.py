"""An exponential moving average of the weights, by Lightning's callback."""

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging

from seqnets.training import load_checkpoint, load_weights

from .runs import SignalAt, fit, language_module, text_data, trainer

OPTIONS = {"max_steps": 12, "val_check_interval": 4}


def averaging():
    return EMAWeightAveraging(decay=0.9, use_buffers=False)


def test_the_averages_are_what_is_validated_and_kept_and_a_resumed_run_ends_with_the_same(tmp_path):
    data = text_data(tmp_path)
    whole, module = fit(language_module, data, tmp_path / "whole", averaging(), **OPTIONS)
    plain, _ = fit(language_module, data, tmp_path / "plain", **OPTIONS)
    signal = SignalAt(6)
    fit(language_module, data, tmp_path / "cut", averaging(), signal, **OPTIONS)
    path = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    _, again = fit(language_module, data, tmp_path / "cut", averaging(), resume=path, **OPTIONS)
    best = tmp_path / "whole" / "checkpoints" / "best.ckpt"
    kept = language_module(data)
    load_weights(kept, load_checkpoint(best), best)
    (scores,) = trainer(tmp_path).validate(kept, data, verbose=False)

    loss = float(whole.callback_metrics["val/loss"])
    assert loss != float(plain.callback_metrics["val/loss"])
    assert scores["val/loss"] == pytest.approx(loss, rel=1e-6)
    for mine, other in zip(module.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, other)
