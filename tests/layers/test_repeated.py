"""A module's call like the one before goes to torch's kernel at once; others are as first ones."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.rnn import pack_sequence
from torch.utils.flop_counter import FlopCounterMode

import seqnets
from seqnets.engine import runs
from seqnets.errors import DeviceError, DtypeError, ShapeError
from seqnets.layers.torch_like import TorchLike

B, I, H = 2, 3, 4
CASES = {
    "a step": ("GRU", 1, {}),
    "a step, rows first": ("LSTM", 1, {"batch_first": True}),
    "a step of a stack": ("RNN", 1, {"num_layers": 2, "bidirectional": True}),
    "few steps": ("GRU", 3, {"num_layers": 2}),
    "few steps, rows first": ("LSTM", 3, {"bidirectional": True, "batch_first": True}),
    "without biases": ("RNN", 3, {"num_layers": 2, "bias": False, "nonlinearity": "relu"}),
}


def make(case):
    """torch.nn's module, ours after two calls, inputs, and a state."""
    kind, steps, options = CASES[case]
    torch.manual_seed(0)
    theirs, ours = (getattr(library, kind)(I, H, **options) for library in (nn, seqnets))
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(*((B, steps) if ours.batch_first else (steps, B)), I)
    parts = [torch.randn(len(ours.bound_cells()), B, H) for _ in ours.cell_class.states]
    ours(x), ours(x)
    return theirs, ours, x, parts[0] if len(parts) == 1 else tuple(parts)


def checked(monkeypatch):
    """The calls that are checked and decided, as first ones are."""
    made, run = [], TorchLike._run
    monkeypatch.setattr(
        TorchLike, "_run", lambda self, *args, **kw: made.append(args) or run(self, *args, **kw)
    )
    return made


@pytest.mark.parametrize("given", ["from zeros", "from a state", "from a list"])
@pytest.mark.parametrize("case", CASES)
def test_calls_that_differ_in_numbers_alone_go_to_torchs_kernel_at_once(case, given, monkeypatch):
    theirs, ours, x, hx = make(case)
    if given == "from zeros":
        hx = None
    elif given == "from a list" and isinstance(hx, tuple):
        hx = [*hx]
    made, before = checked(monkeypatch), runs.copy()
    with torch.no_grad():
        for module in (theirs, ours):
            module.weight_hh_l0.mul_(0.5)

    for numbers in (x, x + 1):
        torch.testing.assert_close(ours(numbers, hx), theirs(numbers, hx))
    assert not made
    assert runs - before == {"native": 2 * len(ours.bound_cells())}


def halved(module):
    for name, p in [*module.named_parameters()]:
        setattr(module, name, nn.Parameter(p.detach() / 2))


def swapped(module):
    own = module._parameters
    first, second = own["weight_hh_l0"], own["weight_hh_l1"]
    own["weight_hh_l0"], own["weight_hh_l1"] = second, first


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


