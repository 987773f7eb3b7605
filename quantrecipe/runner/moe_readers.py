"""Whether transformers reads the experts of a compressed-tensors checkpoint; found by trying 5.17."""

from __future__ import annotations

import re
from typing import Any

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.plugins.native.formats.compressed_tensors import EXPERTS

_SINGLE = re.compile(r"\.experts\.\d+\.")


def why_not_transformers(folder: ModelFolder) -> str | None:
    """What of the experts transformers would misread or refuse; None where it reads them, or there are none.

    It unpacks each expert with one scheme for all of them, passing over zero points, then stacks them.
    """
    kinds = {name.rpartition(".")[2] for name in folder.names if _SINGLE.search(name)}
    if not kinds:
        return None
    if not _stacks_experts(str(folder.config.get("model_type"))):
        return "transformers knows no single experts of this architecture"
    if "weight_packed" not in kinds or "weight" in kinds:
        return "transformers reads experts only where all are packed"
    if "weight_zero_point" in kinds:
        return "transformers passes over the zero points of experts"
    groups: dict[str, Any] = folder.config.get("quantization_config", {}).get("config_groups", {})
    if len(groups) > 1 and not any(EXPERTS in group.get("targets", ()) for group in groups.values()):
        return "transformers reads experts only where all share one scheme"
    return None


def _stacks_experts(model_type: str) -> bool:
    """Whether the library's conversion on load makes fused experts out of single ones."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    mapping: Any = get_checkpoint_conversion_mapping
    steps: list[Any] = mapping(model_type) or []
    return any("experts" in pattern and "*" in pattern for step in steps for pattern in step.source_patterns)
