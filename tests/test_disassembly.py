"""The loop over k of every register tile keeps its sums, strides and pointers in registers."""

import re
import shutil
import subprocess

import kernel_table
import pytest

INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)$")
FUNCTION = re.compile(r"^[0-9a-f]+ <((?:(?:copying_)?tiles|panel_tile)_(\d+)x(\d+))>:$")
STACK = re.compile(r"\(%r[sb]p")


def tiles_of(text):
    """{name: (products per step of k, [(address, mnemonic, operands)])} of the tile kernels in a disassembly."""
    found, instructions = {}, None
    for line in text.splitlines():
        if line.endswith(">:"):
            match, instructions = FUNCTION.match(line), None
            if match:
                instructions = []
                found[match[1]] = int(match[2]) * int(match[3]), instructions
        elif instructions is not None and (match := INSTRUCTION.match(line)):
            instructions.append((int(match[1], 16), match[2], match[3]))
    return found


def inner_loops(instructions, products):
    """Bodies without a branch that jump back to their start and hold at least `products` fused multiply-adds."""
    loops = []
    for i, (address, mnemonic, operands) in enumerate(instructions):
        target = re.match(r"[0-9a-f]+", operands) if mnemonic.startswith("j") else None
        if target and int(target[0], 16) < address:
            body = [(m, o) for at, m, o in instructions[:i] if int(target[0], 16) <= at]
            branches = any(m.startswith(("j", "ret")) for m, _ in body)
            if not branches and sum(m.startswith("vfmadd") for m, _ in body) >= products:
                loops.append(body)
    return loops


@pytest.mark.usefixtures("kernels_library")
@pytest.mark.parametrize("isa", [isa for isa in kernel_table.ISAS if isa.startswith("avx")])
@pytest.mark.parametrize("bits", [32, 64])
def test_inner_loops_do_not_touch_the_stack(isa, bits):
    objdump = shutil.which("objdump")
    assert objdump, "objdump is missing (Debian: apt install binutils)"
    path = kernel_table.ROOT / f"build/c/csrc/kernels/isa_{isa}_f{bits}.o"
    text = subprocess.run(
        [objdump, "-d", "--no-show-raw-insn", path], capture_output=True, text=True, check=True
    ).stdout
    tiles = tiles_of(text)
    assert len(tiles) >= 20
    for name, (products, instructions) in tiles.items():
        loops = inner_loops(instructions, products)
        assert loops, f"{name}: no loop over k found"
        for body in loops:
            spilled = [f"{m} {o}" for m, o in body if STACK.search(o)]
            assert not spilled, f"{name} of {isa}, {bits} bits: {spilled}"
