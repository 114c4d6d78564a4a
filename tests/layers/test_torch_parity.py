"""`seqnets.RNN`, `GRU` and `LSTM` equal torch.nn's to twelve digits."""

import copy
import inspect
import itertools
import pickle
from abc import ABC, abstractmethod

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
)

import seqnets
from seqnets.engine import native
from seqnets.errors import ConfigError, ShapeError

I, H, T, B, P = 3, 4, 5, 3, 2
KINDS = {
    "tanh": ("RNN", {"nonlinearity": "tanh"}),
    "relu": ("RNN", {"nonlinearity": "relu"}),
    "GRU": ("GRU", {}),
    "LSTM": ("LSTM", {}),
    "LSTM, projected": ("LSTM", {"proj_size": P}),
}
LENGTHS = {"packed, sorted": [5, 3, 1], "packed, unsorted": [2, 5, 3]}
SHAPES = ["padded", "unbatched", "no rows", *LENGTHS]


def pair(kind, **options):
    """torch's module and ours, of the same weights, in float64."""
    name, extra = KINDS[kind]
    theirs = getattr(nn, name)(I, H, **extra, **options).double()
    ours = getattr(seqnets, name)(I, H, **extra, **options).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def inputs(module, shape, batch_first, given_state):
    rows = {"unbatched": None, "no rows": 0}.get(shape, B)
    size = (T, I) if rows is None else (rows, T, I) if batch_first else (T, rows, I)
    x = torch.randn(size, dtype=torch.float64)
    if not given_state:
        return x, None
    places = module.num_layers * (1 + module.bidirectional)
    batch = () if rows is None else (rows,)
    widths = [module.proj_size or H, H] if isinstance(module, nn.LSTM) else [H]
    hx = tuple(torch.randn(places, *batch, width, dtype=torch.float64) for width in widths)
    return x, hx if len(hx) > 1 else hx[0]


