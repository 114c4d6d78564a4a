"""The base of cells whose memory is a matrix for each head: values written and found by keys."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets import initializers
from seqnets.cells.checks import check_divides, check_names, check_size
from seqnets.cells.gated import GatedCell, named
from seqnets.errors import ConfigError, ShapeError
from seqnets.typing import HALF, State


class Access(NamedTuple):
    """What steps read from a matrix memory and write to it, by head; it follows from the input.

    Where a cell says how many times a step ``writes``, all but ``q`` and ``log_decay`` have one
    more dimension before the heads, of that size.

    Attributes:
        q: Queries, by which the memory is read, (..., N, K).
        k: Keys, under which it is written, (..., N, K).
        v: Values, which are written, (..., N, V).
        log_decay: Logarithm of the share of the memory that is kept: (..., N, 1), or (..., N, K)
            where each key has its own.
        log_write: Logarithm of the weight of the values, (..., N, 1), where the cell is
            ``normalised``.
        rate: How much of what the memory holds under ``k`` is replaced by ``v``, (..., N, 1); None
            if ``v`` is added to it.
        erase_q: Queries for what is subtracted from the memory after its decay, (..., N, K); None
            if nothing is. Where something is, ``v`` is added.
        erase_k: Keys under which that is subtracted, (..., N, K).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    log_decay: Tensor
    log_write: Tensor | None = None
    rate: Tensor | None = None
    erase_q: Tensor | None = None
    erase_k: Tensor | None = None


