"""Weights in the layouts of torch's own CPU kernels: when they are taken, their products, that they read back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from places import poisoned

from quantrecipe.errors import BackendError
from quantrecipe.kernels import ops
from quantrecipe.kernels.cpu import tiles
from quantrecipe.kernels.cpu.choice import FEW_ROWS, explain_weight_only, pick_layout, pick_weight_only
from quantrecipe.kernels.cpu.held import kind_of
from quantrecipe.kernels.ops.layouts import Weight
from tests.kernels import oracles
from tests.kernels.test_linear_operators import LIMIT, case_of

OPS = torch.ops.quantrecipe
BRAIN, FULL = torch.bfloat16, torch.float32
needs_tiles = pytest.mark.skipif(not tiles.WIDTH, reason="torch packs 4 bits otherwise on this machine")
assert ops.SCHEMAS


def repacked(case: oracles.Case, group: int, dtype: torch.dtype = BRAIN) -> tuple[torch.Tensor, ...]:
    with poisoned():
        return OPS.repack(case.codes.to(torch.uint8), case.scales, case.zeros, case.bits, group, dtype)


def error_of(x: torch.Tensor, case: oracles.Case, group: int, held: tuple[torch.Tensor, ...]) -> float:
    n = len(case.codes)
    bias = torch.randn(n).to(x.dtype)
    with poisoned():
        found = OPS.linear_weight_only(x, *held, bias, case.bits, group, n)
    assert found.dtype == x.dtype
    return oracles.relative_error(found, oracles.weight_only(x, case, bias))


@needs_tiles
@pytest.mark.parametrize("zeros", ["none", "whole", "any"])
@pytest.mark.parametrize("group", [32, 64, 128, 256])
def test_tiles_for_any_number_of_rows(group: int, zeros: str) -> None:
    case = case_of(192, 512, 4, group, BRAIN, zeros)
    held = repacked(case, group)
    assert kind_of(held[0]) == "tiles"
    most = FEW_ROWS["tiles"]
    for m in (1, 2, 3, 4, 5, 8, most, most + 1, 64, 300):
        assert error_of(torch.randn(m, 512).bfloat16(), case, group, held) < LIMIT[BRAIN], m


@needs_tiles
def test_what_the_shifts_lack_is_added() -> None:
    """Shifts (8 - 7.4375) 85 / 256 lack 2^-12 in bf16: over 4096 inputs of 1 every result would be 1 too low."""
    case = case_of(1024, 4096, 4, 32, BRAIN, "any")
    case.scales, case.zeros = torch.full_like(case.scales, 85 / 256), torch.full_like(case.scales, 7.4375)
    x = torch.ones(1, 4096).bfloat16()
    with poisoned():
        found = OPS.linear_weight_only(x, *repacked(case, 32), None, 4, 32, 1024)
    wanted = oracles.weight_only(x, case, None)
    assert abs(float((found.double() - wanted).mean())) < 0.1


@pytest.mark.parametrize(("n", "k"), [(48, 80), (64, 576), (16, 16)])
def test_bytes_for_any_number_of_rows(n: int, k: int) -> None:
    case = case_of(n, k, 8, 0, BRAIN, "none")
    held = repacked(case, 0)
    assert kind_of(held[0]) == "bytes"
    most = FEW_ROWS["bytes"]
    for m in (1, 2, 3, 4, 7, most, most + 1, 65, 300):
        assert error_of(torch.randn(m, k).bfloat16(), case, 0, held) < LIMIT[BRAIN], m


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float16, FULL])
def test_inputs_of_another_type_are_multiplied_exactly(bits: int, dtype: torch.dtype) -> None:
    case = case_of(64, 128, bits, 0, BRAIN, "none")
    held = repacked(case, 0)
    for m in (1, 30):
        x = torch.randn(m, 128).to(dtype)
        assert error_of(x, case, 0, held) < LIMIT[dtype]
        assert error_of(x, case, 0, (held[0], case.scales, None)) < LIMIT[dtype]  # plain scales


@needs_tiles
@pytest.mark.parametrize("zeros", ["none", "whole"])
def test_tiles_are_torchs_and_read_back(zeros: str) -> None:
    case = case_of(192, 256, 4, 64, BRAIN, zeros)
    packed, *grid = repacked(case, 64)
    theirs = torch.ops.aten._convert_weight_to_int4pack_for_cpu(case.codes.int(), 2)
    assert torch.equal(packed.view(192, 128), theirs)
    for given in (grid, [case.scales, case.zeros]):
        found = OPS.dequantize(packed, *given, 4, 64, 256, BRAIN)
        assert torch.equal(found, case.weight().to(BRAIN))


@pytest.mark.parametrize("bits", [4, 8])
def test_no_rows_give_none(bits: int) -> None:
    held = repacked(case_of(64, 128, bits, 0, BRAIN, "none"), 0)
    assert OPS.linear_weight_only(torch.empty(2, 0, 128).bfloat16(), *held, None, bits, 0, 64).shape == (2, 0, 64)


def weight(n: int = 128, k: int = 256, bits: int = 4, group: int = 64, **others: object) -> Weight:
    given = {"dtype": BRAIN, "scale_dtype": BRAIN, "symmetric": True} | others
    return Weight(n, k, bits, group, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (weight(bits=3), "torch has no kernel for 3 bits"),
        (weight(group=16), "groups of 16, not 32, 64, 128 or 256"),
        (weight(n=72), "72 outputs, no multiple of"),
        (weight(dtype=torch.float16), "fast in bfloat16 only, not float16"),
        (weight(scale_dtype=FULL), "fast in bfloat16 only, not float32"),
        (weight(bits=8), "not one scale a row"),
        (weight(bits=8, group=0, symmetric=False), "not one scale a row"),
        (weight(bits=8, group=0, k=200), "128 x 200 are no multiples of 16"),
    ],
)
@needs_tiles
def test_what_torchs_kernels_do_not_take_goes_to_the_loop(given: Weight, why: str) -> None:
    assert pick_layout(given)[0] == "planes"
    assert why in pick_layout(given)[1]
    assert pick_weight_only(1, given).path == "compiled loop"


@needs_tiles
def test_the_choice_is_said_in_a_line_a_range() -> None:
    lines = explain_weight_only(weight())
    assert len(lines) == 2
    assert lines[0].startswith(
        "M = 1 to 32: torch._weight_int4pack_mm_for_cpu, few rows, bound by the weight's bytes"
    )
    assert lines[1].startswith("M = 33 and more: unpacked in chunks, torch's product")
    assert [line.split(",")[0] for line in explain_weight_only(weight(bits=8, group=0))] == [
        "M = 1: compiled loop",
        "M = 2 to 10: torch._weight_int8pack_mm",
        "M = 11 and more: unpacked in chunks",
    ]


@needs_tiles
def test_what_does_not_fit_is_refused_in_one_line() -> None:
    (tiled, grid, none), x = repacked(case_of(64, 128, 4, 32, BRAIN, "none"), 32), torch.randn(2, 128).bfloat16()
    small, scales, _ = repacked(case_of(64, 128, 8, 0, BRAIN, "none"), 0)
    for wrong in (
        (x, tiled, grid, none, None, 4, 32, 128),
        (x[:, :64], tiled, grid, none, None, 4, 32, 64),
        (x, tiled, grid, none, None, 4, 64, 64),
        (x, small, scales, torch.ones(64, 1), None, 8, 0, 64),
        (x[:, :64], small, scales, none, None, 8, 0, 64),
        (x, small, scales, none, None, 8, 0, 48),
    ):
        with pytest.raises(BackendError) as caught:
            OPS.linear_weight_only(*wrong)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("bits", "group", "zeros"), [(4, 32, "none"), (4, 32, "whole"), (8, 0, "none")])
def test_fakes_agree_and_compile(bits: int, group: int, zeros: str) -> None:
    case, x = case_of(64, 128, bits, group, BRAIN, zeros), torch.randn(3, 128).bfloat16()
    given = case.codes.to(torch.uint8), case.scales, case.zeros, bits, group, BRAIN
    held = OPS.repack(*given)
    torch.library.opcheck(OPS.repack.default, given)
    torch.library.opcheck(OPS.linear_weight_only.default, (x, *held, None, bits, group, 64))
    torch.library.opcheck(OPS.dequantize.default, (*held, bits, group, 128, BRAIN))
    compiled = torch.compile(
        lambda x: OPS.linear_weight_only(x, *held, None, bits, group, 64) + 1, fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(x), OPS.linear_weight_only(x, *held, None, bits, group, 64) + 1)


def test_loops_leave_torch_the_threads_that_it_was_given() -> None:
    """Numba starts OpenMP with every core, for torch as well."""
    script = (
        "import torch; torch.set_num_threads(1); from quantrecipe.kernels import ops\n"
        "from quantrecipe.kernels.cpu.numbers import use_threads; use_threads(); print(torch.get_num_threads())"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"


ELSEWHERE = """
import sys, torch
sys.path.insert(0, "tests/kernels")
import test_cpu_layouts as here
width, kind = int(sys.argv[1]), sys.argv[2]
assert here.tiles.WIDTH == width, here.tiles.WIDTH
for zeros in ("none", "any"):
    case = here.case_of(192, 256, 4, 64, torch.bfloat16, zeros)
    held = here.repacked(case, 64)
    assert here.kind_of(held[0]) == kind
    for m in (1, 5, 40):
        assert here.error_of(torch.randn(m, 256).bfloat16(), case, 64, held) < 4e-3, m
"""


@pytest.mark.slow
@pytest.mark.parametrize(("capability", "width"), [("avx2", 32), ("default", 0)])
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="not of x86")
def test_machines_with_other_instructions(capability: str, width: int) -> None:
    """AVX2's tiles are 32 wide; what torch packs without vectors is not known here, and is refused."""
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(width), "tiles" if width else "planes"],
        cwd=root, check=True, env=os.environ | {"ATEN_CPU_CAPABILITY": capability, "PYTHONPATH": str(root)},
    )  # fmt: skip