def everything(module, x, hx, shape):
    """Outputs, final states, and the gradients of inputs, states and all parameters."""
    x = x.clone().requires_grad_()
    hx = (
        tuple(h.clone().requires_grad_() for h in (hx if isinstance(hx, tuple) else (hx,)))
        if (hx is not None)
        else ()
    )
    given = None if not hx else hx if len(hx) > 1 else hx[0]
    fed = x
    if shape in LENGTHS:
        lengths = torch.tensor(LENGTHS[shape])
        fed = pack_padded_sequence(
            x, lengths, batch_first=module.batch_first, enforce_sorted="unsorted" not in shape
        )
    y, final = module(fed, given)
    packing = y[1:] if isinstance(y, PackedSequence) else ()
    y = y.data if isinstance(y, PackedSequence) else y
    final = final if isinstance(final, tuple) else (final,)
    weights = [torch.sin(torch.arange(t.numel(), dtype=t.dtype)).view_as(t) for t in (y, *final)]
    loss = sum((w * t).sum() for w, t in zip(weights, (y, *final), strict=True))
    gradients = torch.autograd.grad(loss, (x, *hx, *module.parameters()))
    return [y, *final, *gradients], packing


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_states_and_all_gradients_are_torchs(kind, shape):
    options = itertools.product([False, True], [1, 2], [True, False], [False, True], [False, True])
    for bidirectional, num_layers, bias, batch_first, given_state in options:
        theirs, ours = pair(
            kind,
            bidirectional=bidirectional,
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
        )
        x, hx = inputs(theirs, shape, batch_first, given_state)

        expected, their_packing = everything(theirs, x, hx, shape)
        found, our_packing = everything(ours, x, hx, shape)

        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(our_packing, their_packing, rtol=0, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_in_mixed_precision_dtypes_are_torchs(kind, shape):
    theirs, ours = (module.float() for module in pair(kind))
    x, _ = inputs(theirs, shape, batch_first=False, given_state=False)

    with torch.autocast("cpu", torch.bfloat16):
        if reason := native._refusal_of_autocast(ours.bound_cells()[0]):  # on many laptops
            pytest.skip(reason)
        expected, _ = everything(theirs, x.float(), None, shape)
        found, _ = everything(ours, x.float(), None, shape)

    assert [tensor.dtype for tensor in found] == [tensor.dtype for tensor in expected]


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("compiled", [True, False])
def test_an_lstm_that_the_loops_run_under_autocast_has_the_dtypes_of_torchs_kernel(
    compiled, given, monkeypatch
):
    monkeypatch.setattr(native, "_has_onednn", lambda dtype: False)
    ours = seqnets.LSTM(I, H, num_layers=2, bidirectional=True)
    run = torch.compile(ours, backend="eager", fullgraph=True) if compiled else ours

    with torch.autocast("cpu", torch.bfloat16):
        y, state = run(X.to(given))

    assert {part.dtype for part in (y, *state)} == {torch.bfloat16}


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_an_lstm_under_autocast_has_torchs_dtypes_without_onednn_too(given, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)

    with torch.autocast("cpu", torch.bfloat16):
        found = [library.LSTM(I, H)(X.to(given)) for library in (nn, seqnets)]

    theirs, ours = ([part.dtype for part in (y, *state)] for y, state in found)
    assert ours == theirs


def test_an_lstm_can_be_exported_under_autocast():
    ours, x = seqnets.LSTM(I, H, num_layers=2), X.float()

    with torch.autocast("cpu", torch.bfloat16):
        if reason := native._refusal_of_autocast(ours.bound_cells()[0]):  # on many laptops
            pytest.skip(reason)
        exported = torch.export.export(ours, (x,)).module()
        torch.testing.assert_close(exported(x), ours(x))


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_loop_has_the_same_numbers_as_torch(kind, monkeypatch):
    theirs, ours = pair(kind, bidirectional=True, num_layers=2)
    x, hx = inputs(theirs, "padded", False, True)
    monkeypatch.setattr("seqnets.engine.dispatch.preference", lambda request: ("reference",))
    before = seqnets.engine.runs.copy()

    expected, _ = everything(theirs, x, hx, "padded")
    found, _ = everything(ours, x, hx, "padded")

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert seqnets.engine.runs - before == {"reference": 4}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
def test_equal_seeds_give_equal_weights_under_equal_names(kind, bias):
    name, extra = KINDS[kind]
    modules = []
    for library in (nn, seqnets):
        torch.manual_seed(7)
        module = getattr(library, name)(I, H, num_layers=2, bias=bias, bidirectional=True, **extra)
        modules.append(module.state_dict())

    assert list(modules[0]) == list(modules[1])
    assert all(torch.equal(modules[0][key], modules[1][key]) for key in modules[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_dict_of_ours_loads_into_torchs(kind):
    theirs, ours = pair(kind, num_layers=2, bidirectional=True)
    ours.reset_parameters()

    theirs.load_state_dict(ours.state_dict(), strict=True)
    x, hx = inputs(theirs, "padded", False, False)

    torch.testing.assert_close(ours(x, hx)[0], theirs(x, hx)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("backend", ["c", "native", "eager", "reference"])
def test_dropout_between_layers_draws_torchs_masks(
    backend, bidirectional, batch_first, monkeypatch
):
    monkeypatch.setattr("seqnets.engine.dispatch.preference", lambda request: (backend,))
    options = {"bidirectional": bidirectional, "batch_first": batch_first}
    theirs, ours = pair("GRU", num_layers=3, dropout=0.5, **options)
    x, _ = inputs(theirs, "padded", batch_first, False)

    outputs = []
    for module in (theirs, ours):
        torch.manual_seed(3)
        outputs.append(module(x)[0])

    torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("backend", ["c", "native", "reference"])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_can_be_viewed_without_time_as_torchs_can(
    kind, backend, bidirectional, turned, monkeypatch
):
    monkeypatch.setattr("seqnets.engine.dispatch.preference", lambda request: (backend,))
    theirs, ours = pair(kind, bidirectional=bidirectional)
    x, _ = inputs(theirs, "padded", False, False)
    if turned:
        x = x.transpose(0, 1).contiguous().transpose(0, 1)

    expected = theirs(x)[0]

    assert ours(x)[0].stride() == expected.stride()
    ours(x)[0].view(T * B, -1)


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"])
def test_positional_arguments_mean_what_they_mean_in_torch(name):
    rest = {
        "RNN": (2, "relu", False, True, 0.5, True),
        "GRU": (2, False, True, 0.5, True),
        "LSTM": (2, False, True, 0.5, True, P),
        "RNNCell": (False, "relu"),
        "GRUCell": (False,),
        "LSTMCell": (False,),
    }[name]

    theirs, ours = getattr(nn, name)(I, H, *rest), getattr(seqnets, name)(I, H, *rest)

    shared = ("num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size")
    for attribute in ("input_size", "hidden_size", "nonlinearity", *shared):
        if hasattr(theirs, attribute):
            assert getattr(ours, attribute) == getattr(theirs, attribute), attribute
    assert repr(ours) == repr(theirs)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"])
def test_calls_take_the_same_names(name):
    theirs = inspect.signature(getattr(nn, name).forward).parameters
    ours = inspect.signature(getattr(seqnets, name).forward).parameters

    assert list(ours) == list(theirs)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("given_state", [True, False])
@pytest.mark.parametrize(
    ("name", "extra"),
    [("RNNCell", {}), ("RNNCell", {"nonlinearity": "relu"}), ("GRUCell", {}), ("LSTMCell", {})],
)
def test_one_step_is_torchs(name, extra, bias, batched, given_state):
    theirs = getattr(nn, name)(I, H, bias=bias, **extra).double()
    ours = getattr(seqnets, name)(I, H, bias=bias, **extra).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    rows = (B,) if batched else ()
    x = torch.randn(*rows, I, dtype=torch.float64)
    hx = tuple(torch.randn(*rows, H, dtype=torch.float64) for _ in range(2))
    hx = None if not given_state else hx if name == "LSTMCell" else hx[0]

    results = []
    for module in (theirs, ours):
        state = module(x, hx)
        parts = state if isinstance(state, tuple) else (state,)
        loss = sum((part * (n + 1)).sin().sum() for n, part in enumerate(parts))
        results.append([*parts, *torch.autograd.grad(loss, tuple(module.parameters()))])

    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-12)


STEPS = ["RNNCell", "GRUCell", "LSTMCell"]


@pytest.mark.parametrize("bias", [1, 0, np.True_, False])
@pytest.mark.parametrize("name", STEPS)
def test_a_step_takes_numbers_for_flags_and_numpys_sizes_as_torchs_does(name, bias):
    sizes = np.int64(I), np.int64(H)

    theirs, ours = (getattr(library, name)(*sizes, bias) for library in (nn, seqnets))

    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert (ours.bias_hh is None) == (theirs.bias_hh is None) == (not bias)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(X[0]), theirs(X[0]))


def test_directions_may_be_asked_for_by_a_number_as_in_torch():
    for flag in (1, np.True_, 0):
        theirs, ours = (library.GRU(I, H, bidirectional=flag) for library in (nn, seqnets))

        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert ours.bidirectional is bool(flag)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_was_traced_can_be_written_down_by_another_tracer(name):
    ours = getattr(seqnets, name)(I, H)
    torch.jit.trace(ours, (X[0],))

    graph = make_fx(lambda x: ours(x)[0])(X[0])

    torch.testing.assert_close(graph(X[0]), ours(X[0])[0])


def test_copies_and_pickles_are_independent_and_equal():
    _, ours = pair("LSTM", num_layers=2)
    x = torch.randn(T, B, I, dtype=torch.float64)

    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(twin(x)[0], ours(x)[0])
        with torch.no_grad():
            twin.weight_hh_l0.zero_()
        assert not torch.equal(twin(x)[0], ours(x)[0])


def test_code_written_for_torchs_modules_works():
    theirs, ours = pair("LSTM", num_layers=2, bidirectional=True)

    ours.flatten_parameters()
    assert [name for name, _ in ours.named_parameters()] == [
        name for name, _ in theirs.named_parameters()
    ]
    for a, b in zip(ours.all_weights, theirs.all_weights, strict=True):
        torch.testing.assert_close(a, b)
    assert ours.float()(torch.randn(T, B, I))[0].dtype == torch.float32
    ours.weight_ih_l0.requires_grad_(False)
    ours(torch.randn(T, B, I))[0].sum().backward()
    assert ours.weight_ih_l0.grad is None
    assert ours.weight_hh_l0.grad is not None


def forget_biases_by_private_names(lstm):
    for names in lstm._all_weights:
        for name in filter(lambda name: "bias" in name, names):
            getattr(lstm, name).data[H : 2 * H].fill_(1.0)


def xavier_by_private_names(lstm):
    torch.manual_seed(3)
    for name in lstm._flat_weights_names:
        if "weight" in name:
            nn.init.xavier_uniform_(lstm._parameters[name])


def halved_by_private_list(lstm):
    with torch.no_grad():
        for weight in lstm._flat_weights:
            weight.mul_(0.5)
    lstm._flat_weights = [getattr(lstm, name, None) for name in lstm._flat_weights_names]


@pytest.mark.parametrize(
    "start", [forget_biases_by_private_names, xavier_by_private_names, halved_by_private_list]
)
def test_initial_values_are_set_by_torchs_private_names_too(start):
    theirs, ours = pair("LSTM, projected", num_layers=2, bidirectional=True)
    before = ours.state_dict()["bias_ih_l0"].clone(), ours.weight_ih_l0.clone()
    start(theirs), start(ours)

    for name, weight in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], weight), name
    after = ours.bias_ih_l0, ours.weight_ih_l0
    assert not all(map(torch.equal, before, after))


