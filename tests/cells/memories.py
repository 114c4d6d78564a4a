"""Matrix memories of several heads in NumPy, step by step, as their papers have them."""

import numpy as np

from seqnets import cells


def run(cell, x):
    """What a cell's paper gives for one row (T, I), with matrices (V, K) as there."""
    p = {name: t.detach().numpy() for name, t in cell.tensors().items()}
    N, K, V = cell.num_heads, cell.key_size, cell.value_size
    state, outputs = (np.zeros((N, V, K)), np.zeros((N, K))), []
    for x_t in x:
        ih = columns(p, x_t, "ih").reshape(-1, N, V)
        qk = columns(p, x_t, "qk").reshape(1 + (cell.writes or 1), -1, K)
        heads = columns(p, x_t, "heads").reshape(-1, N, 1) if "weight_heads" in p else ()
        h, state = STEPS[type(cell)](p, x_t, state, *ih, *qk, *heads)
        outputs.append(h)
    return np.stack(outputs).reshape(len(x), N * V)


def columns(p, x, name):
    return p[f"weight_{name}"] @ x + p[f"bias_{name}"]


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def softplus(a):
    return np.log1p(np.exp(a))


def silu(a):
    return a * sigmoid(a)


def unit(u):
    return u / np.sqrt((u * u).sum(-1, keepdims=True) + 1e-6)


def outer(v, k):
    return np.einsum("nv,nk->nvk", v, k)


def read(C, q):
    return np.einsum("nvk,nk->nv", C, q)


def mlstm(p, x, state, v, o, q, k, i, f):
    C, n = state
    i, f, k = np.exp(i), sigmoid(f), k / np.sqrt(k.shape[-1])
    C, n = f[..., None] * C + i[..., None] * outer(v, k), f * n + i * k
    below = np.maximum(np.abs((n * q).sum(-1, keepdims=True)), 1)
    return sigmoid(o) * read(C, q) / below, (C, n)


def retention(p, x, state, v, q, k):
    gamma = 1 - 2.0 ** (-5 - np.arange(len(v)))
    C = gamma[:, None, None] * state[0] + outer(v, k / np.sqrt(k.shape[-1]))
    return read(C, q), (C, None)


def linear_attention(p, x, state, v, q, k):
    q, k = (np.where(a > 0, a + 1, np.exp(a)) for a in (q, k))
    C, z = state[0] + outer(v, k), state[1] + k
    return read(C, q) / (z * q).sum(-1, keepdims=True), (C, z)


def gated_linear_attention(p, x, state, v, q, k):
    alpha = p["weight_alpha"] @ (p["weight_r"] @ x) + p["bias_alpha"]
    kept = sigmoid(alpha).reshape(k.shape) ** (1 / 16)
    C = state[0] * kept[:, None] + outer(v, k)
    return read(C, q / np.sqrt(k.shape[-1])), (C, None)


def delta_rule(C, v, q, k, beta):
    q, k = unit(silu(q)) / np.sqrt(k.shape[-1]), unit(silu(k))
    C = C + outer(sigmoid(beta) * (v - read(C, k)), k)
    return read(C, q), (C, None)


def delta_net(p, x, state, v, q, k, beta):
    return delta_rule(state[0], v, q, k, beta)


def gated_delta_net(p, x, state, v, q, k, beta, alpha):
    kept = np.exp(-np.exp(p["A_log"])[:, None] * softplus(alpha))
    return delta_rule(state[0] * kept[..., None], v, q, k, beta)


def kimi_delta_attention(p, x, state, v, q, k, beta):
    alpha = p["weight_alpha"] @ (p["weight_r"] @ x) + p["bias_alpha"]
    kept = np.exp(-np.exp(p["A_log"])[:, None] * softplus(alpha.reshape(k.shape)))
    k, beta = unit(silu(k)), sigmoid(beta)
    moved = np.eye(k.shape[-1]) - beta[..., None] * np.einsum("nk,nl->nkl", k, k)
    C = (state[0] * kept[:, None]) @ moved + outer(beta * v, k)
    return read(C, unit(silu(q)) / np.sqrt(k.shape[-1])), (C, None)


def delta_product(p, x, state, *parts):
    n = (len(parts) - 1) // 3
    v, q, k, beta = parts[:n], parts[n], parts[n + 1 : 2 * n + 1], parts[2 * n + 1 :]
    kept, new = np.eye(q.shape[-1]), np.zeros_like(state[0])
    for v_j, k_j, beta_j in zip(v, map(unit, map(silu, k)), beta, strict=True):
        rate = 2 * sigmoid(beta_j)
        mirror = np.eye(q.shape[-1]) - rate[..., None] * np.einsum("nk,nl->nkl", k_j, k_j)
        kept, new = kept @ mirror, new @ mirror + outer(rate * v_j, k_j)
    C = state[0] @ kept + new
    return read(C, unit(silu(q)) / np.sqrt(q.shape[-1])), (C, None)


def hgrn2(p, x, state, i, o, f):
    gamma = sigmoid(p["beta"]).reshape(f.shape)
    f = gamma + (1 - gamma) * sigmoid(f)
    C = state[0] * f[:, None] + outer(silu(i), 1 - f)
    return read(C, sigmoid(o)), (C, None)


def ssd(p, x, state, u, C, B, dt):
    C, B = (np.repeat(part, len(u) // len(part), 0) for part in (C, B))
    dt, A = softplus(dt), np.exp(p["A_log"])[:, None]
    S = np.exp(-dt * A)[..., None] * state[0] + outer(dt * u, B)
    return read(S, C) + p["D"][:, None] * u, (S, None)


def rwkv6(p, x, state, v, r, k):
    w = p["weight_w2"] @ np.tanh(p["weight_w1"] @ x) + p["bias_w"]
    w, new = np.exp(-np.exp(w)).reshape(k.shape), outer(v, k)
    h = read(state[0] + p["bonus"].reshape(k.shape)[:, None] * new, r)
    return h, (state[0] * w[:, None] + new, None)


def rwkv7(p, x, state, v, r, k):
    w = p["weight_w2"] @ np.tanh(p["weight_w1"] @ x) + p["bias_w"]
    a = sigmoid(p["weight_a2"] @ (p["weight_a1"] @ x) + p["bias_a"]).reshape(k.shape)
    w = np.exp(-np.exp(-0.5) * sigmoid(w)).reshape(k.shape)
    kappa = unit(k * p["xi"].reshape(k.shape))
    k = k * (1 + (a - 1) * p["alpha"].reshape(k.shape))
    moved = np.stack([np.diag(row) for row in w]) - np.einsum("nk,nl->nkl", kappa, a * kappa)
    C = state[0] @ moved + outer(v, k)
    return read(C, r), (C, None)


STEPS = {
    cells.MLSTMCell: mlstm,
    cells.RetentionCell: retention,
    cells.LinearAttentionCell: linear_attention,
    cells.GatedLinearAttentionCell: gated_linear_attention,
    cells.DeltaNetCell: delta_net,
    cells.DeltaProductCell: delta_product,
    cells.GatedDeltaNetCell: gated_delta_net,
    cells.KimiDeltaAttentionCell: kimi_delta_attention,
    cells.HGRN2Cell: hgrn2,
    cells.SSDCell: ssd,
    cells.RWKV6Cell: rwkv6,
    cells.RWKV7Cell: rwkv7,
}
