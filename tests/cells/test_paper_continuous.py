"""Networks in continuous time against their papers in plain floats."""

import math
import pickle
from functools import partial

import pytest
import torch
from torch.nn.utils import prune

from seqnets import (
    Bidirectional,
    CfC,
    ConvFront1d,
    ConvFront2d,
    DeepOutput,
    DeepRNN,
    Fronted,
    Hierarchical,
    PhasedLSTM,
    Recurrent,
    explain,
    unroll,
)
from seqnets.cells import (
    CfCCell,
    GRUCell,
    GRUDCell,
    InputDropout,
    LayerNorm,
    LTCCell,
    Mogrifier,
    NCPCell,
    PhasedLSTMCell,
    Zoneout,
)
from seqnets.errors import ConfigError, DtypeError
from seqnets.models import (
    Direct,
    Forecaster,
    SequenceClassifier,
    SequenceToSequence,
    Transcriber,
    VideoClassifier,
)
from seqnets.testing import check_backend, check_cell, one_unit, step

from .plain import after, numbers, sigmoid

pytestmark = pytest.mark.usefixtures("plain_loop")

XS = (2.0, -0.7, 0.4)
ONE = {"w": (0.5,), "u": (0.7,), "b": (0.1,), "d": (-0.3,)}
HEADS = {"weight_head": (0.8, -0.6, 0.9, 0.35), "bias_head": (0.2, 0.15, -0.4, 0.55)}
TIMED = (
    CfCCell,
    partial(CfCCell, mode="no_gate"),
    partial(CfCCell, mode="pure", backbone_size=3),
    LTCCell,
)


def near(numbers):
    return pytest.approx(numbers, abs=1e-12)


def lecun_tanh(a):
    return 1.7159 * math.tanh(0.666 * a)


def backbone(x, h):
    return lecun_tanh(0.5 * x + 0.1 + 0.7 * h - 0.3)


def heads(k):
    return [w * k + b for w, b in zip(*HEADS.values(), strict=True)]


def timed_step(cell, x, elapsed, h):
    """One step of a cell with one unit that took some time."""
    row = torch.tensor([[x, elapsed]], dtype=torch.float64)
    return cell(row, (torch.tensor([[h]], dtype=torch.float64),))[0].item()


def timed_unit(cell_cls, **given):
    """As ``one_unit``, with one feature beside the time."""

    def make(input_size, hidden_size, **options):
        return cell_cls(input_size + 1, hidden_size, timed=True, **options)

    return one_unit(make, **given)


def random_times(*shape):
    return torch.rand(*shape, 1, dtype=torch.float64) * 3


def test_cfc_follows_its_paper():
    cell = one_unit(CfCCell, **ONE, **HEADS)
    h = -1.5

    for x in XS:
        g, n, rate, offset = heads(backbone(x, h))
        s = sigmoid(rate + offset)
        expected = math.tanh(g) * (1 - s) + s * math.tanh(n)

        assert step(cell, x, h) == near(expected)
        h = expected


def test_cfc_without_its_gate_follows_its_authors():
    cell = one_unit(partial(CfCCell, mode="no_gate"), **ONE, **HEADS)
    g, n, rate, offset = heads(backbone(2.0, -1.5))

    expected = math.tanh(g) + sigmoid(rate + offset) * math.tanh(n)

    assert step(cell, 2.0, -1.5) == near(expected)


@pytest.mark.parametrize("elapsed", [0.0, 0.3, 2.5])
def test_cfc_opens_its_gate_by_the_time_elapsed(elapsed):
    cell = timed_unit(CfCCell, **ONE, **HEADS)
    g, n, rate, offset = heads(backbone(2.0, -1.5))

    s = sigmoid(rate * elapsed + offset)

    assert timed_step(cell, 2.0, elapsed, -1.5) == near((1 - s) * math.tanh(g) + s * math.tanh(n))


@pytest.mark.parametrize("elapsed", [0.0, 0.3, 2.5])
def test_pure_cfc_follows_its_authors(elapsed):
    given = {"weight_head": 0.8, "bias_head": 0.2, "rate": -0.45, "A": 1.3}
    cell = timed_unit(partial(CfCCell, mode="pure"), **ONE, **given)
    f = 0.8 * backbone(2.0, -1.5) + 0.2

    expected = -1.3 * math.exp(-elapsed * (abs(-0.45) + abs(f))) * f + 1.3

    assert timed_step(cell, 2.0, elapsed, -1.5) == near(expected)