def test_a_weight_that_is_listed_anew_takes_the_place_of_the_one_before():
    _, ours = pair("GRU")
    weights = ours._flat_weights
    weights[1] = nn.Parameter(torch.zeros_like(weights[1]))
    ours._flat_weights = weights
    ours._flat_weights = ours._flat_weights  # as code does after it has replaced a weight

    assert ours.weight_hh_l0 is weights[1]
    assert ours(torch.randn(T, B, I, dtype=torch.float64))[0].requires_grad


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_a_module_says_its_mode_as_torchs_does(nonlinearity):
    assert seqnets.LSTM(2, 3).mode == nn.LSTM(2, 3).mode
    assert seqnets.GRU(2, 3).mode == nn.GRU(2, 3).mode
    ours, theirs = (m.RNN(2, 3, nonlinearity=nonlinearity) for m in (seqnets, nn))
    assert ours.mode == theirs.mode


def test_a_mode_that_is_set_later_is_refused_where_torchs_module_runs_another_equation():
    with pytest.raises(AttributeError, match="mode"):
        seqnets.RNN(2, 3).mode = "RNN_RELU"


@pytest.mark.parametrize("name", ["RNN", "RNNCell"])
def test_a_nonlinearity_that_is_set_later_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name}: nonlinearity is set to 'relu', .* 'tanh'"):
        getattr(seqnets, name)(2, 3).nonlinearity = "relu"