CHANGES = {
    "other rows": lambda module, x: x.repeat(*((2, 1) if module.batch_first else (1, 2)), 1),
    "other steps": lambda module, x: x.repeat(*((1, 2) if module.batch_first else (2, 1)), 1),
    "no batch": lambda module, x: x[0],
    "other parameters": lambda module, x: halved(module),
    "a computed weight": lambda module, x: (
        parametrize.register_parametrization(module, "weight_hh_l0", Halved()) and None
    ),
    "a pruned weight": lambda module, x: (
        prune.random_unstructured(module, "weight_hh_l0", 0.5) and None
    ),
    "evaluation": lambda module, x: module.eval() and None,
    "another order": lambda module, x: setattr(module, "batch_first", not module.batch_first),
    "another dtype": lambda module, x: module.double() and x.double(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:RNN module weights")
def test_a_call_of_another_kind_is_checked_and_decided(case, change, monkeypatch):
    theirs, ours, x, _ = make(case)
    made = checked(monkeypatch)
    torch.manual_seed(1)
    given = CHANGES[change](ours, x)
    torch.manual_seed(1)
    CHANGES[change](theirs, x)
    given = x if given is None else given

    for _ in range(3):  # the later ones may be like the first
        torch.testing.assert_close(ours(given), theirs(given))
        with torch.no_grad():
            for p in (*ours.parameters(), *theirs.parameters()):
                p.mul_(0.5)
    assert made


def test_weights_that_change_places_are_read_from_there():
    theirs, ours = nn.GRU(H, H, 2), seqnets.GRU(H, H, 2)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, B, H)
    ours(x), ours(x)
    swapped(ours), swapped(theirs)

    torch.testing.assert_close(ours(x), theirs(x))


def test_weights_that_change_names_are_read_by_their_new_ones():
    module = seqnets.GRU(I, H, bidirectional=True)
    x = torch.randn(3, B, I)
    module(x), module(x)
    before = dict(module.named_parameters())
    for name in before:
        delattr(module, name)
    for name, parameter in before.items():
        other = name.removesuffix("_reverse") if name.endswith("_reverse") else f"{name}_reverse"
        module.register_parameter(other, parameter)
    theirs = nn.GRU(I, H, bidirectional=True)
    theirs.load_state_dict(module.state_dict())

    assert torch.equal(module(x)[0], theirs(x)[0])


def test_dropout_that_is_set_later_drops():
    _, ours, x, _ = make("few steps")
    before, _ = ours(x)
    ours.dropout = 1.0

    assert not torch.allclose(ours(x)[0], before)
    assert torch.allclose(ours.eval()(x)[0], before)


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_recorded_where_they_are_wanted_and_nowhere_else(case):
    _, ours, x, _ = make(case)

    for _ in range(2):
        with torch.no_grad():
            assert ours(x)[0].grad_fn is None
        assert ours(x)[0].grad_fn is not None
        with torch.inference_mode():
            assert ours(x)[0].is_inference()


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (lambda x, hx: (x[..., 1:], None), ShapeError),
        (lambda x, hx: (x.double(), None), DtypeError),
        (lambda x, hx: (x.to("meta"), None), DeviceError),
        (lambda x, hx: (x.numpy(), None), ShapeError),
        (lambda x, hx: (torch.nested.nested_tensor([*x]), None), ShapeError),
        (lambda x, hx: (x, hx[0]), ShapeError),
        (lambda x, hx: (x, (*hx, hx[0])), ShapeError),
        (lambda x, hx: (x, tuple(part[:, :1] for part in hx)), ShapeError),
        (lambda x, hx: (x, tuple(part.double() for part in hx)), DtypeError),
        (lambda x, hx: (x, tuple(part.to("meta") for part in hx)), DeviceError),
        (lambda x, hx: (x, tuple(part.numpy() for part in hx)), DtypeError),
        (lambda x, hx: (x, 5), ShapeError),
    ],
    ids=[
        "features",
        "dtype",
        "device",
        "no tensor",
        "nested",
        "a state of one part",
        "a state of three",
        "a state's rows",
        "its dtype",
        "its device",
        "no tensors in it",
        "a number for it",
    ],
)
@pytest.mark.parametrize("case", ["a step, rows first", "few steps, rows first"])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_does_not_fit_is_refused_as_in_a_first_call(case, given, error):
    _, ours, x, hx = make(case)
    with pytest.raises(error) as first:
        copy.deepcopy(ours)(*given(x, hx))

    with pytest.raises(error) as later:
        ours(*given(x, hx))
    assert str(later.value) == str(first.value)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_transforms_tracers_watchers_and_autocast_see_what_they_see_in_a_first_call(case):
    _, ours, x, _ = make(case)
    first = copy.deepcopy(ours)

    def seen(module):
        many = torch.func.vmap(lambda x: module(x)[0])(torch.stack([x, 2 * x]))
        slope = torch.func.grad(lambda x: module(x)[0].square().sum())(x)
        traced = torch.jit.trace(module, x, check_trace=False)
        with FlopCounterMode(display=False) as counter:
            module(x)
        with torch.autocast("cpu"):
            half, _ = module(x)
        return many, slope, traced(x), counter.get_total_flops(), half

    torch.testing.assert_close(seen(ours), seen(first))