def test_a_deeper_backbone_repeats_its_layers():
    make = partial(CfCCell, backbone_layers=3)
    cell = one_unit(make, **ONE, **HEADS, weight_deep=(0.4, -0.9), bias_deep=(0.25, -0.15))
    k = backbone(2.0, -1.5)

    for weight, bias in ((0.4, 0.25), (-0.9, -0.15)):
        k = lecun_tanh(weight * k + bias)
    g, n, rate, offset = heads(k)
    s = sigmoid(rate + offset)

    assert step(cell, 2.0, -1.5) == near((1 - s) * math.tanh(g) + s * math.tanh(n))


def dot(a, b):
    return sum(p * q for p, q in zip(a, b, strict=True))


def silu(a):
    return a * sigmoid(a)


def gelu(a):
    return a * (1 + math.erf(a / math.sqrt(2))) / 2


@pytest.mark.parametrize("layers", [1, 2])
def test_a_cell_pickled_before_its_backbone_had_a_size_of_its_own_takes_a_step(layers):
    cell, x = CfCCell(3, 4, backbone_layers=layers), torch.randn(2, 3)
    expected, _ = cell(x)
    cell.deeper = layers - 1
    del cell.backbone_layers, cell.backbone_size, cell.nonlinearity

    torch.testing.assert_close(pickle.loads(pickle.dumps(cell))(x)[0], expected)


@pytest.mark.parametrize(
    ("name", "bent"),
    [
        ("lecun_tanh", lecun_tanh),
        ("tanh", math.tanh),
        ("relu", lambda a: max(a, 0)),
        ("silu", silu),
        ("gelu", gelu),
    ],
)
def test_a_backbone_may_have_units_and_a_nonlinearity_of_its_own(name, bent):
    w, u, b, d = (0.5, -0.4), (0.7, 0.2), (0.1, 0.3), (-0.3, 0.05)
    deep, bias_deep = ((0.4, -0.9), (0.6, 0.35)), (0.25, -0.15)
    head = ((0.8, -0.1), (-0.6, 0.45), (0.9, 0.65), (0.35, -0.75))
    make = partial(CfCCell, backbone_layers=2, backbone_size=2, nonlinearity=name)
    given = {"weight_deep": deep, "bias_deep": bias_deep, "weight_head": head}
    cell = one_unit(make, w, u, b, d, **given, bias_head=HEADS["bias_head"])
    x, h = 2.0, -1.5

    first = [bent(w[i] * x + b[i] + u[i] * h + d[i]) for i in range(2)]
    k = [bent(dot(deep[i], first) + bias_deep[i]) for i in range(2)]
    pairs = zip(head, HEADS["bias_head"], strict=True)
    g, n, rate, offset = (dot(weights, k) + bias for weights, bias in pairs)
    s = sigmoid(rate + offset)

    assert step(cell, x, h) == near((1 - s) * math.tanh(g) + s * math.tanh(n))


def solved(x, h, elapsed, unfolds, tau, A):
    """Liquid time constants by the fused solver, from its equation of the paper."""
    for _ in range(unfolds):
        f = sigmoid(0.5 * x + 0.1 + 0.7 * h - 0.3)
        delta = elapsed / unfolds
        h = (h + delta * f * A) / (1 + delta * (1 / tau + f))
    return h


@pytest.mark.parametrize("unfolds", [1, 3])
def test_liquid_time_constants_are_solved_in_sub_steps(unfolds):
    make = partial(LTCCell, unfolds=unfolds)
    cell = one_unit(make, **ONE, log_tau=math.log(2.5), A=-0.8)

    assert step(cell, 2.0, -1.5) == near(solved(2.0, -1.5, 1.0, unfolds, tau=2.5, A=-0.8))


def test_ltc_follows_its_paper():
    cell = one_unit(LTCCell, **ONE, log_tau=math.log(2.5), A=-0.8)
    h = -1.5

    for x in XS:
        expected = solved(x, h, 1.0, 6, tau=2.5, A=-0.8)

        assert step(cell, x, h) == near(expected)
        h = expected


@pytest.mark.parametrize("elapsed", [0.0, 0.3, 2.5])
def test_ltc_moves_by_the_time_elapsed(elapsed):
    cell = timed_unit(LTCCell, **ONE, log_tau=math.log(2.5), A=-0.8)

    expected = solved(2.0, -1.5, elapsed, 6, tau=2.5, A=-0.8)

    assert timed_step(cell, 2.0, elapsed, -1.5) == near(expected)