def test_a_reparametrised_weight_is_used_and_trained():
    _, ours = pair("GRU")
    x = torch.randn(T, B, I, dtype=torch.float64)
    before = ours(x)[0]
    parametrizations.weight_norm(ours, "weight_hh_l0")

    torch.testing.assert_close(ours(x)[0], before)
    ours(x)[0].sum().backward()
    assert ours.parametrizations.weight_hh_l0.original0.grad.abs().sum() > 0


def test_a_module_moves_while_another_tensor_is_to_take_a_parameters_place():
    theirs, ours = pair("LSTM")
    for module in (theirs, ours):
        weight = module.weight_hh_l0
        del module.weight_hh_l0
        module.float()
        module.weight_hh_l0 = weight.detach().float() / 2
    x = torch.randn(T, B, I)

    torch.testing.assert_close(ours(x)[0], theirs(x)[0])


def test_functional_call_replaces_the_parameters():
    theirs, ours = pair("LSTM")
    other = {name: torch.randn_like(p) for name, p in theirs.named_parameters()}
    x = torch.randn(T, B, I, dtype=torch.float64)

    found = torch.func.functional_call(ours, other, (x,))[0]
    theirs.load_state_dict(other)

    torch.testing.assert_close(found, theirs(x)[0], rtol=0, atol=1e-12)


