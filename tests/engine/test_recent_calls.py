"""A call like the one before is neither checked nor decided anew; every other call is."""

import copy
import gc
import pickle
import sys
import weakref

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

import seqnets
from seqnets import Recurrent, unroll
from seqnets.cells import GRUCell, LSTMCell, OriginalGRUCell, RNNCell, weight_drop
from seqnets.engine import dispatch, native, plans, runs
from seqnets.errors import BackendError, DeviceError, DtypeError, ShapeError

B, T, I, H = 2, 5, 3, 4


def make(kind=LSTMCell):
    torch.manual_seed(0)
    return kind(I, H), torch.randn(B, T, I)


def who_runs(cell, x, *args, **options):
    before = runs.copy()
    unroll(cell, x, *args, **options)
    (name,) = runs - before
    return name


@pytest.fixture
def decisions(monkeypatch):
    """Each time that a backend is chosen, by the name that was asked for."""
    made = []
    choose = dispatch.choose

    def watched(request, backend):
        made.append(backend)
        return choose(request, backend)

    monkeypatch.setattr(sys.modules["seqnets.engine.unroll"], "choose", watched)
    return made


def test_a_backend_is_chosen_once_for_calls_of_one_kind(decisions):
    cell, x = make()
    state = (torch.randn(B, H), torch.randn(B, H))
    found = [unroll(cell, x, state) for _ in range(3)]

    assert decisions == ["auto"]
    torch.testing.assert_close(found[2], unroll(cell, x, state, backend="reference"))


@pytest.mark.parametrize("kind", [LSTMCell, GRUCell, RNNCell])
def test_an_equation_is_looked_up_once_for_calls_of_one_kind(kind, monkeypatch):
    cell, x = make(kind)
    first, _ = unroll(cell, x, backend="eager")
    monkeypatch.setattr(plans, "_once", None)

    second, _ = unroll(cell, x, backend="eager")
    assert torch.equal(first, second)


def test_an_attribute_of_the_equation_that_is_changed_after_a_call_is_read_again():
    cell, x = make(RNNCell)
    first, _ = unroll(cell, x, backend="eager")
    cell.nonlinearity = "relu"

    second, _ = unroll(cell, x, backend="eager")
    torch.testing.assert_close(second, unroll(cell, x, backend="reference")[0])
    assert not torch.allclose(first, second)


def test_an_equation_of_a_cells_own_is_forgotten_once_it_is_removed():
    cell, x = make()
    update = cell.update
    cell.update = lambda wx, uh, state: tuple(part / 2 for part in update(wx, uh, state))
    own, _ = unroll(cell, x)
    del cell.update

    y, _ = unroll(cell, x)
    torch.testing.assert_close(y, unroll(cell, x, backend="reference")[0])
    assert not torch.allclose(y, own)


@pytest.mark.parametrize(
    "change",
    [
        lambda cell, x: (x[:1], {}),
        lambda cell, x: (x, {"backend": "native"}),
        lambda cell, x: (x, {"reverse": True}),
        lambda cell, x: (x, {"memory": "lean"}),
        lambda cell, x: (x, {"state": (torch.zeros(B, H), torch.zeros(B, H))}),
        lambda cell, x: (x, {"lengths": torch.tensor([2, 5])}),
        lambda cell, x: (cell.double() and x.double(), {}),
    ],
    ids=["rows", "backend", "direction", "memory", "state", "lengths", "dtype"],
)
def test_it_is_chosen_anew_for_another_kind_of_call(change, decisions):
    cell, x = make()
    unroll(cell, x)
    x, options = change(cell, x)

    unroll(cell, x, **options)
    assert len(decisions) == 2


@pytest.mark.parametrize(
    "around",
    [
        torch.no_grad,
        lambda: torch.autocast("cpu"),
        lambda: FlopCounterMode(display=False),
        forward_ad.dual_level,
    ],
    ids=["without gradients", "autocast", "a watching mode", "forward mode"],
)
def test_it_is_chosen_anew_in_other_circumstances(around, decisions):
    cell, x = make()
    unroll(cell, x)

    with around():
        unroll(cell, x)
    assert len(decisions) == 2


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_it_is_chosen_anew_while_a_module_is_traced(decisions):
    cell, x = make()
    layer = Recurrent(cell)
    layer(x)
    torch.jit.trace(layer, x, check_trace=False)
    assert len(decisions) == 2


def test_it_is_chosen_anew_for_other_threads(decisions):
    cell, x = make()
    unroll(cell, x)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        unroll(cell, x)
    finally:
        torch.set_num_threads(threads)
    assert len(decisions) == 2


