"""Write docs/kernels.md: what is printed for two cells, for a GPU.

python scripts/make_kernels_page.py    # a test says when the page is out of date
"""

from pathlib import Path

from seqnets.cells import GRUCell, MinGRUCell
from seqnets.engine.plans import program_of
from seqnets.engine.triton import over_time
from seqnets.engine.triton.printer import print_backward, print_forward
from seqnets.engine.triton.tiles import Device, choose

PAGE = Path(__file__).parent.parent / "docs" / "kernels.md"
H200 = Device(processors=132, memory=232448)
HEAD = """\
# What is printed for a GPU

Made by `scripts/make_kernels_page.py`. These are the kernels of `GRUCell(512, 512)` in training on
64 sequences in bfloat16, as an H200 gets them: {why}.

Nobody wrote them: the equation is `GRUCell.update`, and its derivative is derived. What they call
is in `seqnets/engine/triton/library.py`; `docs/decisions/0013-loops-on-a-gpu.md` says why it is so.

Names: `b` rows, `u_0` units, `s_0` the state before the step, `wx_N` the projected input from
column N on, `z_K_G` gate G of product K, `eN` an expression, `kN` what the forward pass kept of
one, `b_0` the state before the step, `y_0` the gradient of its output, `g_0` that of the state
after it, `carry_0` what of it goes on to the step before. Programs that share rows `arrive` when
they have written what others read, and `wait` for the others. `SAVE`, `REVERSE` and what is `None`
are known when a kernel is compiled.
"""
OVER_TIME = """\
## Steps side by side

`MinGRUCell(512, 512)` is linear in its state, so its steps need not wait for each other: a program
takes 16 units of one row through a piece of time. `wx_0` are numbers of the tile's own steps,
`wx_0_1_before` those of the steps before them, of which the scan makes what each step reads of its
state. Another kernel, `forward_ends`, finds what each piece of time does to any state before it.
"""


def page() -> str:
    """The whole page."""
    program = program_of(GRUCell(512, 512))
    tiles = {name: choose(program, name, 64, 2, H200) for name in ("forward", "backward")}
    text = [HEAD.format(why=tiles["forward"].why)]
    for name, printed in (("forward", print_forward), ("backward", print_backward)):
        (kernel,) = printed(program, tiles[name])
        text.append(f"## {name.title()}\n\n```python\n{kernel.text()}```\n")
    program = program_of(MinGRUCell(512, 512))
    _, kernel = over_time.print_forward(program, choose(program, "forward", 16, 2, H200, "time"))
    text.append(f"{OVER_TIME}\n```python\n{kernel.text()}```\n")
    return "\n".join(text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