X = torch.randn(T, B, I)
HX = torch.zeros(1, B, H)
BOTH_REFUSE = {
    "x of four dimensions": ("GRU", {}, (torch.randn(1, T, B, I), None)),
    "x of the wrong width": ("GRU", {}, (torch.randn(T, B, I + 1), None)),
    "x of another dtype": ("LSTM", {}, (X.double(), None)),
    "no steps": ("GRU", {}, (torch.randn(0, B, I), None)),
    "state of another batch": ("GRU", {}, (X, torch.zeros(1, B + 1, H))),
    "state of too many layers": ("GRU", {}, (X, torch.zeros(2, B, H))),
    "unbatched state": ("GRU", {}, (X, torch.zeros(1, H))),
    "batched state of unbatched x": ("LSTM", {}, (X[:, 0], (HX, HX))),
    "memory of the wrong width": ("LSTM", {}, (X, (HX, torch.zeros(1, B, H + 1)))),
    "dropout above 1": ("GRU", {"dropout": 1.5}, None),
    "dropout True": ("GRU", {"dropout": True}, None),
    "no layers": ("GRU", {"num_layers": 0}, None),
    "hidden_size 0": ("GRU", {"hidden_size": 0}, None),
    "hidden_size a float": ("GRU", {"hidden_size": 4.0}, None),
    "bias an int": ("GRU", {"bias": 1}, None),
    "batch_first a string": ("GRU", {"batch_first": "yes"}, None),
    "proj_size of a GRU": ("GRU", {"proj_size": 2}, None),
    "proj_size too large": ("LSTM", {"proj_size": H}, None),
    "proj_size negative": ("LSTM", {"proj_size": -1}, None),
    "unknown nonlinearity": ("RNN", {"nonlinearity": "elu"}, None),
}


@pytest.mark.parametrize("case", BOTH_REFUSE)
def test_what_torch_refuses_is_refused_with_an_error_of_the_same_class(case):
    name, options, call = BOTH_REFUSE[case]
    sizes = {"input_size": I, "hidden_size": H}

    errors = []
    for library in (nn, seqnets):
        with pytest.raises((TypeError, ValueError, RuntimeError)) as error:
            getattr(library, name)(**{**sizes, **options})(*call)
        errors.append(error.value)

    assert isinstance(errors[1], type(errors[0]))
    assert isinstance(errors[1], seqnets.errors.SeqnetsError)


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        (torch.randn(T, B, I + 1), r"\(5, 3, 4\)"),
        (torch.randn(T, I + 1), r"\(5, 4\)"),
        (pack_padded_sequence(torch.randn(T, B, I + 1), [5, 3, 1]), r"\(9, 4\)"),
    ],
)
def test_an_input_of_the_wrong_width_is_reported_in_its_own_layout(given, shape):
    with pytest.raises(seqnets.errors.ShapeError, match=f"^LSTM: .*shape {shape}, expected .* 3"):
        seqnets.LSTM(I, H)(given)


@pytest.mark.parametrize(
    ("given", "came"),
    [(5, "is int"), (HX, "is Tensor"), ((HX,), "has 1 part"), ([], "has 0 parts")],
)
def test_an_incomplete_state_is_reported(given, came):
    with pytest.raises(seqnets.errors.ShapeError, match=f"LSTM: hx {came}, expected a tuple of 2"):
        seqnets.LSTM(I, H)(X, given)


@pytest.mark.parametrize("x", [X[0], X[0, 0]])
@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("LSTMCell", 5, "state is int, expected a tuple of 2"),
        ("GRUCell", 5, "state 'h' is int, expected a tensor"),
        ("GRUCell", (HX,), "state 'h' is tuple, expected a tensor"),
    ],
)
def test_a_state_of_one_step_that_is_not_a_tensor_is_reported(name, given, told, x):
    with pytest.raises(seqnets.errors.SeqnetsError, match=told):
        getattr(seqnets, name)(I, H)(x, given)


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [("LSTM", "batchfirst", "batch_first"), ("RNN", "nonlinearty", "nonlinearity")],
)
def test_an_unknown_option_is_refused_with_a_suggestion(name, wrong, right):
    for library in (nn, seqnets):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{wrong}'") as error:
            getattr(library, name)(I, H, **{wrong: True})

    assert str(error.value) == f"{name}: unexpected keyword argument '{wrong}', expected {right}."


def test_a_cells_own_option_is_suggested_for_the_step_module_too():
    with pytest.raises(TypeError, match=r"PeepholeLSTMCell: unexpected.*expected forget_bias"):
        seqnets.PeepholeLSTMCell(I, H, forgetbias=1.0)


