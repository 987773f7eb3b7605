"""Give a model outlier channels that its function does not notice: the same logits, inputs that int8 cannot hold.

    python tools/inject_outliers.py MODEL OUT

Wherever channels pass from a layer to others unmixed (a norm, v to o, up or fc1 to the second layer of the MLP), a
few of them are multiplied by 50 to 200 and the weights behind them divided by as much. With --shift others are moved
by a constant, as many times the mean magnitude, where biases can take it back (LayerNorm models). OUT is fp32.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from quantrecipe.modeling.skeleton import find_blocks, local_path
from quantrecipe.plugins.native.stages import Parameters
from quantrecipe.plugins.native.transforms.fold import Writer, can_shift, rescale, source_size
from quantrecipe.plugins.native.transforms.inputs import InputStatistics
from quantrecipe.plugins.native.transforms.wiring import Fold, wirings
from quantrecipe.recipe import Calibration
from quantrecipe.runner.calibration import calibration_tokens

LEAST, MOST = 50.0, 200.0


def magnitudes(model: Any, targets: list[nn.Module], tokens: torch.Tensor) -> list[torch.Tensor]:
    """mean|X_j| of each target's input over tokens [sequences, length]."""
    found = [InputStatistics(1024) for _ in targets]
    hooks = [
        module.register_forward_pre_hook(lambda _, args, one=one: one.add(args[0]))
        for module, one in zip(targets, found, strict=True)
    ]
    model(tokens, use_cache=False)
    for hook in hooks:
        hook.remove()
    return [one.mean for one in found]


def disturb(writer: Writer, fold: Fold, mean: torch.Tensor, shift: bool, generator: torch.Generator) -> int:
    """Make some channels of a fold outliers; how many."""
    size = source_size(writer, fold)
    count = max(2, size // 64)
    used = torch.unique(fold.rows)
    picked = used[torch.randperm(len(used), generator=generator)]
    factors = LEAST * (MOST / LEAST) ** torch.rand(count, generator=generator)
    s = torch.ones(size).index_copy_(0, picked[:count], 1 / factors)
    moves = shift and can_shift(writer, fold)
    z = torch.zeros(size)
    if moves:
        signs = torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1
        z.index_copy_(0, picked[count : 2 * count], -signs * factors * float(mean.mean()))
    rescale(writer, fold, s, z if moves else None)
    return count * (2 if moves else 1)


@torch.inference_mode()
def inject(source: str, out: Path, shift: bool = False, seed: int = 0) -> int:
    """Write ``source`` with outliers to ``out``; the number of channels that were made so."""
    folder = local_path(source)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = calibration_tokens(Calibration(samples=4, sequence_length=256), tokenizer, 256).tokens
    generator = torch.Generator().manual_seed(seed)
    count = 0
    for block, wiring in zip(find_blocks(model), wirings(model), strict=True):
        linears = frozenset(f"{block.name}.{name}" for name, _ in block.module.named_modules())
        writer = Writer(Parameters(block.module, block.name, lambda _: torch.float32), linears)
        folds = [fold for fold in wiring.folds if fold.scales]
        means = magnitudes(model, [writer.module(fold.targets[0]) for fold in folds], tokens)
        for fold, mean in zip(folds, means, strict=True):
            count += disturb(writer, fold, mean, shift, generator)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--shift", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"{inject(args.model, args.out, args.shift, args.seed)} channels made outliers in {args.out}")


if __name__ == "__main__":
    main()