class MatrixMemoryCell(GatedCell):
    r"""A gated cell that keeps a matrix for each of N heads, and reads it once a step.

    .. math::
        S_t &= \mathrm{diag}(a_t)\, S_{t-1} + k_t v_t^\top \\
        h_t &= S_t^\top q_t

    or, where the memory takes a new value in place of the old one under the same key,

    .. math::
        S_t = \mathrm{diag}(a_t)\, S_{t-1}
        + \beta_t\, k_t \left(v_t - (\mathrm{diag}(a_t)\, S_{t-1})^\top k_t\right)^\top

    or, where what :math:`z_t` finds is subtracted under :math:`e_t` (``erase_q`` and ``erase_k``),
    and a value is added under a third key,

    .. math::
        S_t = (1 - e_t z_t^\top)\, \mathrm{diag}(a_t)\, S_{t-1} + k_t v_t^\top

    A cell that ``reads_first`` finds what was there before its step: :math:`h_t = S_{t-1}^\top
    q_t`. One of several ``writes`` fades once a step, and then does the rest of it once for each
    write.

    A subclass declares its gates and writes :meth:`access`, in which queries, keys, values and
    decays follow from the input alone, and :meth:`readout` if the output is more than what is
    found. :meth:`step` follows from these, and so do all steps at once: backend ``scan`` computes
    them in chunks by products of matrices. It does so only for classes that leave :meth:`step`
    as it is.

    A memory that is ``normalised`` weights what it writes by :math:`i_t`, sums the weighted keys,
    and divides what it finds by the sum; both are kept as multiples of :math:`\exp(m_t)`, so that
    no weight overflows:

    .. math::
        m_t &= \max(\log a_t + m_{t-1}, \log i_t, 0) \\
        C_t &= e^{\log a_t + m_{t-1} - m_t}\, C_{t-1} + e^{\log i_t - m_t}\, k_t v_t^\top \\
        n_t &= e^{\log a_t + m_{t-1} - m_t}\, n_{t-1} + e^{\log i_t - m_t}\, k_t \\
        h_t &= C_t^\top q_t \,/\, \max(|n_t^\top q_t|, \epsilon\, e^{-m_t})

    State: ``(h, S)``, (B, H) and (B, N*K*V), row by row for each head; or ``(h, C, n, m)``, the
    last two (B, N*K) and (B, N). h is not read back. Output: ``h``.

    Attributes:
        gates: Parts of the projected input with a number for each unit: the values ``v``, and what
            else the equation needs. Queries ``q`` and keys ``k`` need no mention.
        head_gates: Parts with one number for each head.
        key_gates: Parts with one number for each key of each head, which a subclass appends to
            what :meth:`project` gives.
        normalised: Whether the memory is.
        epsilon: What the sum that divides counts as at least, where the memory is normalised.
        reads_first: Whether the memory is read before it fades and is written to, which is for
            memories that are not normalised.
        writes: How many times a step writes, likewise; None if once, without a dimension for it.
        weight_ih: (G*H, I).
        weight_qk: Of queries and keys, (2*N*K, I).
        bias_qk: (2*N*K,), or None.
        weight_heads: One block of rows for each of ``head_gates``, (G*N, I).
        bias_heads: (G*N,), whatever ``bias`` is.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H: the values of all heads, N*V.
        num_heads: Heads N, a divisor of H.
        key_size: Numbers in a key of one head, K; V if omitted.
        options: ``bias``, ``device`` and ``dtype``, as for every :class:`GatedCell`.

    Raises:
        ConfigError: ``num_heads`` does not divide H, ``key_size`` is below 1, or a memory that is
            normalised has several ``writes``.
    """

    output_only = True
    head_gates: ClassVar[tuple[str, ...]] = ()
    key_gates: ClassVar[tuple[str, ...]] = ()
    normalised: ClassVar[bool] = False
    epsilon: ClassVar[float] = 1.0
    reads_first: ClassVar[bool] = False
    writes: int | None = None
    states: tuple[str, ...] = ("h", "S")
    weight_qk: Tensor
    bias_qk: Tensor | None
    weight_heads: Tensor
    bias_heads: Tensor
    _parts: ClassVar[type[Any]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "gates" in cls.__dict__ and "recurrent" not in cls.__dict__:
            cls.declare("recurrent", ())  # which are all gates otherwise
        super().__init_subclass__(**kwargs)
        check_names(cls, "head_gates", "key_gates")
        if cls.normalised and cls.reads_first:
            raise ConfigError(
                f"{cls.__name__}: normalised and reads_first are True, expected one at most.\n"
                f"  What a normalised memory holds is found on the scale after a step."
            )
        if hasattr(cls, "gates"):
            cls.declare("_parts", named((*cls.gates, "q", "k", *cls.head_gates, *cls.key_gates)))

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        num_heads: int = 1,
        key_size: int | None = None,
        **options: Any,
    ) -> None:
        if self.writes is not None and self.normalised:
            raise ConfigError(
                f"{self._name}: writes is {self.writes}, expected None.\n"
                f"  Its class says normalised = True, and the scale of a normalised memory counts "
                f"one write a step."
            )
        check_divides(self, "num_heads", num_heads, hidden_size=hidden_size)
        # read by super().__init__
        self.num_heads, self.value_size = num_heads, hidden_size // num_heads
        key_size = self.value_size if key_size is None else key_size
        self.key_size = check_size(self, "key_size", key_size)
        super().__init__(input_size, hidden_size, **options)

    @property
    def key_heads(self) -> int:
        """How many heads have queries and keys of their own; by default all, N."""
        return self.num_heads

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The outputs, the matrices, and where the memory is normalised what divides them."""
        N, K, V = self.num_heads, self.key_size, self.value_size
        return (N * V, N * K * V, N * K, N) if self.normalised else (N * V, N * K * V)

    def add_parameters(self, parameter: Any) -> None:
        """What makes queries, keys, and the heads' gates."""
        I, keys = self.input_size, 2 * self.key_heads * self.key_size
        self.weight_qk = parameter(keys, I)
        self.register_parameter("bias_qk", None if self.bias_ih is None else parameter(keys))
        if self.head_gates:
            rows = len(self.head_gates) * self.num_heads
            self.weight_heads, self.bias_heads = parameter(rows, I), parameter(rows)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As every gated cell, Xavier for queries, keys and the heads' gates."""
        super().reset_parameters()
        initializers.xavier_(self.learned("weight_qk"), 2)
        if self.head_gates:
            initializers.xavier_(self.learned("weight_heads"), len(self.head_gates))

    def bias_of(self, gate: str) -> Tensor:
        """The bias of one of ``head_gates``, a number for each head: a view to fill, (N,)."""
        return self.learned("bias_heads").chunk(len(self.head_gates))[self.head_gates.index(gate)]

    def project(self, x: Tensor) -> Tensor:
        """``W x + b`` of the gates, of queries and keys, and of the heads' gates."""
        made = [super().project(x), F.linear(x, self.weight_qk, self.bias_qk)]
        if self.head_gates:
            made.append(F.linear(x, self.weight_heads, self.bias_heads))
        return torch.cat(made, -1)

    def parts(self, wx: Tensor) -> Any:
        """Name the parts of the projected input: ``parts(wx).v`` is (..., N, V)."""
        N, K, V = self.num_heads, self.key_size, self.value_size
        shapes = [(N, V)] * len(self.gates) + [(self.key_heads, K)] * 2
        shapes += [(N, 1)] * len(self.head_gates) + [(N, K)] * len(self.key_gates)
        split = wx.split([heads * width for heads, width in shapes], -1)
        each = zip(split, shapes, strict=True)
        return self._parts(*[part.unflatten(-1, shape) for part, shape in each])

    def access(self, wx: Tensor) -> Access:
        """What steps do to the memory.

        Args:
            wx: The projected input of one step or of many, (..., columns).
        """
        raise NotImplementedError(f"{self._name} does not say how it uses its memory: no access.")

    def checked_access(self, wx: Tensor) -> Access:
        """The same; raise unless its parts fit each other and the shapes of :class:`Access`."""
        at = self.access(wx)
        if (at.log_write is not None) != self.normalised:
            gives, expected = ("no", "one") if self.normalised else ("a", "none")
            raise ConfigError(
                f"{self._name}: access gives {gives} log_write, expected {expected}.\n"
                f"  Its class says normalised = {self.normalised}, and normalised memories alone "
                f"weight what is written."
            )
        K = self.key_size
        by_key = at.log_decay.shape[-1:] == (K,) and K > 1
        sizes, rows = {"K": K, "V": self.value_size, "1": 1}, wx.shape[:-1]
        letters = "K", "K", "V", "K" if by_key else "1", "1", "1", "K", "K"
        for name, part, letter in zip(Access._fields, at, letters, strict=True):
            several = [self.writes] if self.writes is not None and name in _WRITTEN else []
            shape = (*rows, *several, self.num_heads, sizes[letter])
            if part is not None and part.shape != shape:
                raise ShapeError(
                    f"{self._name}: access gives {name} of shape {tuple(part.shape)}, expected "
                    f"(..., {'writes, ' * len(several)}N, {letter}) = {shape}.\n"
                    f"  The first sizes come from wx, shape {tuple(wx.shape)}; N is num_heads, K "
                    f"key_size, V value_size."
                )
        if by_key and self.normalised:
            raise ConfigError(
                f"{self._name}: access gives a log_decay for each of {K} keys, expected one for "
                f"each head.\n"
                f"  Its class says normalised = True, and the keys of a normalised memory share "
                f"their scale."
            )
        given = [name for name in _CHANGING if getattr(at, name) is not None]
        if given not in ([], ["rate"], ["erase_q", "erase_k"]):
            raise ConfigError(
                f"{self._name}: access gives {' and '.join(given)}, expected rate alone, erase_q "
                f"and erase_k, or none of them.\n"
                f"  A step replaces what k finds at a rate, or adds v and takes under erase_k what "
                f"erase_q finds."
            )
        return at

    def readout(self, found: Tensor, wx: Tensor) -> Tensor:
        """The output of steps, (..., H): by default what is found.

        Args:
            found: What the queries find, (..., N, V).
            wx: The projected input, (..., columns).
        """
        return found.flatten(-2)

    def step(self, wx: Tensor, state: State) -> State:
        """The equations above."""
        at, m = self.checked_access(wx), None
        if at.log_write is not None:
            m = torch.maximum(at.log_decay + state[3][..., None], at.log_write).clamp(min=0)
            at = scaled(at, at.log_write, state[3][..., None], m)
        before = self.memory(state)
        memory = torch.exp(at.log_decay)[..., None] * before
        for write in self.each_write(at):
            memory = written(memory, write)
        found = recall(before if self.reads_first else memory, at.q)
        found = found if m is None else divided(found, m, self.epsilon)
        return self.readout(found, wx), *self.carried(memory, m)

    def each_write(self, at: Access) -> list[Access]:
        """What steps do, one write after the other."""
        if self.writes is None:
            return [at]
        parts = parts_written(at)
        each = zip(*(part.unbind(-3) for part in parts.values()), strict=True)
        return [at._replace(**dict(zip(parts, write, strict=True))) for write in each]

    def memory(self, state: State) -> Tensor:
        """The matrices of a state, (B, N, K, V); if normalised, the sum of keys as last column."""
        sizes = self.num_heads, self.key_size
        S = state[1].unflatten(-1, (*sizes, self.value_size))
        return torch.cat([S, state[2].unflatten(-1, (*sizes, 1))], -1) if self.normalised else S

    def carried(self, memory: Tensor, m: Tensor | None) -> State:
        """The inverse of :meth:`memory`: all of the state but the output.

        Args:
            memory: The matrices, (B, N, K, V), or (B, N, K, V+1).
            m: Logarithms of their scales, (B, N, 1), if the memory is normalised.
        """
        if m is None:
            return (memory.flatten(-3),)
        S, n = memory.split([self.value_size, 1], -1)
        return S.flatten(-3), n.flatten(-3), m.flatten(-2)