@pytest.mark.parametrize("name", ["GRU", "RNN", "MGU", "GRUCell", "RNNCell", "MGUCell"])
def test_arguments_that_do_not_fit_are_reported_by_the_module_that_was_called(name):
    module = getattr(seqnets, name)

    for given, told in [
        (lambda: module(I), "missing a required argument: 'hidden_size', expected "),
        (lambda: module(*range(20)), "too many positional arguments, expected "),
        (lambda: module(I, hiden_size=H), "unexpected keyword argument 'hiden_size', expected hid"),
        (lambda: module(I, bias=True), "missing a required argument: 'hidden_size', expected "),
    ]:
        with pytest.raises(TypeError, match=f"^{name}: {told}") as error:
            given()
        assert "DeepRNN" not in str(error.value)


def test_a_constructor_that_another_library_wraps_still_raises_its_error(monkeypatch):
    inside = seqnets.RNN.__init__
    monkeypatch.setattr(seqnets.RNN, "__init__", lambda *given, **named: inside(*given, **named))

    with pytest.raises(TypeError, match="missing 1 required positional argument: 'hidden_size'"):
        seqnets.RNN(I)


def wrong_weight():
    module = seqnets.GRU(I, H)
    module.weight_hh_l0 = nn.Parameter(torch.zeros(3 * H, H + 1))
    return module(X)


def packed(sizes):
    return PackedSequence(torch.randn(5, I), torch.tensor(sizes))


TORCH_TAKES = {
    "bidirectional a string": lambda: seqnets.LSTM(I, H, bidirectional="no"),
    "weights of a wrong shape": wrong_weight,
    "a batched state for one row": lambda: seqnets.GRUCell(I, H)(X[0, 0], torch.zeros(B, H)),
    "negative batch sizes": lambda: seqnets.GRU(I, H)(packed([6, -1])),
    "rising batch sizes": lambda: seqnets.GRU(I, H)(packed([2, 3])),
    "batch sizes of other rows": lambda: seqnets.GRU(I, H)(packed([3, 1])),
}


@pytest.mark.parametrize("case", TORCH_TAKES)
def test_arguments_that_torch_ignores_or_crashes_on_are_refused(case):
    with pytest.raises(seqnets.errors.SeqnetsError, match=r"expected|should be"):
        TORCH_TAKES[case]()


@pytest.mark.parametrize("name", ["LSTM", "RNN"])
def test_dropout_without_effect_warns_as_in_torch_of_the_line_that_asks_for_it(name):
    with pytest.warns(UserWarning, match="dropout") as told:
        getattr(seqnets, name)(I, H, dropout=0.5)

    assert told[0].filename == __file__


@pytest.mark.parametrize("library", ["torch", "lightning", "hydra"])
def test_a_warning_names_no_line_of_a_library_in_between(library):
    between = {"__name__": f"{library}.inside", "LSTM": seqnets.LSTM}
    exec("def call(): LSTM(2, 3, dropout=0.5)", between)

    with pytest.warns(UserWarning, match="dropout") as told:
        between["call"]()

    assert told[0].filename == __file__


@pytest.mark.parametrize("name", ["LSTM", "GRUCell"])
def test_a_model_around_a_module_can_be_traced_by_fx(name):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = nn.Sequential(getattr(seqnets, name)(I, H))

        def forward(self, x):
            made = self.inside(x * 2)
            return made[0] + 1

    model, x = Model(), torch.randn(T, I)

    traced = torch.fx.symbolic_trace(model)

    torch.testing.assert_close(traced(x), model(x))


def test_counts_of_layers_may_be_numpys():
    assert seqnets.GRU(I, H, num_layers=np.int64(2)).num_layers == 2


@pytest.mark.parametrize(
    "change",
    [
        ("input_size", 2),
        ("hidden_size", 2),
        ("num_layers", 2),
        ("bidirectional", True),
        ("bias", False),
        ("proj_size", 2),
    ],
)
def test_what_decides_the_parameters_of_a_module_cannot_be_set_to_something_else(change):
    name, value = change
    module = seqnets.LSTM(I, H)

    with pytest.raises(ConfigError, match=f"LSTM: {name} is set to {value}, expected "):
        setattr(module, name, value)


@pytest.mark.parametrize("change", [("input_size", 2), ("hidden_size", 2), ("bias", False)])
def test_what_decides_the_parameters_of_a_step_cannot_be_set_to_something_else(change):
    name, value = change
    step = seqnets.RNNCell(I, H)

    with pytest.raises(ConfigError, match=f"RNNCell: {name} is set to {value}, expected "):
        setattr(step, name, value)


