"""A checkpoint served in quantized memory: its layers keep their codes, its inputs are rounded as its config says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from quantrecipe.modeling.dequantized import DequantizedFolder
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats import READERS, method_of, quantization_config
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.runner.foreign import stored_inputs
from quantrecipe.runner.quantized import Rounded, round_activations, static_scale
from quantrecipe.runtime.layers import Inputs
from quantrecipe.runtime.load import Loaded, load
from quantrecipe.schemes import QuantizationArgs

#: bitsandbytes' own where the config names none.
OUTLIERS = 6.0


def servable(folder: Path) -> bool:
    """Whether a checkpoint has a format that this package reads."""
    stored = ModelFolder.open(folder)
    return method_of(quantization_config(stored.config, folder)) in READERS


def serve(
    folder: Path,
    device: str,
    rounded: Rounded | None = None,
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
) -> Loaded:
    """The model in ``folder``, quantized or not, ready to compute. Raises ModelError.

    rounded: what is rounded as it computes; None = what its config says. Keys and values are kept as they are.
    """
    asked: dict[str, QuantizationArgs] = {} if rounded is None else rounded.inputs

    def kernel_inputs(skeleton: Skeleton, stored: DequantizedFolder) -> Mapping[str, Inputs]:
        if rounded is None:
            asked.update(inputs_of(stored, skeleton))
        given = {name: kernel_input(stored, name, args) for name, args in asked.items()}
        return {name: one for name, one in given.items() if one is not None}

    found = load(folder, device, kernel_inputs, dtype, trust_remote_code)
    if found.stored is not None:
        rest = {name: args for name, args in asked.items() if name not in found.rounding}
        round_activations(found.stored, found.skeleton, Rounded(rest))
    return found


def inputs_of(stored: DequantizedFolder, skeleton: Skeleton) -> dict[str, QuantizationArgs]:
    """How the config says that inputs are rounded; LLM.int8()'s among them."""
    config = quantization_config(stored.config, stored.path)
    if not any(f"{module}.SCB" in stored.stored for module in stored.modules):
        return stored_inputs(config, skeleton)
    threshold = config.get("llm_int8_threshold")
    args = QuantizationArgs(
        num_bits=8, strategy="token", dynamic=True,
        outlier_threshold=float(threshold) if isinstance(threshold, int | float) and threshold > 0 else OUTLIERS,
    )  # fmt: skip
    return {
        info.name: args
        for info in skeleton.linears()
        if f"{skeleton.stored_name(f'{info.name}.weight').removesuffix('.weight')}.SCB" in stored.stored
    }


def kernel_input(stored: DequantizedFolder, name: str, args: QuantizationArgs) -> Inputs | None:
    """The rounding that a product does itself; None where inputs are rounded before it."""
    if args.outlier_threshold is not None:
        return Inputs("int8", threshold=args.outlier_threshold)
    if args.num_bits != 8 or args.type not in ("int", "float"):
        return None
    kind: Any = "int8" if args.type == "int" else "fp8"
    if args.dynamic:
        return Inputs(kind) if args.strategy == "token" and args.symmetric else None
    fixed = static_scale(stored, f"{name}.input")
    if fixed.scale.numel() != 1:
        return None
    zero = None if fixed.zero is None else fixed.zero.reshape(()).to(torch.int32)
    return Inputs(kind, fixed.scale.reshape(()).float(), zero)