def test_ltc_of_small_sub_steps_solves_its_differential_equation():
    cell = one_unit(partial(LTCCell, unfolds=4000), **ONE, log_tau=math.log(2.5), A=-0.8)
    h, steps = -1.5, 100_000

    for _ in range(steps):
        f = sigmoid(0.5 * 2.0 + 0.1 + 0.7 * h - 0.3)
        h += (-(1 / 2.5 + f) * h + f * -0.8) / steps

    assert step(cell, 2.0, -1.5) == pytest.approx(h, abs=1e-3)


def test_a_long_step_of_ltc_is_two_short_ones():
    twice = LTCCell(3, 4, unfolds=2, timed=True, dtype=torch.float64)
    once = LTCCell(3, 4, unfolds=4, timed=True, dtype=torch.float64)
    once.load_state_dict(twice.state_dict())
    x = torch.randn(2, 1, 2, dtype=torch.float64)
    times = random_times(2, 1)

    halves = torch.cat([x, times / 2], -1).expand(2, 2, 3).contiguous()

    long, _ = unroll(once, torch.cat([x, times], -1))
    torch.testing.assert_close(unroll(twice, halves)[0][:, -1], long[:, 0])


def test_a_time_step_of_zero_does_not_change_ltc():
    cell = LTCCell(3, 4, timed=True)
    h = torch.randn(2, 4)

    after, _ = cell(torch.cat([torch.randn(2, 2), torch.zeros(2, 1)], -1), (h,))

    torch.testing.assert_close(after, h)


CIRCUIT = {
    "w": (-0.9,),
    "b": (0.1,),
    "weight_hh": 0.4,
    "slope_ih": 3.5,
    "slope_hh": 4.5,
    "center_ih": 0.3,
    "center_hh": 0.7,
    "reversal_ih": -1.3,
    "reversal_hh": 0.8,
    "capacity": -0.6,
    "leak": -0.35,
}


def circuit(x, h, elapsed, unfolds=6):
    """A neuron with a synapse from the input and one from itself, as its paper has it."""
    seen, delta = 0.9 * sigmoid(3.5 * (x - 0.3)), elapsed / unfolds
    for _ in range(unfolds):
        own = 0.4 * sigmoid(4.5 * (h - 0.7))
        current = 0.1 + seen * -1.3 + own * 0.8
        h = (0.6 * h + delta * current) / (0.6 + delta * (0.35 + seen + own))
    return h


def test_neural_circuit_follows_its_paper():
    given = dict(CIRCUIT)
    cell = one_unit(NCPCell, given.pop("w"), (given.pop("weight_hh"),), **given)
    h = -1.5

    for x in XS:
        expected = circuit(x, h, 1.0)

        assert step(cell, x, h) == near(expected)
        h = expected


@pytest.mark.parametrize("elapsed", [0.0, 0.3, 2.5])
def test_neural_circuit_moves_by_the_time_elapsed(elapsed):
    given = dict(CIRCUIT)
    make = partial(NCPCell, unfolds=3)
    cell = timed_unit(make, w=given.pop("w"), u=(given.pop("weight_hh"),), **given)

    assert timed_step(cell, 2.0, elapsed, -1.5) == near(circuit(2.0, -1.5, elapsed, unfolds=3))


def test_each_synapse_of_a_neural_circuit_has_numbers_of_its_own():
    cell = NCPCell(2, 3, unfolds=1000, dtype=torch.float64)
    given, h, x = numbers(cell), [0.3, -0.8, 0.6], [1.3, -0.4]
    start, steps = h, 20_000

    def flows(i, h):
        """The currents into a unit: from its bias, its leak and each synapse."""
        yield given["bias_ih"][i] - given["leak"][i] * h[i]
        for end, senders in (("ih", x), ("hh", h)):
            for j, v in enumerate(senders):
                w, slope, center, reversal = (
                    given[f"{name}_{end}"][i][j]
                    for name in ("weight", "slope", "center", "reversal")
                )
                yield w * sigmoid(slope * (v - center)) * (reversal - h[i])

    for _ in range(steps):
        h = [h[i] + sum(flows(i, h)) / given["capacity"][i] / steps for i in range(3)]

    assert after(cell, x, start)[0] == pytest.approx(h, abs=2e-3)


def test_a_synapse_without_weight_is_none():
    cell = NCPCell(2, 3, dtype=torch.float64)
    mask = torch.tensor([[1, 0], [1, 1], [0, 1]])
    prune.custom_from_mask(cell, "weight_ih", mask)
    x = torch.randn(4, 5, 2, dtype=torch.float64, requires_grad=True)
    cell.weight_hh.data.zero_()

    y, _ = unroll(cell, x)

    for unit, senders in enumerate(mask):
        (slope,) = torch.autograd.grad(y[..., unit].sum(), x, retain_graph=True)
        assert torch.equal(slope.ne(0).any(0).any(0), senders.bool())


