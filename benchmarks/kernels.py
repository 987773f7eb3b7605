"""Products of quantized layers against bf16 and against torch's own kernels; a 4-bit model against its original.

    python benchmarks/kernels.py [--rows 1 4 16 64 256] [--shape 4096 4096] [--threads 1]
    python benchmarks/kernels.py --model QUANTIZED --against ORIGINAL [--threads 2]

CPU: microseconds of CPU time a call, all threads together, so that a busy machine disturbs little; medians of calls
that take turns with bf16's; weights go around more than 64 MB. Where a GPU is, kernels_cuda.py runs as well.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from quantrecipe.kernels import ops
from quantrecipe.kernels.cpu.choice import path_of

OPS = torch.ops.quantrecipe
Call = Callable[[int], object]
SPREAD = 64 * 2**20
GROUP = 64
assert ops.SCHEMAS


def copies(tensor: torch.Tensor) -> list[torch.Tensor]:
    return [tensor.clone() for _ in range(max(2, math.ceil(SPREAD / tensor.nbytes)))]


def in_turn(tensor: torch.Tensor, product: Callable[[torch.Tensor], object]) -> Call:
    """Call i with the next copy of a weight."""
    held = copies(tensor)
    return lambda i: product(held[i % len(held)])


def contenders(m: int, n: int, k: int) -> dict[str, tuple[str, Call]]:
    """By name: the path taken, and the product of x [M, K] with a weight [N, K]."""
    x = torch.randn(m, k).bfloat16()
    weight = torch.randn(n, k).bfloat16()
    found: dict[str, tuple[str, Call]] = {
        "bf16": ("torch", in_turn(weight, lambda w: torch.nn.functional.linear(x, w)))
    }
    for bits in (4, 3, 8):
        found[f"w{bits}a16-g{GROUP}"] = (path_of("weight_only", m), weight_only(x, n, bits))
    q = OPS.quantize_activation(x, "int8")[0]
    int8, rows = torch.randint(-127, 128, (n, k), dtype=torch.int8), torch.rand(n)

    def w8a8(w: torch.Tensor) -> object:
        q, scales = OPS.quantize_activation(x, "int8")
        return OPS.linear_w8a8(q, scales.view(-1), w, rows, None, None, None, torch.bfloat16)

    found["w8a8"] = (path_of("w8a8", m), in_turn(int8, w8a8))
    float8 = weight.to(torch.float8_e4m3fn)
    fp8 = in_turn(float8, lambda w: OPS.linear_fp8(x, None, w, rows, None, torch.bfloat16))
    found["fp8 weights"] = (path_of("fp8", m), fp8)
    return found | torchs_own(x, q, int8, n, k)


def weight_only(x: torch.Tensor, n: int, bits: int) -> Call:
    k = x.shape[1]
    packed = OPS.repack(torch.randint(0, 2**bits, (n, k), dtype=torch.uint8), bits)
    scales = torch.rand(n, k // GROUP).bfloat16()
    return in_turn(packed, lambda w: OPS.linear_weight_only(x, w, scales, None, None, bits, GROUP, n))


def torchs_own(x: torch.Tensor, q: torch.Tensor, int8: torch.Tensor, n: int, k: int) -> dict[str, tuple[str, Call]]:
    """What torch has for the same products."""
    codes = torch.randint(0, 16, (n, k), dtype=torch.int32)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 2)
    grid, rows = torch.rand(k // GROUP, n, 2).bfloat16(), torch.rand(n).bfloat16()
    int4 = torch.ops.aten._weight_int4pack_mm_for_cpu
    found: dict[str, Call] = {
        "torch._weight_int4pack_mm": in_turn(packed, lambda w: int4(x, w, GROUP, grid)),
        "torch._weight_int8pack_mm": in_turn(int8, lambda w: torch.ops.aten._weight_int8pack_mm(x, w, rows)),
        "torch._int_mm": in_turn(int8, lambda w: torch._int_mm(q, w.t())),
    }
    return {name: ("torch", call) for name, call in found.items()}


def timed(call: Call, i: int) -> float:
    began = time.process_time()
    call(i)
    return (time.process_time() - began) * 1e6


def table(m: int, n: int, k: int, seconds: float) -> None:
    given = contenders(m, n, k)
    base = given["bf16"][1]
    for name, (path, call) in given.items():
        for i in range(2):
            call(i), base(i)
        ours, theirs, ends = [], [], time.process_time() + seconds
        while len(ours) < 5 or time.process_time() < ends:
            ours.append(timed(call, len(ours)))
            theirs.append(timed(base, len(theirs)))
        took, beside = statistics.median(ours), statistics.median(theirs)
        print(f"| {m} | {name} | {took:.0f} | {beside / took:.2f} | {path} |", flush=True)


def products(rows: list[int], shape: tuple[int, int], seconds: float) -> None:
    print(f"N, K = {shape[0]}, {shape[1]}; {torch.get_num_threads()} threads; torch {torch.__version__}\n")
    print("| M | product | CPU us | x bf16 | path |\n|--:|---|--:|--:|---|")
    for m in rows:
        table(m, *shape, seconds)


def models(quantized: Path, original: Path) -> None:
    """Tokens a second and memory of both, in turns."""
    from quantrecipe.modeling.heap import give_back
    from quantrecipe.runner.meter import anonymous_memory
    from quantrecipe.runner.serving import serve
    from quantrecipe.runner.speed import speed_ratios

    loaded, marks = [], [anonymous_memory() or 0]
    for folder in (quantized, original):
        loaded.append(serve(folder, "cpu"))
        give_back()
        marks.append(anonymous_memory() or 0)
    tokens = torch.arange(100, 164).unsqueeze(0)
    began = time.process_time()
    speed = speed_ratios(loaded[1].model, loaded[0].model, tokens, pairs=8)
    ratio = math.exp(statistics.median(speed["log_ratios"]))
    print("| model | tokens/s | weights, MB | anonymous, MB | path |\n|---|--:|--:|--:|---|")
    for side, one, before, after in zip(("quantized", "original"), loaded, marks[:-1], marks[1:], strict=True):
        path = ", ".join(f"{row['layers']} {row['path']}" for row in one.to_json()) or "bf16"
        size = one.weight_bytes / 1e6
        print(f"| {side} | {speed[side]:.1f} | {size:.1f} | {(after - before) / 1e6:.1f} | {path} |")
    print(
        f"\nquantized / original: {ratio:.2f} times the tokens/s (prompt of 32, 16 new; median of 8 pairs), ", end=""
    )
    print(f"{torch.get_num_threads()} threads, {time.process_time() - began:.0f} CPU s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--shape", type=int, nargs=2, default=(4096, 4096), metavar=("N", "K"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.3, help="CPU seconds a figure, at least")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--against", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.model is not None:
        models(given.model, given.against)
        return
    products(given.rows, tuple(given.shape), given.seconds)
    if torch.cuda.is_available():
        sys.exit(subprocess.run([sys.executable, Path(__file__).parent / "kernels_cuda.py"], check=False).returncode)
    print("\nno CUDA device: benchmarks/kernels_cuda.py has what is missing")


if __name__ == "__main__":
    main()
