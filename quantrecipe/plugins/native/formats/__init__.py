"""Writers of checkpoint formats, by the recipe's name for each."""

from __future__ import annotations

from quantrecipe.errors import BackendError
from quantrecipe.plugins.native.formats.base import Format
from quantrecipe.plugins.native.formats.bitsandbytes import BitsAndBytes
from quantrecipe.plugins.native.formats.compressed_tensors import CompressedTensors
from quantrecipe.plugins.native.formats.gptq import Gptq
from quantrecipe.plugins.native.formats.own import Own

FORMATS: dict[str, Format] = {
    "compressed-tensors": CompressedTensors(),
    "gptq": Gptq("gptq"),
    "gptq_v2": Gptq("gptq_v2"),
    "bitsandbytes": BitsAndBytes(),
    "quantrecipe": Own(),
}


def format_named(name: str, has_odd: bool) -> Format:
    """The writer of that name; ``auto`` is compressed-tensors, or gptq where some layer is no plain Linear."""
    if name == "auto":
        name = "gptq" if has_odd else "compressed-tensors"
    if name not in FORMATS:
        raise BackendError(
            "the native backend does not write this format", value=name, limit=f"it writes {', '.join(FORMATS)}"
        )
    return FORMATS[name]