def test_what_decides_the_parameters_of_a_module_may_be_set_to_what_it_is():
    module = seqnets.LSTM(I, H, num_layers=2)

    module.hidden_size, module.bidirectional, module.bias = H, False, True

    assert module(torch.randn(T, B, I))[0].shape == (T, B, H)


def test_a_module_may_be_initialised_again_as_torchs_may():
    module, step = seqnets.RNN(I, H), seqnets.RNNCell(I, H)

    module.__init__(I, H + 1, nonlinearity="relu")
    step.__init__(I, H + 1, nonlinearity="relu")

    assert module(torch.randn(T, B, I))[0].shape == (T, B, H + 1)
    assert (module.nonlinearity, step.nonlinearity) == ("relu", "relu")


def test_a_nested_tensor_is_refused_with_the_way_to_pack_it():
    rows = [torch.randn(4, I), torch.randn(2, I)]
    nested = torch.nested.nested_tensor(rows, layout=torch.jagged)
    ours = seqnets.GRU(I, H, batch_first=True)

    with pytest.raises(ShapeError, match=r"got NestedTensor instead.\n.*pack_sequence\(input"):
        ours(nested)
    packed = pack_sequence(nested.unbind(), enforce_sorted=False)  # as it says
    torch.testing.assert_close(ours(packed)[1][:, 1], ours(rows[1])[1])


class Abstract(ABC, seqnets.TorchLike):
    """A base class of networks that differ in their states, as forecasting libraries have."""

    @abstractmethod
    def masked(self, final, keep):
        """The final state, zero in some rows."""

    def forward(self, input, hx=None, lengths=None):
        packed = pack_padded_sequence(input, lengths, batch_first=True, enforce_sorted=False)
        y, final = super().forward(packed, hx)
        return pad_packed_sequence(y, batch_first=True)[0], self.masked(final, lengths > 2)


class MaskedLSTM(Abstract, seqnets.LSTM):
    def masked(self, final, keep):
        return tuple(part * keep[:, None] for part in final)


def test_a_torch_like_module_is_the_base_of_abstract_classes_where_rnnbase_is():
    theirs, _ = pair("LSTM", num_layers=2, batch_first=True)
    ours = MaskedLSTM(I, H, num_layers=2, batch_first=True).double()
    ours.load_state_dict(theirs.state_dict())
    x, lengths = torch.randn(B, T, I, dtype=torch.float64), torch.tensor([5, 1, 3])
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)

    y, (h, c) = ours(x, lengths=lengths)
    expected, (h_theirs, c_theirs) = theirs(packed)
    torch.testing.assert_close(y, pad_packed_sequence(expected, batch_first=True)[0])
    torch.testing.assert_close(h[:, ::2], h_theirs[:, ::2])
    torch.testing.assert_close(c[:, ::2], c_theirs[:, ::2])
    assert not h[:, 1].any()
    assert isinstance(ours, seqnets.TorchLike)


def test_a_step_of_a_users_class_has_parameters_of_its_own_which_are_drawn_like_the_others():
    def subclass(base):
        class WithMemory(base):
            def __init__(self, *sizes):
                super().__init__(*sizes)
                self.weight_ch = nn.Parameter(torch.empty(H, H))
                self.register_buffer("blank", torch.zeros(H))
                self.reset_parameters()

            def forward(self, x, hx):
                h, c = super().forward(x, hx)
                return h + c @ self.weight_ch, c

        torch.manual_seed(0)
        return WithMemory(I, H)

    theirs, ours = subclass(nn.LSTMCell), subclass(seqnets.LSTMCell)
    state = torch.randn(B, H), torch.randn(B, H)

    assert list(ours.state_dict()) == list(theirs.state_dict())
    torch.testing.assert_close(ours(X[0], state), theirs(X[0], state))


def test_a_replica_computes_with_the_tensors_that_it_is_given():
    theirs, ours = pair("LSTM", num_layers=2)
    x = torch.randn(T, B, I, dtype=torch.float64)
    results = []
    for module in (theirs, ours):
        module(x)
        replica = module._replicate_for_data_parallel()
        for name, parameter in module.named_parameters():
            setattr(replica, name, parameter * 0.5)  # a copy on another device in DataParallel
        y = replica(x)[0]
        results.append((y, torch.autograd.grad(y.sum(), list(module.parameters()))))

    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-12)
