"""A KV cache that holds the codes of keys and values, as ``kv_cache_scheme`` says; for a model whole in memory.

Attention gets them back in its own dtype, of one layer at a time: what is kept is codes and scales.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer

from quantrecipe.plugins.native.kv_cache import KeyValueRounding
from quantrecipe.plugins.native.rounding import Fixed
from quantrecipe.runtime.nibbles import pack_nibbles, unpack_nibbles
from quantrecipe.schemes import QuantizationArgs

Tensor = torch.Tensor
TOKENS = 2  # the dimension of [batch, heads, tokens, …]


class Kept:
    """Keys or values of one layer as bytes: codes, a nibble each up to 4 bits, and scales that are found a token."""

    def __init__(self, rounding: KeyValueRounding, part: str) -> None:
        self.rounding, self.part = rounding, part
        self._last = 0
        self.tensors: list[Tensor | None] = [None, None, None]

    def add(self, values: Tensor) -> Tensor:
        """Take in the tokens that are new; all of them as attention reads them back."""
        codes, fixed = self.rounding.codes(self.part, values)
        self._last = codes.shape[-1]
        found = [_bytes(codes, self.rounding.args)]
        if self.part not in self.rounding.fixed:
            found += [fixed.scale] + ([] if fixed.zero is None else [fixed.zero.to(torch.int8)])
        for place, new in enumerate(found):
            held = self.tensors[place]
            self.tensors[place] = new if held is None else torch.cat([held, new], dim=TOKENS)
        return self._values(values.dtype)

    def _values(self, dtype: torch.dtype) -> Tensor:
        codes, scale, zero = self.tensors
        assert codes is not None
        fixed = self.rounding.fixed.get(self.part)
        if fixed is None:
            assert scale is not None
            fixed = Fixed(scale, zero)
        return self.rounding.values(_codes(codes, self.rounding.args, self._last), fixed, dtype)

    def select(self, batch: Tensor) -> None:
        """Keep these sequences, in this order."""
        self.tensors = [None if one is None else one.index_select(0, batch.to(one.device)) for one in self.tensors]

    @property
    def nbytes(self) -> int:
        """Of all that is kept."""
        return sum(one.nbytes for one in self.tensors if one is not None)


def _bytes(codes: Tensor, args: QuantizationArgs) -> Tensor:
    if codes.dtype == torch.float8_e4m3fn:
        return codes.view(torch.uint8)
    whole = codes.to(torch.int8 if args.num_bits <= 8 else torch.int16)
    return pack_nibbles(whole) if args.num_bits <= 4 else whole


def _codes(stored: Tensor, args: QuantizationArgs, columns: int) -> Tensor:
    if args.type == "float":
        return stored.view(torch.float8_e4m3fn)
    return unpack_nibbles(stored, columns, signed=True) if args.num_bits <= 4 else stored


class QuantizedLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """The cache of one attention module; it keeps all tokens, also where attention has a sliding window."""

    is_sliding = False

    def __init__(self, rounding: KeyValueRounding) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kept = [Kept(rounding, "k"), Kept(rounding, "v")]
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is allocated ahead."""
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Take in new keys and values [batch, heads, tokens, head size]; all of them back, rounded."""
        self.is_initialized = True
        self.length += key_states.shape[TOKENS]
        return self.kept[0].add(key_states), self.kept[1].add(value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Tokens that attention sees, and how many were dropped before them."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens that are kept."""
        return self.length

    def get_max_length(self) -> int:
        """No limit."""
        return -1

    def reset(self) -> None:
        """Forget all tokens."""
        self.kept, self.length = [Kept(one.rounding, one.part) for one in self.kept], 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep these sequences, in this order."""
        for one in self.kept:
            one.select(beam_idx)


class QuantizedCache(Cache):
    """The cache of a model. Made anew for each text."""

    def __init__(self, config: Any, roundings: Mapping[int, KeyValueRounding]) -> None:
        plain = enumerate(DynamicCache(config=config).layers)
        super().__init__([QuantizedLayer(roundings[i]) if i in roundings else layer for i, layer in plain])


def cache_bytes(cache: Any) -> float | None:
    """Bytes that a token takes in all layers; None where layers keep something else."""
    found = 0.0
    for layer in getattr(cache, "layers", ()):
        if isinstance(layer, QuantizedLayer):
            found += sum(one.nbytes for one in layer.kept) / max(layer.length, 1)
        elif isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None:
            found += (layer.keys.nbytes + layer.values.nbytes) / max(layer.keys.shape[TOKENS], 1)
        else:
            return None
    return found or None


def cache_scheme(args: QuantizationArgs) -> str:
    """In words: how keys and values are kept."""
    kind = "fp8" if args.type == "float" else f"int{args.num_bits}"
    group = f"group of {args.group_size}" if args.strategy == "group" else args.strategy
    return f"{kind}, {'a scale a' if args.dynamic else 'static scales, one a'} {group.replace('attn_head', 'head')}"


def keep_rounded(model: Any, pairs: Iterable[tuple[nn.Module, KeyValueRounding]]) -> None:
    """Make a model keep keys and values so, for good, whoever calls it: an empty cache is replaced."""
    roundings = {int(module.layer_idx): one for module, one in pairs}  # type: ignore[arg-type]

    def give_cache(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        past = kwargs.get("past_key_values")
        if past is None or (not isinstance(past, QuantizedCache) and not past.get_seq_length()):
            past = QuantizedCache(model.config, roundings)
        return args, {**kwargs, "past_key_values": past}

    model.register_forward_pre_hook(give_cache, with_kwargs=True)
