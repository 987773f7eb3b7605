"""Which stored tensor is which parameter: transformers' own renaming, applied to names alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def stored_names(model: Any, stored: Iterable[str]) -> dict[str, str]:
    """Stored name of every parameter and buffer of the model that one stored tensor fills.

    Base models leave out their prefix (GPT-2 stores ``h.0…`` for ``transformer.h.0…``); some families
    were renamed since (``embed_out`` is now ``lm_head``). Tensors that the library fuses or splits on
    load (experts) are left out. A tied parameter that is not stored is the one it is tied to.
    """
    rename = _renamer(model)
    found: dict[str, str] = {}
    for name in sorted(stored):
        target = rename(name)
        if target is not None:
            found.setdefault(target, name)
    for tied, source in tied_names(model).items():
        if tied not in found and source in found:
            found[tied] = found[source]
    return found


def _renamer(model: Any) -> Any:
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    transforms = get_model_conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    wanted = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    prefix = model.base_model_prefix

    def rename(name: str) -> str | None:
        target, converter = rename_source_key(name, renamings, converters, prefix, wanted)
        if target not in wanted:  # as the library does: the name was right, only the prefix may differ
            target, converter = rename_source_key(name, [], [], prefix, wanted)
        return target if target in wanted and converter is None else None

    return rename


def tied_names(model: Any) -> dict[str, str]:
    """Tied parameters and the one that each is tied to, where the config ties them."""
    if not getattr(model.config, "tie_word_embeddings", False):
        return {}
    keys = getattr(model, "_tied_weights_keys", None)
    return dict(keys) if isinstance(keys, dict) else {}
