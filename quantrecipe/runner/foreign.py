"""A quantized checkpoint that this run did not write: its weights against the original's, and its logits."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from quantrecipe.errors import DamageError, ModelError
from quantrecipe.modeling.adapter import attach_adapter
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats import READERS, method_of, quantization_config, reader_of
from quantrecipe.modeling.formats.compressed_config import matches
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.native.kv_cache import cached_attention
from quantrecipe.runner.quantized import Rounded, open_dequantized, round_activations
from quantrecipe.runner.scorers import Loaded, Scorer, Streamed
from quantrecipe.schemes import QuantizationArgs


def scorer_of(
    folder: Path,
    device: str,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> Scorer:
    """Streamed through a reader of the format; loaded whole by transformers where there is no reader for it.

    note: takes a line for what the checkpoint claims and that is not scored.
    """
    stored = ModelFolder.open(folder)
    config = quantization_config(stored.config, folder)
    if method_of(config) not in READERS:
        return _loaded(folder, device, dtype, trust_remote_code)
    dequantized, skeleton = open_dequantized(folder, dtype, trust_remote_code)
    cache = stored_cache(config, dequantized.stored, skeleton, note)
    round_activations(dequantized, skeleton, Rounded(stored_inputs(config, skeleton), cache))
    attach_adapter(skeleton.model, folder)
    return Streamed(skeleton, device, dtype)


def stored_inputs(config: dict[str, Any], skeleton: Skeleton) -> dict[str, QuantizationArgs]:
    """How compressed-tensors' config says that the inputs of each module are rounded."""
    found: dict[str, QuantizationArgs] = {}
    for group in (config.get("config_groups") or {}).values():
        if not group.get("input_activations"):
            continue
        args = _args(group["input_activations"])
        for info in skeleton.linears():
            targets, ignored = group.get("targets", []), config.get("ignore") or []
            wanted = any(target == info.kind or matches(target, info.name) for target in targets)
            if wanted and not any(matches(target, info.name) for target in ignored):
                found[info.name] = args
    return found


def _args(stored: dict[str, Any]) -> QuantizationArgs:
    """Of what a config says, the part that tells how numbers are rounded."""
    known = {key: stored.get(key) for key in QuantizationArgs.model_fields}
    return QuantizationArgs.model_validate({key: value for key, value in known.items() if value is not None})


def stored_cache(
    config: dict[str, Any], stored: ModelFolder, skeleton: Skeleton, note: Callable[[str], None]
) -> QuantizationArgs | None:
    """How a config says that keys and values are rounded; None where that is not scored, and a line that says why."""
    scheme = config.get("kv_cache_scheme")
    if not scheme:
        return None
    try:
        args = _args(scheme)
    except (ValidationError, AttributeError, TypeError):
        note(f"{_UNSCORED}: this scheme is not known")
        return None
    wanted = [f"{block.name}.{name}" for block in skeleton.blocks for name in cached_attention(block.module)]
    scales = [] if args.dynamic else [f"{name}.{part}_scale" for name in wanted for part in ("k", "v")]
    missing = [name for name in scales if name not in stored]
    if not wanted or args.strategy not in ("tensor", "token", "group", "attn_head"):
        note(f"{_UNSCORED}: {f'strategy {args.strategy} is not known' if wanted else 'no attention takes a cache'}")
        return None
    if missing:
        note(f"{_UNSCORED}: {len(missing)} of {len(scales)} scales are missing, such as {missing[0]}")
        return None
    return args


#: How an engine serves what the report does not show.
_UNSCORED = "kv_cache_scheme is not scored, keys and values stay as computed"


def _loaded(folder: Path, device: str, dtype: torch.dtype, trust_remote_code: bool) -> Loaded:
    import transformers

    factory: Any = transformers.AutoModelForCausalLM
    try:
        model = factory.from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=trust_remote_code
        ).to(device)
    except Exception as error:  # the library raises errors of many kinds
        raise DamageError(
            "transformers cannot load the checkpoint",
            value=str(folder),
            limit=f"{type(error).__name__}: {error}"[:300],
        ) from error
    return Loaded(model, int(model.config.get_text_config().vocab_size), dtype, device)


def quantized_bytes(stored: ModelFolder) -> tuple[int, int]:
    """Weights that are stored as codes, and the bytes that stand for them; zeros where there is no reader."""
    try:
        reader = reader_of(stored)
    except ModelError:
        return 0, 0
    modules = reader.modules(stored)
    shapes = [reader.shape(stored, module) for module in modules]
    return sum(rows * columns for rows, columns in shapes), sum(reader.nbytes(stored, module) for module in modules)


def compared_layers(stored: ModelFolder, original: Skeleton) -> list[dict[str, Any]]:
    """Each quantized module's weight against the original's, as the layers of results.json; none without a reader."""
    try:
        reader = reader_of(stored)
    except ModelError:
        return []
    names = {name: info for info in original.linears() for name in info.names}
    found = []
    for module in reader.modules(stored):
        info = names.get(module)
        if info is None:
            continue
        began = time.perf_counter()
        weight = original.read(f"{info.name}.weight").float()
        weight = weight.t() if info.kind == "Conv1D" else weight
        error = torch.linalg.norm(weight - reader.decode(stored, module).weight(torch.float32))
        rows, columns = reader.shape(stored, module)
        nbytes = reader.nbytes(stored, module)
        found.append(
            {
                "name": info.name,
                "scheme": f"{8 * nbytes / (rows * columns):.3g} bits",
                "method": reader.name,
                "rows": rows,
                "columns": columns,
                "bytes": nbytes,
                "relative_error": float(error / torch.linalg.norm(weight)),
                "output_error": None,
                "digest": "",
                "seconds": round(time.perf_counter() - began, 3),
                "note": None,
                "tokens": None,
            }
        )
    return found


def format_name(folder: Path) -> str:
    """The format that a checkpoint's config claims; ``none`` where it claims none, or ``unreadable``."""
    try:
        stored = ModelFolder.open(folder)
    except ModelError:
        return "unreadable"
    return method_of(quantization_config(stored.config, folder))
