"""Keys and values rounded where a KV cache would hold them: behind the rotary embedding, before attention."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from compressed_tensors.utils import get_head_dim, get_num_kv_heads
from torch import nn
from torch.utils.hooks import RemovableHandle

from quantrecipe.errors import BackendError
from quantrecipe.plugins.native.observers import Observed
from quantrecipe.plugins.native.rounding import Dims, Fixed, dynamic, from_codes, in_groups, to_codes
from quantrecipe.schemes import QuantizationArgs

#: What attention modules of transformers call the cache that they are given.
ARGUMENTS = ("past_key_values", "past_key_value", "layer_past")
HEADS = 1  # the dimension of [batch, heads, tokens, head size]


@dataclass(slots=True)
class KeyValueRounding:
    """How one attention module's keys and values are rounded. fixed: static scales, by ``k`` and ``v``."""

    args: QuantizationArgs
    fixed: dict[str, Fixed] = field(default_factory=dict)
    observed: dict[str, Observed] = field(default_factory=dict)

    def watch(self) -> None:
        """Begin to observe: values pass as they are until ``settle``."""
        keep = HEADS if self.args.strategy == "attn_head" else None
        self.observed = {part: Observed(keep) for part in ("k", "v")}

    def settle(self, dtype: torch.dtype) -> None:
        """Take the scales that were observed, in the dtype that they are stored in."""
        for part, observed in self.observed.items():
            found = observed.fixed(self.args, dtype)
            self.fixed[part] = Fixed(_by_heads(found.scale), None if found.zero is None else _by_heads(found.zero))
        self.observed = {}

    def apply(self, part: str, values: torch.Tensor, as_transformers: bool = False) -> torch.Tensor:
        """Keys or values [batch, heads, tokens, head size] as attention reads them back."""
        if part in self.observed:
            self.observed[part].add(values)
            return values
        return self.values(*self.codes(part, values, as_transformers), values.dtype)

    def codes(self, part: str, values: torch.Tensor, as_transformers: bool = False) -> tuple[torch.Tensor, Fixed]:
        """What a cache holds of keys or values: codes [batch, heads, tokens, …] and their scales."""
        split = in_groups(values, self.args)
        fixed = self.fixed.get(part) or dynamic(split, self.args, _dims(self.args, as_transformers))
        return to_codes(split, self.args, fixed), fixed

    def values(self, codes: torch.Tensor, fixed: Fixed, dtype: torch.dtype) -> torch.Tensor:
        """What they stand for, [batch, heads, tokens, head size]."""
        found = from_codes(codes, fixed, dtype)
        return found.flatten(-2) if self.args.strategy == "group" else found

    def tensors(self) -> Iterable[tuple[str, torch.Tensor]]:
        """k_scale, v_scale: [1], or [heads, 1, 1]; int8 zero points where asymmetric."""
        for part, fixed in self.fixed.items():
            shape = (-1, 1, 1) if self.args.strategy == "attn_head" else (1,)
            yield f"{part}_scale", fixed.scale.reshape(shape)
            if fixed.zero is not None:
                yield f"{part}_zero_point", fixed.zero.reshape(shape).to(torch.int8)


def _by_heads(found: torch.Tensor) -> torch.Tensor:
    return found.view(-1, 1, 1) if len(found) > 1 else found


def _dims(args: QuantizationArgs, as_transformers: bool) -> Dims:
    """A scale a token, over all heads, or a group of a head. compressed-tensors takes ``token`` for one a head."""
    if args.strategy == "group":
        return (-1,)
    return (2, 3) if as_transformers else (1, 3)


