"""Gradients against backpropagation through time, written out by hand.

The plain network h_t = tanh(W x_t + U h_{t-1} + b), logits V h_t, and the summed cross-entropy
of all steps. With delta_{t,k} the derivative of step t's loss by the pre-activation of step k <= t:

    delta_{t,t} = V^T (softmax(V h_t) - onehot(y_t)) * (1 - h_t^2)
    delta_{t,k} = U^T delta_{t,k+1} * (1 - h_k^2)
    dU = sum_t sum_{k<=t} delta_{t,k} h_{k-1}^T        dW = sum_t sum_{k<=t} delta_{t,k} x_k^T
    dV = sum_t (softmax(V h_t) - onehot(y_t)) h_t^T

Werbos, 1990, "Backpropagation through time: what it does and how to do it".
"""

import pytest
import torch
import torch.nn.functional as F

from seqnets import Recurrent, Truncated
from seqnets.cells import RNNCell

I, H, V, T = 3, 4, 5, 7


@pytest.fixture
def problem():
    torch.manual_seed(0)
    cell = RNNCell(I, H, dtype=torch.float64)
    output = torch.randn(V, H, dtype=torch.float64, requires_grad=True)
    x = torch.randn(1, T, I, dtype=torch.float64)
    return cell, output, x, torch.randint(V, (T,))


def by_hand(cell, output, x, targets, reaches):
    """The formulas; ``reaches(t)`` is the first step that step t's loss reaches back to."""
    W, U, b = cell.weight_ih, cell.weight_hh, cell.bias_ih + cell.bias_hh
    with torch.no_grad():
        h = [torch.zeros(H, dtype=torch.float64)]
        for t in range(T):
            h.append(torch.tanh(W @ x[0, t] + U @ h[-1] + b))
        dW, dU, dV = torch.zeros_like(W), torch.zeros_like(U), torch.zeros_like(output)
        for t in range(T):
            error = (output @ h[t + 1]).softmax(0) - F.one_hot(targets[t], V)
            dV += torch.outer(error, h[t + 1])
            delta = output.T @ error * (1 - h[t + 1] ** 2)
            for k in range(t, reaches(t) - 1, -1):
                dW += torch.outer(delta, x[0, k])
                dU += torch.outer(delta, h[k])
                delta = U.T @ delta * (1 - h[k] ** 2)
    return [dW, dU, dV]


def by_autograd(layer, cell, output, x, targets):
    y, _ = layer(x)
    loss = F.cross_entropy(y[0] @ output.T, targets, reduction="sum")
    return list(torch.autograd.grad(loss, (cell.weight_ih, cell.weight_hh, output)))


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_gradients_are_those_of_the_written_out_formulas(problem, backend):
    cell = problem[0]

    found = by_autograd(Recurrent(cell, backend=backend), *problem)

    torch.testing.assert_close(found, by_hand(*problem, lambda t: 0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, T])
def test_truncated_to_n_steps_they_are_the_truncated_sums(problem, steps):
    layer = Truncated(Recurrent(problem[0]), steps, stride=1)

    found = by_autograd(layer, *problem)
    expected = by_hand(*problem, lambda t: max(0, t - steps + 1))

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, T])
def test_truncated_in_chunks_they_stop_where_the_chunk_begins(problem, steps):
    layer = Truncated(Recurrent(problem[0]), steps)

    found = by_autograd(layer, *problem)
    expected = by_hand(*problem, lambda t: t // steps * steps)

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_truncation_with_a_stride_between_reaches_as_far_as_its_window(problem):
    steps, stride = 4, 2
    layer = Truncated(Recurrent(problem[0]), steps, stride)

    found = by_autograd(layer, *problem)
    expected = by_hand(*problem, lambda t: max(0, t // stride * stride + stride - steps))

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
