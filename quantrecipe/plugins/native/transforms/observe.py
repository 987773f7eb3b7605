"""Two runs of a probed block compared."""

from __future__ import annotations

import torch

from quantrecipe.plugins.native.transforms.probe import Observed

TOLERANCE = 1e-4


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal but for rounding in fp32."""
    if one.shape != other.shape or not one.numel():
        return one.shape == other.shape
    return bool((one - other).abs().max() <= TOLERANCE * (1 + other.abs().max()))


def same(one: Observed, other: Observed, name: str) -> bool:
    """Whether a layer received the same in both; a layer that one of them never called did not."""
    return name in one.inputs and name in other.inputs and close(one.inputs[name], other.inputs[name])


def touches_only(one: Observed, other: Observed, names: list[str]) -> bool:
    """Whether two runs differ in nothing but the inputs of these layers."""
    rest = [name for name in one.inputs | other.inputs if name not in names]
    return close(one.output, other.output) and all(same(one, other, name) for name in rest)


def first_token(observed: Observed, name: str) -> torch.Tensor:
    """What a layer receives for the first token, [K]."""
    inputs = observed.inputs[name]
    return inputs.reshape(-1, inputs.shape[-1])[0]
