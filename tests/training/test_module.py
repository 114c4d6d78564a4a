import math
from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from torchmetrics import MeanMetric

from seqnets.cells import CfCCell, GRUCell, GRUDCell, PhasedLSTMCell
from seqnets.datasets import Adding, ClassificationFiles
from seqnets.errors import CheckpointError, ConfigError, DataError, DivergenceError
from seqnets.models import FusedSoftmax, LanguageModel, SequenceClassifier, SequenceRegressor
from seqnets.training import (
    Classification,
    Forecasting,
    FramePrediction,
    LanguageModelling,
    NonMonotonicASGD,
    Outcome,
    Polyphony,
    Regression,
    SequenceModule,
    Tagging,
    Transcription,
    Transduction,
    load_checkpoint,
    save_checkpoint,
)
from seqnets.training.callbacks import DivergenceGuard, EarlyStopping
from seqnets.typing import IGNORE, Batch

from .runs import fit, language_module, parity_data, parity_module, text_data, trainer


class Fixed(torch.nn.Module):
    """Says what it was told to say."""

    def __init__(self, said):
        super().__init__()
        self.said, self.target_vocab_size = said, said.shape[-1]

    def forward(self, x, state=None, lengths=None):
        return self.said, state


class Writer(Fixed):
    """Says it of the target that it is told, and carries no state."""

    def forward(self, x, y, lengths=None):
        return self.said


def test_language_modelling_is_the_mean_over_scored_tokens():
    logits = torch.randn(2, 3, 5)
    targets = torch.tensor([[0, 4, 1], [2, IGNORE, IGNORE]])
    batch = Batch(torch.zeros(2, 3, dtype=torch.long), targets)

    outcome = LanguageModelling()(Fixed(logits), batch)
    scored = [(0, 0), (0, 1), (0, 2), (1, 0)]
    by_hand = -sum(logits[b, t].log_softmax(0)[targets[b, t]] for b, t in scored) / 4

    torch.testing.assert_close(outcome.loss, by_hand)
    assert outcome.scored == 4


def test_a_batch_without_targets_costs_nothing_instead_of_being_nan():
    batch = Batch(torch.zeros(1, 2, dtype=torch.long), torch.full((1, 2), IGNORE))

    assert Tagging()(Fixed(torch.randn(1, 2, 5)), batch).loss == 0


def test_bits_and_perplexity_follow_from_the_loss():
    assert LanguageModelling("characters").derived(math.log(8)) == {"bits_per_character": 3.0}
    assert LanguageModelling("words").derived(math.log(8)) == {"perplexity": pytest.approx(8)}


@pytest.mark.parametrize("target", [5, -1])
def test_a_target_out_of_range_is_named(target):
    batch = Batch(torch.zeros(2, 3), torch.tensor([0, target]))

    with pytest.raises(DataError, match=rf"target 1 of the batch is {target}, expected 0\.\.4"):
        Classification()(Fixed(torch.randn(2, 5)), batch)


@pytest.mark.parametrize(
    ("objective", "shape", "known"),
    [
        (Classification(), (2, 5), {}),
        (Tagging(), (2, 3, 5), {}),
        (Transcription(), (2, 1, 5), {"joiner": "", "labels": ["", "a", "b", "c"]}),
    ],
    ids=lambda given: type(given).__name__,
)
def test_a_model_of_other_classes_than_the_data_have_is_refused(objective, shape, known):
    targets = torch.ones(shape[:-1], dtype=torch.long)
    batch, model = Batch(torch.zeros(shape), targets), Fixed(torch.randn(shape))
    objective(model, batch)
    objective.prepare({"sizes": {"num_classes": 4}, **known})

    with pytest.raises(ConfigError, match="the model tells 5 classes apart, expected 4, as the"):
        objective(model, batch)


def test_a_head_of_other_classes_than_the_data_have_is_refused():
    tagging, model = Tagging(), LanguageModel(GRUCell, 5, hidden_size=2, output=FusedSoftmax)
    tagging.prepare({"sizes": {"num_classes": 4}})
    tokens = torch.zeros(2, 3, dtype=torch.long)

    with pytest.raises(ConfigError, match="the model tells 5 classes apart, expected 4, as the"):
        tagging(model, Batch(tokens, tokens))