def test_under_vmap_the_loops_that_ran_before_are_left():
    cell, x = make()
    assert who_runs(cell, x, backend="auto") in ("c", "native", "eager")

    many = torch.func.vmap(lambda rows: unroll(cell, rows)[0])(torch.stack([x, 2 * x]))
    torch.testing.assert_close(many[1], unroll(cell, 2 * x)[0])


def test_an_equation_that_is_changed_after_a_call_is_the_one_that_runs():
    cell, x = make(GRUCell)
    assert who_runs(cell, x, backend="native") == "native"

    cell.candidate = lambda a: a / 2
    with pytest.raises(BackendError, match="torch has no kernel"):
        unroll(cell, x, backend="native")


def test_a_class_that_is_changed_after_a_call_is_read_again():
    class Own(GRUCell):
        pass

    cell, x = make(Own)
    first, _ = unroll(cell, x)
    Own.candidate = lambda self, a: a / 2
    torch.testing.assert_close(unroll(cell, x)[0], unroll(cell, x, backend="reference")[0])
    assert not torch.allclose(unroll(cell, x)[0], first)


class Mixin:
    def candidate(self, a):
        return torch.tanh(a)


@pytest.mark.parametrize("first", [True, False], ids=["a cell that ran", "another cell"])
@pytest.mark.parametrize("kind", ["its own", "a mixin's", "torch's twin's"])
def test_torchs_kernel_is_left_once_an_equation_is_another(kind, first, monkeypatch):
    bases = (Mixin, LSTMCell) if kind == "a mixin's" else (LSTMCell,)
    Own = type("Own", bases, {})
    cell, x = make(Own)
    if kind != "a mixin's":  # whose method is not the LSTM's already
        assert who_runs(cell, x, backend="native") == "native"
    unroll(cell, x)
    changed = {"its own": Own, "a mixin's": Mixin, "torch's twin's": LSTMCell}[kind]
    monkeypatch.setattr(changed, "candidate", lambda self, a: torch.sin(a))
    if not first:
        cell, x = make(Own)

    torch.testing.assert_close(unroll(cell, x)[0], unroll(cell, x, backend="reference")[0])
    with pytest.raises(BackendError, match="torch has no kernel"):
        unroll(cell, x, backend="native")
    given = (torch.zeros(B, H), torch.zeros(B, H))
    _, (h, c) = native.step(cell, x[:, 0], given)
    torch.testing.assert_close((h, c), cell(x[:, 0], given)[1])


def test_a_direction_that_is_no_truth_value_is_refused_after_one_that_was():
    cell, x = make()
    unroll(cell, x, reverse=True)
    with pytest.raises(DtypeError, match="reverse is 1"):
        unroll(cell, x, reverse=1)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (lambda x: x.double(), DtypeError),
        (lambda x: x.to("meta"), DeviceError),
        (lambda x: x[..., 1:], ShapeError),
        (lambda x: x[0], ShapeError),
        (lambda x: x.tolist(), DtypeError),
    ],
    ids=["dtype", "device", "features", "rank", "no tensor"],
)
def test_what_does_not_fit_is_refused_after_a_call_that_did(given, error):
    cell, x = make()
    unroll(cell, x)
    with pytest.raises(error, match="LSTMCell: input"):
        unroll(cell, given(x))


def test_a_state_is_checked_at_every_call():
    cell, x = make()
    state = (torch.zeros(B, H), torch.zeros(B, H))
    unroll(cell, x, state)
    with pytest.raises(ShapeError, match="state 'c'"):
        unroll(cell, x, (state[0], state[1][:1]))


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (torch.zeros(4 * H, H - 1), ShapeError),
        (torch.zeros(4 * H, H).double(), DtypeError),
        (torch.zeros(4 * H, H, device="meta"), DeviceError),
    ],
    ids=["shape", "dtype", "device"],
)
def test_a_parameter_put_in_place_of_another_is_checked(given, error):
    cell, x = make()
    unroll(cell, x)
    cell.weight_hh = nn.Parameter(given)
    with pytest.raises(error, match="weight_hh"):
        unroll(cell, x)


def test_cells_whose_class_does_not_tell_their_equation_are_asked_each_time(decisions):
    cell, x = make(OriginalGRUCell)
    unroll(cell, x)
    unroll(cell, x)
    assert len(decisions) == 2


def test_nothing_is_kept_of_a_cell_that_is_gone_or_is_written_down():
    cell, x = make()
    unroll(cell, x)
    assert vars(pickle.loads(pickle.dumps(cell))).keys() == vars(make()[0]).keys()

    gone = weakref.ref(cell)
    del cell
    gc.collect()
    assert gone() is None


