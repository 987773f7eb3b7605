"""A checkpoint served in quantized memory: its layers keep their codes, its inputs are rounded as its config says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quantrecipe.modeling.adapter import attach, attach_adapter, has_adapter, read_adapter
from quantrecipe.modeling.dequantized import DequantizedFolder
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats import READERS, method_of, quantization_config
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.native.activations import apply_scheme
from quantrecipe.runner.quantized import Rounded, cache_rounding, input_rounding, round_activations, static_scale
from quantrecipe.runner.quantized_cache import cache_scheme, keep_rounded
from quantrecipe.runner.scorers import Streamed
from quantrecipe.runner.stored_rounding import stored_rounding
from quantrecipe.runtime.coded import CodedSkeleton, Layer
from quantrecipe.runtime.layers import Inputs
from quantrecipe.runtime.load import Loaded, load_whole, open_skeleton
from quantrecipe.schemes import QuantizationArgs


def servable(folder: Path) -> bool:
    """Whether a checkpoint has a format that this package reads."""
    stored = ModelFolder.open(folder)
    return method_of(quantization_config(stored.config, folder)) in READERS


@dataclass(frozen=True, slots=True)
class Service:
    """How a checkpoint computes. rounded: what it rounds meanwhile; None = what its config says.

    dtype: None = as its config says. note: takes a line for what the config claims and is not done.
    """

    device: str = "cpu"
    rounded: Rounded | None = None
    dtype: torch.dtype | None = None
    trust_remote_code: bool = False
    note: Callable[[str], None] = lambda line: None


def serve(folder: Path, how: Service | None = None) -> Loaded:
    """The model in ``folder``, quantized or not, all its weights in memory. Raises ModelError."""
    how = how or Service()
    skeleton, dtype, rounded = _opened(folder, how)
    found = load_whole(skeleton, dtype, how.device)
    if isinstance(skeleton, CodedSkeleton) and rounded.kv_cache is not None:
        keep_rounded(skeleton.model, cache_rounding(skeleton.codes, skeleton, rounded.kv_cache))
        found.cache = cache_scheme(rounded.kv_cache)
    return found


def stream(folder: Path, how: Service | None = None) -> Streamed:
    """The same as a scorer, one block in memory at a time."""
    how = how or Service()
    skeleton, dtype, rounded = _opened(folder, how)
    if isinstance(skeleton, CodedSkeleton):
        round_activations(skeleton.codes, skeleton, Rounded({}, rounded.kv_cache))
    return Streamed(skeleton, how.device, dtype)


def _opened(folder: Path, how: Service) -> tuple[Skeleton, torch.dtype, Rounded]:
    """The architecture with its adapter, rounding its inputs; what it computes in, and all that is to be rounded."""
    skeleton, dtype = open_skeleton(folder, how.device, how.dtype, how.trust_remote_code)
    attach_adapter(skeleton.model, folder)
    if not isinstance(skeleton, CodedSkeleton):
        return skeleton, dtype, how.rounded or Rounded()
    rounded = stored_rounding(skeleton.codes, skeleton, how.note) if how.rounded is None else how.rounded
    _round_inputs(skeleton, rounded)
    return skeleton, dtype, rounded


def _round_inputs(skeleton: CodedSkeleton, rounded: Rounded) -> None:
    """Inputs are rounded by the product where it does so, else before it."""
    stored = skeleton.codes
    factors = read_adapter(stored.path) if has_adapter(stored.path) else {}

    def dress(name: str, layer: Layer) -> None:
        if name in rounded.inputs and getattr(layer, "inputs", None) is None:
            apply_scheme(layer, input_rounding(stored, name, rounded.inputs[name]))
        if name in factors:
            attach(layer, factors[name])

    found = {name: kernel_input(stored, name, args) for name, args in rounded.inputs.items()}
    skeleton.inputs = {name: one for name, one in found.items() if one is not None}
    skeleton.dress = dress
    round_activations(stored, skeleton, Rounded(rounded.inputs))


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