def test_regression_refuses_targets_of_another_shape():
    with pytest.raises(DataError, match=r"\(2,\), expected \(2, 1\)"):
        Regression()(Fixed(torch.randn(2, 1)), Batch(torch.zeros(2, 3, 1), torch.zeros(2)))


def test_validation_over_chunks_is_the_loss_of_the_whole_stream(tmp_path):
    data = text_data(tmp_path, batch_size=1, chunk_length=32)
    module = language_module(data, scheduler=None)
    running = trainer(tmp_path)

    running.validate(module, data, verbose=False)
    found = running.callback_metrics["val/loss"]
    ids = torch.cat([batch.x[0] for batch in data.loader("val")])
    targets = torch.cat([batch.y[0] for batch in data.loader("val")])
    module.eval()
    logits, _ = module.model(ids[None])

    torch.testing.assert_close(found, F.cross_entropy(logits[0], targets))


def test_gradients_stop_at_the_borders_of_chunks_and_states_do_not(tmp_path):
    data = text_data(tmp_path)
    module = language_module(data, scheduler=None).eval()
    first, second = list(data.loader("train"))[:2]
    module.log = lambda *_, **__: None

    module.training_step(first, 0)
    state = module._carried["train"]
    loss = module.training_step(second, 1)
    alone, _ = module.model(second.x, state)

    assert not any(part.requires_grad for layer in state for part in layer)
    torch.testing.assert_close(loss, F.cross_entropy(alone.flatten(0, 1), second.y.flatten()))


def test_an_epoch_begins_with_a_fresh_state(tmp_path):
    data = text_data(tmp_path)
    module = language_module(data, scheduler=None).eval()
    module.log = lambda *_, **__: None
    first = next(iter(data.loader("train")))

    before = module.training_step(first, 0)
    again = module.training_step(first, 0)

    assert torch.equal(before, again)


def test_training_learns_the_text(tmp_path):
    running, _ = fit(
        partial(language_module, scheduler=None), text_data(tmp_path), tmp_path, max_steps=150
    )

    assert running.callback_metrics["val/bits_per_character"] < 3.0


def test_the_checkpoint_is_plain_and_whole(tmp_path):
    fit(language_module, text_data(tmp_path), tmp_path, max_steps=3)

    content = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")

    assert content["seqnets"]["format"] == 1
    assert content["global_step"] == 3


class PoisonAt(Callback):
    """Makes the loss or a gradient NaN at a step."""

    def __init__(self, step, what):
        self.step, self.what = step, what

    def on_before_backward(self, trainer, pl_module, loss):
        if trainer.global_step == self.step and self.what == "loss":
            pl_module.last_loss = loss.detach() * torch.nan

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step == self.step and self.what == "gradient":
            next(pl_module.parameters()).grad[0] = torch.inf

    @torch.no_grad()
    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == self.step and self.what == "weights":
            next(pl_module.parameters())[0] = torch.nan


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_divergence_stops_the_run_and_keeps_the_good_checkpoint(what, tmp_path):
    with pytest.raises(DivergenceError) as error:
        fit(
            language_module,
            text_data(tmp_path),
            tmp_path,
            PoisonAt(7, what),
            every_n_steps=2,
            max_steps=20,
        )
    content = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")

    assert "at step 7, epoch 0, batch 7" in str(error.value)
    assert "last.ckpt" in str(error.value)
    assert content["global_step"] == 6
    assert all(tensor.isfinite().all() for tensor in content["state_dict"].values())


def test_divergence_in_float16_is_blamed_on_the_precision(tmp_path):
    def with_adam(data):
        return language_module(data, scheduler=None)

    with pytest.raises(DivergenceError, match=r"try trainer\.precision=16-mixed or bf16-mixed"):
        fit(with_adam, text_data(tmp_path), tmp_path, max_steps=4, precision="16-true")


def test_divergence_before_the_first_update_is_not_blamed_on_the_rate(tmp_path):
    with pytest.raises(DivergenceError, match=r"not the cause(.|\n)*model\.norm=rms") as error:
        fit(language_module, text_data(tmp_path), tmp_path, PoisonAt(0, "loss"), max_steps=4)

    assert "optimizer.lr" not in str(error.value)
    assert "No checkpoint was written yet" in str(error.value)


