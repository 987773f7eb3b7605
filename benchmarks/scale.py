"""How runs scale: memory against depth, time against layers, and real shapes of large models.

    python benchmarks/scale.py depth               # minutes
    python benchmarks/scale.py blocks              # a Llama-3-70B and a BLOOM-176B block through GPTQ (--only one)
    python benchmarks/scale.py factor              # BLOOM-176B's fc2 from smaller K
    python benchmarks/scale.py straight            # BLOOM-7b1, 14 GB, by round-to-nearest, beside cp

Checkpoints are random weights of real shapes (tools/synthesize_checkpoint.py), made under --folder and removed.
Peak memory is anonymous memory (RssAnon), looked at every 10 ms, beside the most that was resident (VmHWM), whose
pages of mapped files the kernel may take back. Every run is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
RTN = {"main": {"scheme": "w4a16-g128", "method": "rtn"}}
GPTQ = {"main": {"scheme": "w4a16-g128", "method": "gptq"}}
#: BLOOM-176B's fc2 needs a Hessian of 57344 x 57344: see ``factor``.
BLOOM_GPTQ = {**GPTQ, "fc2": {"targets": ["re:.*dense_4h_to_h"], "scheme": "w4a16-g128", "method": "rtn"}}
BLOCKS = (("llama-3-70b", 80, GPTQ), ("bloom-176b", 70, BLOOM_GPTQ))
#: Deep enough for round-to-nearest to fill a shard, which it holds.
DEPTHS = {"rtn": (24, 48), "gptq": (4, 8, 16)}


def synthesize(model: str, folder: Path, *options: str) -> Path:
    """A checkpoint of random weights, made where it is not there yet."""
    if not (folder / "config.json").exists():
        subprocess.run(
            [sys.executable, HERE.parent / "tools/synthesize_checkpoint.py", model, folder, *options], check=True
        )
    return folder


def measure(model: Path, groups: dict[str, Any], sequences: int = 8, length: int = 128) -> dict[str, Any]:
    """Quantize in a process of its own; what measured_run.py says of it, and the bytes that it wrote."""
    with tempfile.TemporaryDirectory(dir=model.parent) as scratch:
        out = Path(scratch) / "out"
        command = [sys.executable, HERE / "measured_run.py", model, out, json.dumps(groups), sequences, length]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return found | {"written": size(out)}


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def row(*cells: object) -> None:
    print(
        "| " + " | ".join(f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells) + " |",
        flush=True,
    )


def heads(names: str) -> None:
    print(f"| {names} |\n|---|" + "--:|" * names.count("|"), flush=True)


def memory_cells(found: dict[str, Any]) -> tuple[float, ...]:
    """Anonymous memory, what pre-flight says that the run will take, and all that was resident."""
    return found["RssAnon"] / 1e6, found["foreseen"] / 1e6, found["VmHWM"] / 1e6


def depth(folder: Path) -> None:
    """BLOOM-560m's layers, a few and twice as many, small vocabulary."""
    heads("method | layers | seconds | CPU s | RssAnon MB | foreseen MB | VmHWM MB")
    for method, groups in (("rtn", RTN), ("gptq", GPTQ)):
        for layers in DEPTHS[method]:
            options = ("--layers", str(layers), "--vocab", "4096")
            model = synthesize("bloom-560m", folder / f"depth-{layers}", *options)
            found = measure(model, groups)
            row(method, layers, found["seconds"], found["cpu_seconds"], *memory_cells(found))
            shutil.rmtree(model)


def blocks(folder: Path, only: str | None = None) -> None:
    """One real-shaped block each; the model's own depth times its CPU seconds."""
    heads("block | layers | seconds | CPU s | RssAnon MB | foreseen MB | VmHWM MB | model, CPU h")
    for name, layers, groups in BLOCKS:
        if only not in (None, name):
            continue
        model = synthesize(name, folder / name, "--layers", "1", "--vocab", "4096", "--dtype", "bfloat16")
        found = measure(model, groups)
        hours = found["cpu_seconds"] * layers / 3600
        row(name, layers, found["seconds"], found["cpu_seconds"], *memory_cells(found), hours)
        shutil.rmtree(model)


def factor(_: Path) -> None:
    """CPU seconds of factoring a Hessian and of quantizing with it, N = K / 4 as in fc2; what K = 57344 would take.

    Both are cubic in K: 2/3 K^3 products, and N K^2 = K^3 / 4.
    """
    from quantrecipe.plugins.native.factor import Setting
    from quantrecipe.plugins.native.hessian import Hessian
    from quantrecipe.plugins.native.methods.gptq import gptq
    from quantrecipe.plugins.native.qparams import Storage
    from quantrecipe.schemes import QuantizationArgs

    args = QuantizationArgs(num_bits=4, strategy="group", group_size=128)
    print("| K | Hessian GB | factor s | quantize s | both, CPU s | at K = 57344: CPU h |\n|--:|--:|--:|--:|--:|--:|")
    for columns in (1024, 2048, 4096, 8192):  # the first compiles
        hessian = Hessian(columns)
        hessian.add(torch.randn(1024, columns))
        began, cpu = time.perf_counter(), time.process_time()
        found = hessian.factor(Setting(0.01, sorts=True), "fc2", print)
        middle = time.perf_counter()
        gptq(torch.randn(columns // 4, columns), found, args, Storage(torch.float16, torch.float32))
        ended, cpu = time.perf_counter(), time.process_time() - cpu
        hours = cpu * (57344 / columns) ** 3 / 3600
        row(columns, 4 * columns**2 / 1e9, middle - began, ended - middle, cpu, hours)


def straight(folder: Path) -> None:
    """BLOOM-7b1 in fp16 by round-to-nearest, beside cp of the same folder, both from a cold page cache."""
    model = synthesize("bloom-7b1", folder / "bloom-7b1")
    heads("what | seconds | CPU s | RssAnon MB | foreseen MB | VmHWM MB | GB read | GB written")
    for cold in (True, False):
        state = "page cache cold" if cold else "page cache as the run before left it"
        forget(model, cold)
        seconds = copied(model)
        row(f"cp and sync, {state}", seconds, "", "", "", "", size(model) / 1e9, size(model) / 1e9)
        forget(model, cold)
        found = measure(model, RTN)
        cells = (found["seconds"], found["cpu_seconds"], *memory_cells(found))
        row(f"w4a16-g128 rtn, {state}", *cells, size(model) / 1e9, found["written"] / 1e9)


def copied(model: Path) -> float:
    """Seconds of ``cp`` until the disk has it all, as a run waits for the disk too."""
    target = model.with_name("copy")
    began = time.perf_counter()
    subprocess.run(["cp", "-r", model, target], check=True)
    for path in target.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    shutil.rmtree(target)
    return seconds


def forget(model: Path, cold: bool) -> None:
    """Have the kernel drop the files' pages."""
    for path in model.iterdir() if cold else ():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


PARTS: dict[str, Any] = {"depth": depth, "blocks": blocks, "factor": factor, "straight": straight}


def main() -> None:
    """Measure the parts that were named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()), help="with room for 30 GB for straight"
    )
    parser.add_argument("--only", choices=[name for name, *_ in BLOCKS], help="one of the blocks")
    parser.add_argument("--keep", action="store_true", help="leave the checkpoints there")
    args = parser.parse_args()
    folder = args.folder / "quantrecipe-scale"
    folder.mkdir(exist_ok=True)
    for part in args.parts:
        print(f"\n{part}: load average before {os.getloadavg()[0]:.1f}\n")
        PARTS[part](folder, args.only) if part == "blocks" else PARTS[part](folder)
    if not args.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