def test_packed_rows_and_proxies_are_taken_after_a_call_like_those_before():
    theirs, ours, x, _ = make("few steps")
    for rows in ([x[:, 0], x[:, 1]], [x[:, 0], x[:2, 1]]):
        packed = pack_sequence(rows)
        torch.testing.assert_close(ours(packed)[0].data, theirs(packed)[0].data)

    graph = torch.fx.symbolic_trace(nn.Sequential(ours))
    torch.testing.assert_close(graph(x), ours(x))


def test_a_call_of_packed_rows_is_not_repeated_for_rows_first():
    theirs, ours, x, _ = make("few steps, rows first")
    rows = x.transpose(0, 1).contiguous()  # as packed: time first
    for _ in range(2):
        ours(pack_sequence([*x]))

    torch.testing.assert_close(ours(rows), theirs(rows))


def test_hooks_of_a_module_run_at_every_call():
    _, ours, x, _ = make("a step")
    seen = []
    ours.register_forward_pre_hook(lambda module, args: seen.append("before"))
    ours.register_forward_hook(lambda module, args, found: seen.append("after"))
    ours(x), ours(x)

    assert seen == ["before", "after"] * 2


class Fading(seqnets.GRU):
    """One whose cells have other parameters at each call."""

    left = 4.0

    def bound_cells(self):
        self.left /= 2
        cells = super().bound_cells()
        return [cell.bind({k: v * self.left for k, v in cell.tensors().items()}) for cell in cells]


class Turned(seqnets.GRU):
    """One whose directions may change places."""

    turned = False

    def bound_cells(self):
        return super().bound_cells()[:: -1 if self.turned else 1]


def test_a_subclass_may_give_its_own_cells_in_another_order():
    module, x = Turned(I, H, bidirectional=True), torch.randn(3, B, I)
    module(x), module(x)
    before, _ = module(x)
    module.turned = True

    assert not torch.allclose(module(x)[0], before)


def test_cells_that_a_subclass_gives_are_asked_for_at_every_call():
    module, x = Fading(I, H), torch.randn(1, B, I)
    first, second, third = (module(x)[0] for _ in range(3))

    assert not torch.allclose(first, second)
    assert not torch.allclose(second, third)


@pytest.mark.parametrize("what", ["cell", "class"])
def test_an_equation_that_is_changed_after_two_calls_is_the_one_that_runs(what, monkeypatch):
    class Own(seqnets.cells.GRUCell):
        pass

    class Mine(TorchLike, cell=Own):
        pass

    module, x = Mine(I, H), torch.randn(1, B, I)
    before, _ = module(x), module(x)
    changed = module.bound_cells()[0] if what == "cell" else Own
    halved = torch.tanh if what == "cell" else lambda self, a: torch.tanh(a)
    monkeypatch.setattr(changed, "candidate", lambda *a: halved(*a) / 2, raising=False)

    assert not torch.allclose(module(x)[0], before[0])


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_flags_that_are_changed_between_calls_change_no_numbers():
    _, ours, x, _ = make("few steps")
    before, _ = ours(x)
    with torch.backends.mkldnn.flags(enabled=False), torch.backends.cudnn.flags(enabled=False):
        found = [ours(x)[0]]
    torch.use_deterministic_algorithms(True)
    try:
        found.append(ours(x)[0])
    finally:
        torch.use_deterministic_algorithms(False)

    for y in found:
        torch.testing.assert_close(y, before)