def test_no_checkpoint_stores_weights_that_are_nan(tmp_path):
    poisoned = PoisonAt(8, "weights")

    with pytest.raises(DivergenceError, match="infinite or NaN at step 8, epoch 0; expected"):
        fit(language_module, text_data(tmp_path), tmp_path, poisoned, every_n_steps=4, max_steps=20)
    content = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")

    assert content["global_step"] == 4
    assert all(weight.isfinite().all() for weight in content["state_dict"].values())


def test_a_model_that_has_diverged_may_be_validated(tmp_path):
    data = text_data(tmp_path)
    module, running = language_module(data, scheduler=None), trainer(tmp_path)
    torch.nn.init.constant_(module.model.output.bias, torch.nan)

    running.validate(module, data, verbose=False)

    assert running.callback_metrics["val/loss"].isnan()


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_validation_loss_of_nan_stops_the_run_and_is_not_saved(number, tmp_path):
    class Spoil(Callback):
        def on_validation_batch_end(self, trainer, pl_module, *_):
            if trainer.global_step == 6:
                pl_module.scores["val"].loss.total += number

    with pytest.raises(DivergenceError) as error:
        fit(
            language_module,
            text_data(tmp_path),
            tmp_path,
            Spoil(),
            max_steps=20,
            val_check_interval=3,
        )
    contents = [load_checkpoint(path) for path in (tmp_path / "checkpoints").iterdir()]

    assert f"the validation loss is {number} at step 6, epoch 0; expected" in str(error.value)
    assert [content["global_step"] for content in contents] == [3, 3]


def test_a_checkpoint_of_another_model_is_refused_on_resume(tmp_path):
    fit(language_module, text_data(tmp_path), tmp_path, max_steps=3)

    def wider(data):
        return language_module(data, embedding_size=16)

    with pytest.raises(CheckpointError, match=r"of another model(.|\n)*embedding"):
        fit(
            wider,
            text_data(tmp_path),
            tmp_path,
            resume=tmp_path / "checkpoints" / "last.ckpt",
            max_steps=5,
        )


@pytest.mark.parametrize("clipping", ["norm", "value"])
def test_gradients_are_clipped(clipping, tmp_path):
    largest = {}

    class Look(Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            if gradients:
                largest["norm"] = float(torch.nn.utils.get_total_norm(gradients))
                largest["value"] = max(float(g.abs().max()) for g in gradients)

    fit(
        language_module,
        text_data(tmp_path),
        tmp_path,
        Look(),
        max_steps=3,
        gradient_clip_val=1e-3,
        gradient_clip_algorithm=clipping,
    )

    assert largest[clipping] == pytest.approx(1e-3, rel=1e-3)


def test_the_norm_that_the_guard_has_found_is_what_clips(tmp_path, monkeypatch):
    norms, clipped_by = [], []
    total, by = torch.nn.utils.get_total_norm, torch.nn.utils.clip_grads_with_norm_
    monkeypatch.setattr(
        torch.nn.utils, "get_total_norm", lambda these: norms.append(total(these)) or norms[-1]
    )
    monkeypatch.setattr(
        torch.nn.utils,
        "clip_grads_with_norm_",
        lambda *args: clipped_by.append(args[2]) or by(*args),
    )
    data, options = text_data(tmp_path), {"max_steps": 3, "gradient_clip_val": 0.01}

    _, guarded = fit(language_module, data, tmp_path, **options)

    assert len(norms) == 3
    assert all(one is other for one, other in zip(clipped_by, norms, strict=True))
    monkeypatch.setattr(DivergenceGuard, "on_before_optimizer_step", lambda *args: None)
    _, alone = fit(language_module, data, tmp_path, **options)
    assert len(clipped_by) == 3
    for one, other in zip(guarded.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)


def test_metrics_that_agree_on_the_first_batch_stay_independent():
    known = {"sizes": {"output_size": 1}}
    module = SequenceModule(torch.nn.Linear(1, 1), Forecasting(), known, torch.optim.SGD)
    scores = module.scores["val"].metrics

    scores.update(torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1), math.nan))
    scores.update(torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1), 3.0))

    assert sorted(float(score) for score in scores.compute().values()) == [3.0, 9.0]


