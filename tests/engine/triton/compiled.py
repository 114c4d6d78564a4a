"""Compile the kernels of some cells for an H200, and narrow ones for an L4, wherever this runs.

It fails if many registers spill, or if programs wait for what they load before they meet.

python -m tests.engine.triton.compiled LSTMCell GRUCell ... [--few MinGRUCell ...]

Cells after ``--few`` are compiled in two of the sizes: in each mode once, and in each dtype once.
"""

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from seqnets import cells
from seqnets.engine.linear import recurrences
from seqnets.engine.plans import plan_of
from seqnets.engine.triton.kernel import Numbers
from seqnets.engine.triton.loops import Pass
from seqnets.engine.triton.printer import print_pass
from seqnets.engine.triton.tiles import Device, choose
from tests.engine import user_cells

H200, L4 = Device(132, 232448), Device(58, 101376)
TARGETS = {H200: 90, L4: 89}
SIZES = [(64, 64, "bf16"), (64, 64, "fp32"), (257, 33, "fp32"), (512, 64, "bf16")]  # H, B
FEW = SIZES[::2]
SPILLS = 32  # bytes of a thread; so much sine and cosine take for large angles
NOT_STORED = (
    "state_", "reduced_", "carries_", "grad_sum_", "grad_units", "grad_start", "dcross",
    "through", "ends",
)  # fmt: skip
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def compiled(function, pointers, dtype, device, options):
    """A kernel in machine code."""
    signature, constants, aligned = {}, {}, {}
    for i, name in enumerate(pointers):
        if name in ("lengths", "resets") or name.startswith("grad_final"):
            signature[name], constants[name] = "constexpr", None
            continue
        kind = "fp32" if name.startswith(NOT_STORED) else "i32" if name == "counter" else dtype
        signature[name], aligned[(i,)] = f"*{kind}", [["tt.divisibility", 16]]
    signature |= dict.fromkeys(Numbers._fields, "i32")
    for name, value in (("SAVE", True), ("REVERSE", False), ("PRECISION", "tf32")):
        signature[name], constants[name] = "constexpr", value
    source = ASTSource(function, signature, constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", TARGETS[device], 32), options=options)


def resources(kernel):
    """Registers of a thread, bytes that spill, and bytes of memory on chip."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [CUOBJDUMP, "-res-usage", file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", told).groups()
    return int(registers), int(stack), kernel.metadata.shared


def awaited(kernel):
    """The instructions that read what is loaded ahead already before programs meet."""
    found = []
    for block in re.split(r"^\$L__BB|bar\.sync", kernel.asm["ptx"], flags=re.MULTILINE):
        ahead, meets, _ = block.partition("ld.acquire")
        loaded = set()
        for line in ahead.splitlines() if meets else ():
            if load := re.search(r"ld\.global\S* +\{(.*?)\}", line):
                loaded |= {*re.findall(r"%\w+", load[1])}
            elif loaded.intersection(re.findall(r"%\w+", line)):
                found.append(line.strip())
    return found


def main(names, few=()):
    """Compile all, print what they take, and say whether nothing spills."""
    good = True
    for name, sizes in [*((name, SIZES) for name in names), *((name, FEW) for name in few)]:
        for device, (H, B, dtype) in [(L4, SIZES[1]), *((H200, size) for size in sizes)]:
            cell_cls = getattr(cells, name, None) or getattr(user_cells, name)
            program = plan_of(cell_cls(H, H)).program
            modes = [None, *(["time"] if recurrences(program) else [])]
            for mode, pass_ in itertools.product(modes, ("forward", "backward")):
                tiles = choose(program, pass_, B, {"bf16": 2, "fp32": 4}[dtype], device, mode)
                kernels = print_pass(program, pass_, tiles)
                functions = Pass(kernels, tiles).functions
                for kernel in kernels:
                    options = {"num_warps": tiles.warps}
                    function = functions[kernel.name]
                    made = compiled(function, kernel.pointers, dtype, device, options)
                    registers, spills, shared = resources(made)
                    early = awaited(made)
                    good &= spills <= SPILLS and shared <= device.memory and not early
                    what = f"{name} {H} {dtype} sm_{TARGETS[device]} {tiles.mode} {kernel.name}"
                    print(f"{what}: {registers} registers,")
                    print(f"  {spills} bytes spill, {shared} bytes on chip", *early, sep="\n  ")
    return good


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--few", nargs="*", default=[])
    given = parser.parse_args()
    sys.exit(not main(given.names, given.few))