def test_neural_circuit_starts_as_its_published_code_does():
    cell = NCPCell(3, 60)

    for end in ("ih", "hh"):
        for name, least, most in (("weight", 0, 1), ("slope", 3, 8), ("center", 0.3, 0.8)):
            drawn = getattr(cell, f"{name}_{end}")
            assert least < drawn.min() < least + 0.2 * (most - least)
            assert most - 0.2 * (most - least) < drawn.max() < most
    assert set(cell.reversal_hh.unique().tolist()) == {-1.0, 1.0}
    assert cell.reversal_hh.mean().item() == pytest.approx(1 / 3, abs=0.1)
    assert 0.4 <= cell.capacity.min() < 0.5 < cell.capacity.max() <= 0.6
    assert (cell.bias_ih.abs() <= 0.2 * cell.leak).all()
    assert cell.bias_ih.min() < 0 < cell.bias_ih.max()


@pytest.mark.parametrize("timed", [False, True])
def test_neural_circuits_run_in_the_loops(timed):
    cell = NCPCell(3, 4, unfolds=2, timed=timed)

    assert check_backend(cell, "c", steps=(1, 5)) == {}


@pytest.mark.usefixtures("plain_loop")
@pytest.mark.parametrize("make", TIMED)
def test_steps_of_time_one_are_those_of_a_cell_without_times(make):
    timed, plain = make(4, 5, timed=True), make(3, 5)
    timed.load_state_dict(plain.state_dict())
    x = torch.randn(2, 6, 3)

    y, _ = unroll(timed, torch.cat([x, torch.ones(2, 6, 1)], -1))

    torch.testing.assert_close(y, unroll(plain, x)[0])


@pytest.mark.usefixtures("plain_loop")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", TIMED)
def test_states_have_the_dtype_of_the_parameters(make, dtype):
    cell = make(4, 5, timed=True).to(dtype)
    x = torch.cat([torch.randn(2, 6, 3).to(dtype), random_times(2, 6).to(dtype)], -1)

    y, (h,) = unroll(cell, x)

    assert y.dtype == h.dtype == dtype
    assert cell.initial_state(2)[0].dtype == dtype


@pytest.mark.parametrize("make", TIMED)
def test_rows_with_irregular_times_are_independent(make):
    cell = make(4, 5, timed=True, dtype=torch.float64)
    x = torch.cat([torch.randn(3, 6, 3, dtype=torch.float64), random_times(3, 6)], -1)

    whole, _ = unroll(cell, x)

    for row in range(3):
        alone, (h,) = unroll(cell, x[row : row + 1])
        torch.testing.assert_close(alone, whole[row : row + 1])
        assert h.shape == (1, 5)


def forwards_in_time(cell):
    """The cell, for which random numbers are times that have elapsed."""

    class Forwards(type(cell)):
        def project(self, x):
            return super().project(torch.cat([x[..., :-1], x[..., -1:].abs()], -1))

    cell.__class__ = Forwards
    return cell


@pytest.mark.parametrize("make", TIMED)
def test_a_cell_with_times_obeys_the_laws_of_recurrence(make):
    check_cell(lambda input_size: forwards_in_time(make(input_size, 4, timed=True)))


@pytest.mark.parametrize("make", [CfCCell, LTCCell])
def test_a_cell_with_times_runs_on_the_c_backend(make):
    check_backend(forwards_in_time(make(3, 5, timed=True)), "c", steps=(1, 9))


@pytest.mark.parametrize(
    "option",
    [
        {"mode": "pure"},
        {"mode": "no_gate"},
        {"backbone_layers": 3},
        {"backbone_size": 7, "nonlinearity": "silu"},
    ],
)
def test_every_mode_and_depth_of_cfc_obeys_the_laws_of_recurrence(option):
    check_cell(partial(CfCCell, hidden_size=4, **option))
    check_cell(partial(CfCCell, hidden_size=4, bias=False, **option))