class Referring(GRUCell):
    """One with a function of its own, which refers to it."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.function = lambda a: torch.tanh(a / self.hidden_size)

    def candidate(self, a):
        return self.function(a)


class Ruled(GRUCell):
    """One with a rule of a class of its own, which refers to it."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        cell = self

        class Rule:
            def __call__(self, a):
                return torch.tanh(a / cell.hidden_size)

        self.rule = Rule()

    def candidate(self, a):
        return self.rule(a)


class RuledByAClass(Ruled):
    """One with the class itself."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.rule = type(self.rule)

    def candidate(self, a):
        return self.rule()(a)


class Multiplying(GRUCell):
    """One that cannot be traced."""

    def candidate(self, a):
        return a.cumprod(-1)


@pytest.mark.parametrize(
    ("kind", "backend"),
    [
        (Referring, "eager"),
        (Ruled, "eager"),
        (RuledByAClass, "eager"),
        (Multiplying, "auto"),
        (lambda *sizes: weight_drop(GRUCell(*sizes)), "native"),
    ],
    ids=[
        "a function of its own",
        "an object of its own class",
        "a class of its own",
        "untraceable",
        "weights dropped",
    ],
)
def test_a_cell_is_gone_when_its_user_drops_it(kind, backend):
    cell, x = make(kind)
    Recurrent(cell, backend=backend)(x)

    gone = weakref.ref(cell)
    del cell
    gc.collect()
    assert gone() is None


def test_a_weight_that_is_computed_from_now_on_is_no_new_equation_of_other_cells(monkeypatch):
    cell, x = make(OriginalGRUCell)
    unroll(cell, x, backend="eager")
    monkeypatch.setattr(plans, "trace_step", None)
    other = weight_drop(GRUCell(I, H))
    unroll(cell, x, backend="eager")
    parametrize.remove_parametrizations(other, "weight_hh")
    unroll(cell, x, backend="eager")


@pytest.mark.parametrize("step", [False, True], ids=["over time", "one step"])
@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda m, name: setattr(m, name, nn.Parameter(torch.zeros(3 * H, H - 1))), ShapeError),
        (lambda m, name: setattr(m, name, nn.Parameter(torch.zeros(3 * H, H).half())), DtypeError),
        (lambda m, name: setattr(getattr(m, name), "data", torch.zeros(3 * H, 1)), ShapeError),
        (
            lambda m, name: setattr(getattr(m, name), "data", torch.zeros(3 * H, H).half()),
            DtypeError,
        ),
    ],
    ids=["another shape", "another dtype", "reshaped", "converted"],
)
def test_a_face_that_has_run_refuses_a_parameter_of_another_kind(step, change, error):
    face = seqnets.GRUCell(I, H) if step else seqnets.GRU(I, H)
    x = torch.randn(B, I) if step else torch.randn(1, B, I)
    face(x), face(x)

    change(face, "weight_hh" if step else "weight_hh_l0")
    with pytest.raises(error, match="weight_hh"):
        face(x)


def make_face():
    torch.manual_seed(0)
    return seqnets.LSTM(I, H, num_layers=2, bidirectional=True), torch.randn(T, B, I)


def test_a_face_reads_the_parameters_that_it_has_now():
    face, x = make_face()
    face(x)
    twin = nn.LSTM(I, H, num_layers=2, bidirectional=True)
    face.weight_hh_l1 = nn.Parameter(torch.randn(4 * H, H))
    twin.load_state_dict(face.state_dict())
    torch.testing.assert_close(face(x), twin(x))

    given = {name: p.detach() / 2 for name, p in face.named_parameters()}
    found = torch.func.functional_call(face, given, (x,))
    torch.testing.assert_close(found, torch.func.functional_call(twin, given, (x,)))
    torch.testing.assert_close(face(x), twin(x))


def test_a_copy_of_a_face_has_parameters_of_its_own():
    face, x = make_face()
    y, _ = face(x)
    for other in (copy.deepcopy(face), pickle.loads(pickle.dumps(face))):
        with torch.no_grad():
            other.weight_ih_l0.zero_()
        assert not torch.allclose(other(x)[0], y)
        torch.testing.assert_close(face(x)[0], y)


def test_a_face_keeps_no_graph_of_what_stood_in_for_its_parameters():
    face, x = make_face()
    given = {name: p * 1 for name, p in face.named_parameters()}
    kept = [weakref.ref(tensor) for tensor in given.values()]
    torch.func.functional_call(face, given, (x,))

    del given

    gc.collect()
    assert {tensor() for tensor in kept} == {None}