_CHANGING = "rate", "erase_q", "erase_k"
_WRITTEN = "k", "v", *_CHANGING


def parts_written(at: Access) -> dict[str, Tensor]:
    """The parts that each of several writes has for itself, by name."""
    named = zip(Access._fields, at, strict=True)
    return {name: part for name, part in named if name in _WRITTEN and part is not None}


def written(memory: Tensor, at: Access) -> Tensor:
    """Matrices (..., K, V) after what is taken from them and what is written."""
    if at.erase_q is not None and at.erase_k is not None:
        memory = memory - at.erase_k[..., None] * recall(memory, at.erase_q)[..., None, :]
    v = at.v if at.rate is None else at.rate * (at.v - recall(memory, at.k))
    return memory + at.k[..., None] * v[..., None, :]


def recall(memory: Tensor, key: Tensor) -> Tensor:
    """What matrices (..., K, V) hold under keys (..., K): (..., V)."""
    return (key.unsqueeze(-2) @ memory).squeeze(-2)


def unit(u: Tensor) -> Tensor:
    """Vectors of length 1, or less where they are nearly zero."""
    if u.dtype in HALF:  # which slopes of up to 1e9 on the way back overflow
        return unit(u.float()).to(u.dtype)
    return u * torch.rsqrt((u * u).sum(-1, keepdim=True) + 1e-6)


def scaled(at: Access, log_write: Tensor, before: Tensor, m: Tensor) -> Access:
    """What steps do to a normalised memory, which holds values and a sum of keys as last column.

    Args:
        at: What they do to one without scale.
        log_write: Logarithms of the weights of what they write, (..., N, 1).
        before: Logarithms of the scale before each step, (..., N, 1).
        m: Those after it.
    """
    v = torch.cat([at.v, torch.ones_like(at.v[..., :1])], -1) * torch.exp(log_write - m)
    return at._replace(v=v, log_decay=at.log_decay + before - m)


def divided(found: Tensor, m: Tensor, epsilon: float) -> Tensor:
    """What a normalised memory holds, (..., N, V), from what is found in it, (..., N, V+1).

    Args:
        found: What the queries find: values, and the sum of keys.
        m: Logarithms of the scales, (..., N, 1).
        epsilon: What the sum counts as at least, on a scale of 1.
    """
    values, total = found[..., :-1], found[..., -1:]
    least = epsilon * torch.exp(-m.clamp(min=0))  # as m is after a step
    return values / torch.maximum(total.abs(), least)