def test_a_metric_of_an_odd_direction_is_not_told_as_what_the_data_lack():
    class Odd(MeanMetric):
        higher_is_better = "max"

    class OfOdd(Classification):
        def metrics(self, known):
            return {"accuracy": Odd()}

    known = parity_data().describe()
    with pytest.raises(KeyError, match="max"):
        SequenceModule(torch.nn.Linear(1, 1), OfOdd(), known, torch.optim.SGD)


def test_what_an_objective_asks_for_is_told_if_the_data_are_not_described():
    sizes = parity_data().sizes  # in place of describe()

    with pytest.raises(ConfigError, match="asks for 'sizes', which these data do not have"):
        SequenceModule(torch.nn.Linear(1, 1), Classification(), sizes, torch.optim.SGD)


N, C = 20_000, 4
STEPS = {
    "classification": (Classification, (N, C), (N,)),
    "language": (LanguageModelling, (1, N, C), (1, N)),
    "tagging": (Tagging, (1, N, C), (1, N)),
    "translation": (Transduction, (1, N, C), (1, N)),
    "music": (Polyphony, (1, N, C), (1, N, C)),
    "frames": (FramePrediction, (1, 50, 1, 40, 40), (1, 50, 1, 40, 40)),
    "numbers": (Regression, (N, C), (N, C)),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("task", STEPS)
def test_a_loss_is_summed_in_float32_whatever_the_model_computes_in(task, dtype):
    make, said, right = STEPS[task]
    torch.manual_seed(0)
    logits = 3 * torch.randn(said).to(dtype)
    whole = task not in ("music", "frames", "numbers")
    y = torch.randint(C, right) if whole else torch.randint(2, right).to(dtype)
    x = torch.zeros(right[:2] if len(right) > 1 else (1,))

    model = Writer if task == "translation" else Fixed

    exact = make()(model(logits.double()), Batch(x, y if whole else y.double()))
    outcome = make()(model(logits), Batch(x, y))

    assert outcome.loss.dtype == torch.float32
    assert float(outcome.loss) == pytest.approx(float(exact.loss), rel=1e-5)


def test_unknown_classes_are_ignored_by_loss_and_metrics():
    logits = torch.tensor([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0]])
    y = torch.tensor([0, IGNORE, 1])
    objective = Classification()
    outcome = objective(Fixed(logits), Batch(torch.zeros(3, 1), y))

    for metric in objective.metrics({"sizes": {"num_classes": 2}}).values():
        assert float(metric(outcome.predictions, outcome.targets)) == pytest.approx(
            0.5 if "Accuracy" in type(metric).__name__ else 1 / 3
        )
    assert int(outcome.scored) == 2


@pytest.mark.parametrize("wait", ["plateau", "averaging", "stopping"])
def test_callbacks_that_need_validations_are_refused_without_any(wait, tmp_path):
    make, callbacks = parity_module, []
    if wait == "averaging":

        def make(data):
            module = parity_module(data)
            module.scheduler_factory = None
            module.optimizer_factory = partial(NonMonotonicASGD, lr=0.1)
            return module

    if wait == "stopping":

        def make(data):
            module = parity_module(data)
            module.scheduler_factory = None
            return module

        callbacks = [EarlyStopping("val/loss")]

    with pytest.raises(ConfigError, match=r"limit_val_batches.*0.* expected validations"):
        fit(make, parity_data(), tmp_path, *callbacks, max_epochs=1, limit_val_batches=0)


def test_early_stopping_by_the_loss_of_training_needs_no_validations(tmp_path):
    stopping = EarlyStopping(
        "train/loss", check_on_train_epoch_end=True, min_delta=100.0, patience=1
    )
    make = partial(language_module, scheduler=None)
    options = {"max_epochs": 5, "limit_val_batches": 0}
    running, _ = fit(make, text_data(tmp_path), tmp_path, stopping, **options)

    assert running.current_epoch == 2
    assert stopping.reason == "train/loss has not fallen for 1 epoch"


