"""Inputs of a layer rounded to int8 on the fly, one scale a token, as compressed-tensors computes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from quantrecipe.errors import BackendError
from quantrecipe.plugins.native.qparams import code_range
from quantrecipe.schemes import QuantizationArgs


def fake_quantize_tokens(inputs: torch.Tensor, bits: int, as_transformers: bool = False) -> torch.Tensor:
    """Symmetric dynamic quantization of inputs [..., K] along K, in their own dtype.

    Operation for operation what compressed-tensors does (calculate_qparams, then _quantize_dequantize):
    bit-equal to it on [batch, tokens, K]. as_transformers: also copy it on flattened [tokens, K] inputs
    (OPT's MLP), where the library takes one scale for the whole tensor; engines take one a token.
    """
    if not inputs.numel():  # an expert that no token was sent to
        return inputs
    low, high = code_range(bits)
    whole = as_transformers and inputs.dim() < 3
    extent = inputs.abs().amax() if whole else inputs.abs().amax(-1, keepdim=True)
    scale = extent / ((high - low) / 2)
    eps = torch.tensor(torch.finfo(scale.dtype).eps, dtype=scale.dtype, device=scale.device)
    scale = torch.where(scale == 0, eps, scale)
    return (inputs / scale).clamp_(low, high).round_().mul_(scale)


def check_input_args(args: QuantizationArgs, name: str) -> None:
    """Raises BackendError where the arguments are not dynamic symmetric int8 per token."""
    fits = args.type == "int" and args.num_bits == 8 and args.symmetric and args.dynamic
    if fits and args.strategy == "token" and args.group_size is None:
        return
    found = f"{args.num_bits}-bit {args.type}, strategy {args.strategy}, dynamic {args.dynamic}"
    raise BackendError(
        f"the native backend cannot quantize the inputs of {name} so",
        value=found,
        limit="symmetric dynamic int8 with strategy token",
        remedy="use a scheme such as w8a8 or w4a8-g128",
    )


def apply_scheme(module: nn.Module, inputs: QuantizationArgs, as_transformers: bool = False) -> RemovableHandle:
    """Make a linear module see its inputs quantized, until the handle's ``remove()``."""

    def round_inputs(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (fake_quantize_tokens(args[0], inputs.num_bits, as_transformers), *args[1:])

    return module.register_forward_pre_hook(round_inputs)


@contextmanager
def quantized_inputs(
    pairs: Iterable[tuple[nn.Module, QuantizationArgs]], as_transformers: bool = False
) -> Iterator[None]:
    """Within, these modules see their inputs quantized."""
    hooks = [apply_scheme(module, inputs, as_transformers) for module, inputs in pairs]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
