"""Small real training runs for tests."""

import os
import signal
from functools import partial

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from seqnets.cells import GRUCell, LSTMCell
from seqnets.datasets import ClassificationFiles, Parity, SeriesTable, TextFiles
from seqnets.datasets.augmentation import Noise, SpecAugment, Stretch
from seqnets.models import EncoderDecoder, Forecaster, LanguageModel, SequenceClassifier
from seqnets.training import (
    AtomicCheckpointIO,
    Classification,
    Cosine,
    Forecasting,
    LanguageModelling,
    SequenceModule,
)
from seqnets.training.callbacks import Checkpoints, DivergenceGuard, StopOnSignal

SENTENCES = "The state is carried on. What was learned stays; what was lost is gone.\n" * 40


class SignalAt(Callback):
    """Sends this process a signal in the middle of a step."""

    def __init__(self, step, number=signal.SIGTERM):
        self.step, self.number = step, number

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step - 1:
            os.kill(os.getpid(), self.number)


def text_data(folder, **options):
    path = folder / "text.txt"
    if not path.exists():
        path.write_text(SENTENCES, encoding="utf-8")
    return TextFiles(
        str(path), cache=str(folder / "cache"), **{"batch_size": 4, "chunk_length": 32, **options}
    )


def language_module(data, scheduler=Cosine, **options):
    model = LanguageModel(
        LSTMCell, data.sizes["vocab_size"], hidden_size=8, num_layers=2, dropout=0.3, **options
    )
    optimizer = partial(torch.optim.AdamW, lr=0.01)
    return SequenceModule(model, LanguageModelling(), data.describe(), optimizer, scheduler)


def parity_data():
    return Parity(length=6, shortest_length=3, train_size=40, test_size=16, batch_size=8)


def parity_module(data):
    model = SequenceClassifier(GRUCell, **data.sizes, hidden_size=8, dropout=0.2)
    plateau = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, factor=0.5)
    optimizer = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    return SequenceModule(model, Classification(), data.describe(), optimizer, plateau)


def weighted_data(folder):
    path = folder / "weighted.csv"
    rows = (f"{n},{'ab'[n % 2]},{n % 5 / 2},{n % 3},{t}" for n in range(60) for t in range(3))
    path.write_text("\n".join(["sequence,label,trust,x,y", *rows]))
    return ClassificationFiles(str(path), weight="trust", batch_size=6)


def augmented_data(folder):
    augment = [Stretch(0.5, 1.5), SpecAugment(share_of_steps=0.5), Noise(0.1)]
    path = folder / "augmented.csv"
    rows = (f"{n},{'ab'[n % 2]},{n % 3},{t}" for n in range(60) for t in range(4 + n % 3))
    path.write_text("\n".join(["sequence,label,x,y", *rows]))
    return ClassificationFiles(str(path), batch_size=6, augment=augment)


def series_data(folder):
    path = folder / "series.csv"
    path.write_text("\n".join(["sales,event", *(f"{n % 7 * (n % 3)},{n % 3}" for n in range(90))]))
    sizes = {"lookback": 6, "horizon": 3, "batch_size": 6}
    return SeriesTable(str(path), known_ahead=["event"], **sizes)


def series_module(data):
    model = Forecaster(GRUCell, **data.sizes, strategy=EncoderDecoder, hidden_size=8, dropout=0.2)
    optimizer = partial(torch.optim.AdamW, lr=0.01)
    return SequenceModule(model, Forecasting(), data.describe(), optimizer)


def trainer(folder, *callbacks, every_n_steps=0, **options):
    guards = [DivergenceGuard(), StopOnSignal(), Checkpoints(every_n_steps)]
    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "gradient_clip_val": 1.0,
        "log_every_n_steps": 1,
    }
    return Trainer(
        default_root_dir=folder,
        callbacks=[*callbacks, *guards],
        plugins=[AtomicCheckpointIO()],
        **{**defaults, **options},
    )


def fit(make_module, data, folder, *callbacks, resume=None, seed=1, **options):
    """Train from a seed, or from a checkpoint with a different random state in the process."""
    seed_everything(seed if resume is None else 12345, verbose=False)
    module = make_module(data)
    running = trainer(folder, *callbacks, **options)
    running.fit(module, data, ckpt_path=resume, weights_only=True)
    return running, module