def test_a_plateau_of_a_rising_metric_is_refused(tmp_path):
    def make(data):
        module = parity_module(data)
        module.scheduler_factory = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, mode="max")
        return module

    with pytest.raises(ConfigError, match="mode is 'max', expected 'min'"):
        fit(make, parity_data(), tmp_path, max_epochs=1)


def test_a_model_trained_by_several_processes_is_scored_by_one(tmp_path):
    running, module = fit(parity_module, parity_data(), tmp_path, max_epochs=1)
    last = tmp_path / "checkpoints" / "last.ckpt"
    found = load_checkpoint(last)
    found["seqnets"]["processes"] *= 2
    save_checkpoint(found, tmp_path / "two.ckpt")
    (expected,) = running.test(module, parity_data(), verbose=False)

    other, data = parity_module(parity_data()), parity_data()
    (scored,) = trainer(tmp_path).test(
        other, data, str(tmp_path / "two.ckpt"), verbose=False, weights_only=True
    )

    assert scored == expected


def test_a_schedule_over_a_run_of_no_known_length_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"run of known length.*\n.*max_steps"):
        fit(language_module, text_data(tmp_path), tmp_path, max_epochs=-1, max_time="00:00:00:01")


def test_bfloat16_trains(tmp_path):
    running, module = fit(
        language_module, text_data(tmp_path), tmp_path, max_steps=5, precision="bf16-mixed"
    )

    assert running.global_step == 5
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in module.parameters())


def test_best_is_the_checkpoint_with_the_best_metric(tmp_path):
    scores = {}

    class Look(Callback):
        def on_validation_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                scores[trainer.global_step] = float(trainer.callback_metrics["val/accuracy"])

    fit(parity_module, parity_data(), tmp_path, Look(), max_epochs=6)
    best = load_checkpoint(tmp_path / "checkpoints" / "best.ckpt")

    assert scores[best["global_step"]] == max(scores.values())


def test_lightning_loads_a_checkpoint_into_what_it_is_given_and_refuses_other_weights(tmp_path):
    data = parity_data()
    _, module = fit(parity_module, data, tmp_path, max_epochs=1)
    last = tmp_path / "checkpoints" / "last.ckpt"
    parts = {"objective": module.objective, "known": data.describe(), "optimizer": torch.optim.SGD}
    model, other = (SequenceClassifier(GRUCell, **data.sizes, hidden_size=n) for n in (8, 9))

    loaded = SequenceModule.load_from_checkpoint(last, model=model, **parts, weights_only=True)

    for name, weight in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    with pytest.raises(CheckpointError, match="Checkpoint given: is of another model"):
        SequenceModule.load_from_checkpoint(last, model=other, **parts, weights_only=True)


def test_gradients_are_found_in_the_thread_that_asks_for_them(tmp_path):
    data, seen = parity_data(), []
    module = parity_module(data)
    weight = next(module.model.parameters())
    weight.register_hook(lambda _: seen.append(torch._C._is_multithreading_enabled()))

    trainer(tmp_path, max_steps=2).fit(module, data)

    assert seen == [False, False]
    assert torch._C._is_multithreading_enabled()


def test_figures_of_many_batches_are_those_of_float32_though_all_is_in_half_precision(tmp_path):
    torch.manual_seed(0)
    said, right = torch.randn(4000, 2), torch.randn(4000, 2)
    known = {"sizes": {"output_size": 2}}
    module = SequenceModule(torch.nn.Linear(1, 1), Regression(), known, torch.optim.SGD)
    scores = module.to(torch.bfloat16).scores["val"]

    for a, b in zip(said.bfloat16().split(5), right.bfloat16().split(5), strict=True):
        scores.update(Outcome(torch.tensor(3.3), torch.tensor(5), a, b, None))

    figures = scores.take()
    missed = (said.bfloat16() - right.bfloat16()).double()
    assert figures == {
        "loss": pytest.approx(3.3, rel=1e-5),
        "mse": pytest.approx(float(missed.square().mean()), rel=1e-3),
        "mae": pytest.approx(float(missed.abs().mean()), rel=1e-3),
    }