def test_layer_norm_leaves_times_as_they_are():
    cell = LayerNorm(CfCCell(4, 5, timed=True))
    x = torch.randn(2, 6, 4)

    assert torch.equal(cell.project(x)[..., 5:], x[..., 3:].expand(2, 6, 5))
    assert "c" not in explain(cell, x).refusals


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: CfCCell(3, 4, mode="slow"),
            ConfigError,
            "CfCCell: mode is 'slow', expected one of default, no_gate, pure",
        ),
        (
            lambda: CfCCell(3, 4, backbone_layers=0),
            ConfigError,
            "CfCCell: backbone_layers is 0, expected at least 1",
        ),
        (
            lambda: CfCCell(3, 4, nonlinearity="sine"),
            ConfigError,
            "CfCCell: nonlinearity is 'sine', expected one of lecun_tanh, tanh, relu, silu, gelu",
        ),
        (lambda: CfCCell(3, 4, backbone_size=0), ConfigError, "CfCCell: backbone_size is 0"),
        (lambda: CfCCell(1, 4, timed=True), ConfigError, "CfCCell: input_size is 1 with timed"),
        (lambda: LTCCell(1, 4, timed=True), ConfigError, "LTCCell: input_size is 1 with timed"),
        (lambda: LTCCell(3, 4, unfolds=0), ConfigError, "LTCCell: unfolds is 0, expected at"),
        (lambda: NCPCell(3, 4, unfolds=0), ConfigError, "NCPCell: unfolds is 0, expected at"),
        (lambda: LTCCell(3, 4, unfolds=1.5), DtypeError, "LTCCell: unfolds is 1.5"),
    ],
)
def test_invalid_options_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


ABOVE = r"layer 1: .*Cell has timed=True, expected False.\n  It would take the last unit"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda cell: DeepRNN(cell, 4, 5, num_layers=2), f"DeepRNN, {ABOVE}"),
        (lambda cell: DeepRNN(cell, 5, 5, num_layers=2, tied=True), f"DeepRNN, {ABOVE}"),
        (lambda cell: DeepRNN([GRUCell, cell], 4, 5), f"DeepRNN, {ABOVE}"),
        (lambda cell: InputDropout(cell(4, 5)), "InputDropout: .*Cell has timed=True"),
        (lambda cell: Mogrifier(cell(4, 5)), "Mogrifier: .*Cell has timed=True"),
        (
            lambda cell: Hierarchical(Recurrent(GRUCell(4, 5)), Recurrent(cell(5, 6)), 2),
            "Hierarchical: .*Cell has timed=True, .*\n  No feature of the lower layer's output is",
        ),
        (
            lambda cell: Fronted(ConvFront1d(4, [5]), Bidirectional(cell(5, 6))),
            "Fronted: .*Cell has timed=True, .*\n  No feature of a convolution's output is",
        ),
        (
            lambda cell: Fronted(ConvFront2d(3, [5]), DeepOutput(Recurrent(cell(5, 6)), [2])),
            "Fronted: .*Cell has timed=True",
        ),
    ],
)
@pytest.mark.parametrize("cell_cls", [CfCCell, LTCCell, NCPCell, PhasedLSTMCell, GRUDCell])
def test_nothing_is_taken_for_the_time_or_changes_it_unseen(cell_cls, make, told):
    with pytest.raises(ConfigError, match=told):
        make(partial(cell_cls, timed=True))


@pytest.mark.parametrize(("module", "bidirectional"), [(CfC, False), (PhasedLSTM, True)])
def test_no_unit_of_a_module_is_taken_for_the_time(module, bidirectional):
    with pytest.raises(ConfigError, match=f"{module.__name__}, {ABOVE}"):
        module(4, 5, num_layers=2, bidirectional=bidirectional, timed=True)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (partial(SequenceClassifier, num_classes=3, vocab_size=5), "Encoder"),
        (
            partial(Forecaster, input_size=3, output_size=1, horizon=4, strategy=Direct),
            "Forecaster",
        ),
        (partial(SequenceToSequence, target_vocab_size=5, input_size=3), "Decoder"),
        (partial(Transcriber, num_classes=5, input_size=3, filters=[4]), "Transcriber"),
        (partial(VideoClassifier, num_classes=5, channels=1, height=8, width=8), "VideoClassifier"),
    ],
)
def test_no_feature_of_what_a_model_embeds_is_taken_for_the_time(make, told):
    with pytest.raises(ConfigError, match=f"{told}: CfCCell has timed=True, expected False"):
        make(partial(CfCCell, timed=True), cell_options={"drop": partial(Zoneout, p=0.1)})


def test_a_stack_may_read_times_in_its_first_layer():
    net = DeepRNN([partial(CfCCell, timed=True), CfCCell], 4, 5)

    y, _ = net(torch.cat([torch.randn(2, 6, 3), torch.rand(2, 6, 1)], -1))

    assert y.shape == (2, 6, 5)
