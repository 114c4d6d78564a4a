"""Write docs/kernels.md: the Triton kernels that are generated for two cells.

python scripts/make_kernels_page.py    # a test says when the page is out of date
"""

import argparse
from pathlib import Path

from seqnets.cells import GRUCell, MinGRUCell
from seqnets.engine.plans import program_of
from seqnets.engine.triton.printer import print_pass
from seqnets.engine.triton.tiles import Device, choose

PAGE = Path(__file__).parent.parent / "docs" / "kernels.md"
H200 = Device(processors=132, memory=232448)
HEAD = """\
# The generated kernels for a GPU

This page shows what the engine prints for `GRUCell(512, 512)` in training, on 64 sequences in
bfloat16, for an H200: {why}. `scripts/make_kernels_page.py` generates it.

None of this is written by hand: the source is the equation in `GRUCell.update`, and the backward
pass is derived from it. The functions that the kernels call are in `library.py` and `functions.py`
of `seqnets/engine/triton`. [Decision 0013](decisions/0013-loops-on-a-gpu.md) explains the design.

| name | meaning |
|---|---|
| `b`, `u_0` | rows, units |
| `s_0` | the state before the step; `b_0` in the backward pass |
| `wx_N` | the projected input from column N on |
| `z_K_G` | gate G of product K |
| `eN` | an expression |
| `kN` | the value of expression N that the forward pass kept |
| `y_0` | the gradient of the step's output |
| `g_0` | the gradient of the state after the step |
| `carry_0` | the part of it that is passed on to the step before |

Programs that share rows call `arrive` when they have written what others read, and `wait` for the
others. What does not depend on the others is fetched before, and converted after: to convert a
number is to wait for it. `SAVE`, `REVERSE`, and which arguments are `None`, are known when a kernel
is compiled.
"""
OVER_TIME = """\
## Steps in parallel

`MinGRUCell(512, 512)` is linear in its state, so its steps need not wait for each other: a program
takes 16 units of one row through a segment of time. `wx_0` holds the values of the tile's own
steps, and `wx_0_1_before` those of the steps before them; from these the scan computes the state
that each step reads. Another kernel, `forward_ends`, computes what each segment does to any state
before it.
"""


def page() -> str:
    """The page."""
    program = program_of(GRUCell(512, 512))
    tiles = {name: choose(program, name, 64, 2, H200) for name in ("forward", "backward")}
    text = [HEAD.format(why=tiles["forward"].why)]
    for name in tiles:
        (kernel,) = print_pass(program, name, tiles[name])
        text.append(f"## {name.title()}\n\n```python\n{kernel.text()}```\n")
    program = program_of(MinGRUCell(512, 512))
    in_parallel = choose(program, "forward", 16, 2, H200, "time")
    _, kernel = print_pass(program, "forward", in_parallel)
    text.append(f"{OVER_TIME}\n```python\n{kernel.text()}```\n")
    return "\n".join(text)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    PAGE.write_text(page(), encoding="utf-8")