def test_a_run_in_half_precision_reports_the_metrics_of_its_predictions(tmp_path):
    data = Adding(length=10, train_size=40, test_size=600, batch_size=5)

    def make(data):
        model = SequenceRegressor(GRUCell, 1, input_size=2, hidden_size=4)
        return SequenceModule(
            model, Regression(), data.describe(), partial(torch.optim.SGD, lr=0.1)
        )

    running, module = fit(make, data, tmp_path, max_steps=2, precision="bf16-true")
    (figures,) = running.test(module, data, verbose=False)
    squares, absolutes = [], []
    with torch.no_grad():
        for batch in data.test_dataloader():
            said, _ = module.model(batch.x.bfloat16(), None, batch.lengths)
            missed = said.double() - batch.y.bfloat16().double()
            squares.append(missed.square())
            absolutes.append(missed.abs())

    assert figures["test/mse"] == pytest.approx(float(torch.cat(squares).mean()), rel=1e-3)
    assert figures["test/mae"] == pytest.approx(float(torch.cat(absolutes).mean()), rel=1e-3)
    assert figures["test/loss"] == pytest.approx(figures["test/mse"], rel=1e-3)


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("timed", [False, True])
def test_times_that_the_data_standardise_are_refused_before_training(timed, standardise, tmp_path):
    rows = [f"{n},{'ab'[n % 2]},{n % 5},{t}" for n in range(40) for t in range(3)]
    (tmp_path / "visits.csv").write_text("\n".join(["sequence,label,x,elapsed", *rows]))
    data = ClassificationFiles(str(tmp_path / "visits.csv"), standardise=standardise)

    def make(data):
        options = {"hidden_size": 4, "num_layers": 2, "timed": timed}
        model = SequenceClassifier(CfCCell, **data.sizes, **options)
        return SequenceModule(model, Classification(), data.describe(), torch.optim.SGD)

    told = "SequenceClassifier: CfCCell takes the last feature for the time, and the dataset"
    refused = pytest.raises(ConfigError, match=told)
    with refused if timed and standardise else nullcontext():
        fit(make, data, tmp_path, max_steps=1)


@pytest.mark.parametrize(
    ("cell", "timed", "stamps", "told"),
    [
        (CfCCell, True, False, None),
        (CfCCell, True, True, "CfCCell reads the time since the step before.*time_stamps=false"),
        (CfCCell, False, False, "CfCCell has timed=False, expected True.*model.timed=true"),
        (PhasedLSTMCell, True, False, "since a sequence's first step.*time_stamps=true"),
        (PhasedLSTMCell, True, True, None),
        (GRUDCell, True, False, None),
        (GRUCell, False, False, None),
    ],
)
def test_times_are_read_as_the_data_have_them_or_refused(cell, timed, stamps, told, tmp_path):
    rows = [f"{n},{'ab'[n % 2]},{t * t},{n % 5}" for n in range(40) for t in range(3)]
    (tmp_path / "visits.csv").write_text("\n".join(["sequence,label,when,x", *rows]))
    path = str(tmp_path / "visits.csv")
    data = ClassificationFiles(path, time="when", time_stamps=stamps)

    def make(data):
        options = {"hidden_size": 4, "num_layers": 2, **({"timed": True} if timed else {})}
        model = SequenceClassifier(cell, **data.sizes, **options)
        return SequenceModule(model, Classification(), data.describe(), torch.optim.SGD)

    refused = pytest.raises(ConfigError, match=f"(?s){told}")
    with nullcontext() if told is None else refused:
        fit(make, data, tmp_path, max_steps=1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda given: {"model": SequenceClassifier}, "model is the class SequenceClassifier"),
        (lambda given: {"objective": Classification}, "objective is the class Classification"),
        (lambda given: {"known": parity_data()}, "known is Parity, expected .* describe"),
        (
            lambda given: {"optimizer": torch.optim.SGD(given["model"].parameters())},
            "optimizer is SGD, expected .* partial",
        ),
    ],
)
def test_what_a_module_is_made_of_is_told_from_what_makes_it(change, told):
    data = parity_data()
    given = {
        "model": SequenceClassifier(GRUCell, **data.sizes, hidden_size=4),
        "objective": Classification(),
        "known": data.describe(),
        "optimizer": torch.optim.SGD,
    }

    with pytest.raises(ConfigError, match=f"SequenceModule: {told}"):
        SequenceModule(**given | change(given))
