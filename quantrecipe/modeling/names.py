"""Which stored tensor is which parameter: transformers' own conversion, applied to names alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from quantrecipe.errors import ModelError
from quantrecipe.modeling.experts import DOWN, GATE, UP, Layout, expert_layouts
from quantrecipe.modeling.folder import ModelFolder


@dataclass(frozen=True, slots=True)
class Part:
    """A parameter that is a part of a stored tensor: one matrix of expert ``index``, as ``layout`` cuts it."""

    stored: str
    index: int
    leaf: str
    layout: Layout


@dataclass(slots=True)
class Names:
    """Where the files keep what the model's parameters and buffers hold.

    whole: the stored name of each that one stored tensor fills. parts: those that lie in a larger tensor, which
    is how some checkpoints store experts.
    """

    whole: dict[str, str] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)

    def __contains__(self, parameter: str) -> bool:
        return parameter in self.whole or parameter in self.parts

    def stored(self, parameter: str) -> str:
        """The stored tensor that a parameter is, or lies in. Raises KeyError where there is none."""
        part = self.parts.get(parameter)
        return self.whole[parameter] if part is None else part.stored

    def read(self, folder: ModelFolder, parameter: str, mapped: bool = False) -> torch.Tensor:
        """One parameter on the CPU, as stored: a copy, or in mapped memory. Raises KeyError where it is not."""
        part = self.parts.get(parameter)
        if part is None:
            name = self.whole[parameter]
            return folder.mapped(name) if mapped else folder.tensor(name)
        row = folder.row(part.stored, part.index)
        return part.layout.cut(row, part.leaf).clone(memory_format=torch.contiguous_format)


def stored_names(model: Any, stored: Iterable[str]) -> Names:
    """Where every parameter and buffer of the model is stored; experts by their names as single modules.

    Base models leave out their prefix (GPT-2 stores ``h.0…`` for ``transformer.h.0…``); some families were renamed
    since (``embed_out`` is now ``lm_head``, ``block_sparse_moe.experts.0.w1`` lies in ``mlp.experts.gate_up_proj``).
    A tied parameter that is not stored is the one it is tied to. Raises ModelError for stored experts that
    the library does more to than stack and join them.
    """
    layouts = expert_layouts(model)
    rename = _Renamer(model, layouts)
    names = Names()
    for name in sorted(stored):
        target = rename(name)
        if target is not None:
            names.whole.setdefault(target, name)
    for tied, source in tied_names(model).items():
        if tied not in names.whole and source in names.whole:
            names.whole[tied] = names.whole[source]
    for path, layout in layouts.items():
        for parameter, index, leaf, kind in layout.parts(path):
            whole = names.whole.get(f"{path}.{layout.attribute(leaf, kind)}")
            if parameter not in names.whole and whole is not None:
                names.parts[parameter] = Part(whole, index, leaf, layout)
    return names


class _Renamer:
    """Stored name -> parameter, by the library's renamings and, for experts, its converters."""

    def __init__(self, model: Any, layouts: dict[str, Layout]) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming

        transforms = get_model_conversion_mapping(model)
        self._renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
        self._converters = [one for one in transforms if isinstance(one, WeightConverter)]
        self._prefix = model.base_model_prefix
        self._layouts = layouts
        self._wanted: dict[str, Any] = {
            **dict(model.named_parameters(remove_duplicate=False)),
            **dict(model.named_buffers()),
        }
        for path, layout in layouts.items():
            for parameter, _, leaf, kind in layout.parts(path):
                self._wanted[parameter] = self._wanted[f"{path}.{layout.attribute(leaf, kind)}"] = None

    def __call__(self, name: str) -> str | None:
        """The parameter, single expert's matrix or fused parameter that a stored tensor fills, if one."""
        target, pattern = self._rename(name, self._renamings, self._converters)
        if target not in self._wanted:  # as the library does: the name was right, only the prefix may differ
            target, pattern = self._rename(name, [], [])
        if target not in self._wanted:
            return None
        return target if pattern is None else self._single(name, target, pattern)

    def _rename(self, name: str, renamings: list[Any], converters: list[Any]) -> tuple[str, str | None]:
        from transformers.core_model_loading import rename_source_key

        return rename_source_key(name, renamings, converters, self._prefix, self._wanted)

    def _single(self, name: str, fused: str, pattern: str) -> str | None:
        """The single expert's matrix that the library would stack into a fused parameter."""
        path, _, attribute = fused.rpartition(".")
        if path not in self._layouts:
            return None
        converter = next(one for one in self._converters if pattern in one.source_patterns)
        leaves = (DOWN,) if attribute == DOWN else (GATE, UP) if self._layouts[path].gated else (UP,)
        steps = [type(operation).__name__ for operation in converter.operations]
        stacked = steps == ["MergeModulelist", "Concatenate"][: len(leaves)] and not self._layouts[path].transposed
        if not stacked or len(converter.source_patterns) != len(leaves):
            raise ModelError(
                "these experts are stored in a way that cannot be streamed yet",
                value=name,
                limit=f"transformers loads them by {', '.join(steps)}",
            )
        index = [step for step in name.split(".") if step.isdigit()][-1]
        return f"{path}.{index}.{leaves[converter.source_patterns.index(pattern)]}.weight"


def tied_names(model: Any) -> dict[str, str]:
    """Tied parameters and the one that each is tied to, where the config ties them."""
    if not getattr(model.config, "tie_word_embeddings", False):
        return {}
    keys = getattr(model, "_tied_weights_keys", None)
    return dict(keys) if isinstance(keys, dict) else {}