class _Cache:
    """Stands in for a cache: holds nothing, gives keys and values back rounded."""

    def __init__(self, rounding: KeyValueRounding, as_transformers: bool) -> None:
        self._rounding, self._as_transformers = rounding, as_transformers

    def update(self, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """What transformers' attention calls with the new keys and values."""
        one = self._rounding
        return one.apply("k", key, self._as_transformers), one.apply("v", value, self._as_transformers)


def cached_attention(root: nn.Module) -> dict[str, nn.Module]:
    """The modules under ``root`` that take a cache, by name within it; the innermost ones."""
    found = {name: module for name, module in root.named_modules() if _argument(module) is not None}
    inner = {name: one for name, one in found.items() if not any(other.startswith(f"{name}.") for other in found)}
    inner.pop("", None)
    return inner


def seen_by_transformers(module: nn.Module) -> bool:
    """Whether compressed-tensors' kv_cache_scheme reaches this module; others it leaves alone in silence."""
    named = "attention" in type(module).__name__.lower()
    return named and any(hasattr(module, name) for name in ("k_proj", "v_proj", "qkv_proj", "kv_b_proj"))


def check_reachable(config: Any) -> None:
    """Raises BackendError where compressed-tensors fails on a kv_cache_scheme with this config."""
    try:
        get_num_kv_heads(config)
        get_head_dim(config)
    except ValueError as error:
        raise BackendError(
            "compressed-tensors cannot apply kv_cache_scheme to this architecture",
            value=config.model_type,
            limit="its config names no num_key_value_heads or head size",
            remedy="set format: quantrecipe, or leave kv_cache_scheme to the engine's own flag",
        ) from error


def _argument(module: nn.Module) -> str | None:
    parameters = inspect.signature(module.forward).parameters
    return next((name for name in ARGUMENTS if name in parameters), None)


def apply_kv_scheme(module: nn.Module, rounding: KeyValueRounding, as_transformers: bool = False) -> RemovableHandle:
    """Make an attention module read rounded keys and values, until the handle's ``remove()``."""
    argument = _argument(module) or ARGUMENTS[0]

    def give_cache(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, argument: _Cache(rounding, as_transformers)}

    return module.register_forward_pre_hook(give_cache, with_kwargs=True)


@contextmanager
def quantized_cache(
    pairs: Iterable[tuple[nn.Module, KeyValueRounding]], as_transformers: bool = False
) -> Iterator[None]:
    """Within, these attention modules read rounded keys and values."""
    hooks = [apply_kv_scheme(module, rounding, as_transformers) for module, rounding in pairs]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True, slots=True)
class BlockCache:
    """The caches of one block. roundings: by the full name of the attention module."""

    modules: dict[str, nn.Module]
    roundings: dict[str, KeyValueRounding]

    @classmethod
    def of(cls, block: nn.Module, prefix: str, args: QuantizationArgs | None) -> BlockCache:
        """Those of ``block``, whose full name is ``prefix``; none where ``args`` is None."""
        found = {} if args is None else cached_attention(block)
        modules = {f"{prefix}.{name}": module for name, module in found.items()}
        return cls(modules, {} if args is None else {name: KeyValueRounding(args) for name in modules})

    def observe(
        self, run: Callable[[torch.Tensor], torch.Tensor], batches: Iterable[torch.Tensor], dtype: torch.dtype
    ) -> None:
        """Find static scales, in the dtype that they are stored in, from a pass through the block as it is now."""
        static = [name for name, one in self.roundings.items() if not one.args.dynamic]
        for name in static:
            self.roundings[name].watch()
        with quantized_cache((self.modules[name], self.roundings[name]) for name in static):
            for batch in batches if static else ():
                run(batch)
        for name in static:
            self.roundings[name].settle(dtype)

    def tensors(self) -> Iterable[tuple[str, torch.Tensor]]:
        """(full name, tensor) of every static scale."""
        for name, one in self.roundings.items():
            yield from ((f"{name}.{suffix}", tensor) for suffix, tensor in one.tensors())

    def as_transformers(self) -> AbstractContextManager[None]:
        """Within, keys and values are rounded where and as transformers rounds them."""
        seen = [name for name, module in self.modules.items() if seen_by_transformers(module)]
        return quantized_cache(((self.modules[name], self.roundings[name]) for name in seen), as_transformers=True)
