"""PyTorch's own int8 by torchao: weights alone, inputs rounded by tokens on the fly, or PT2E (torchao_pt2e.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torchao_pt2e
from worker_io import Channel, Refused, load_quantized, main, reload_by_transformers, the_one_scheme


def quantize(job: dict[str, Any], channel: Channel) -> None:
    """Load quantized, save; then the witness."""
    from transformers import TorchAoConfig

    one = the_one_scheme(job)
    if one["weights"]["strategy"] != "channel" or not one["weights"]["symmetric"]:
        raise Refused("torchao's int8 here has one symmetric scale a row", "use scheme w8a16 or w8a8")
    if torchao_pt2e.is_wanted(one):
        torchao_pt2e.quantize(job, channel, one)
        return
    load_quantized(job, channel, "torchao", TorchAoConfig(scheme(one), modules_to_not_convert=job["kept"]))


def scheme(one: dict[str, Any]) -> Any:
    """torchao's config for the recipe's scheme."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig

    return Int8WeightOnlyConfig() if one["input_activations"] is None else Int8DynamicActivationInt8WeightConfig()


def load(job: dict[str, Any]) -> Any:
    """The saved checkpoint, by transformers or, where it is a graph, by torch."""
    if (Path(job["model"]) / torchao_pt2e.FILE).exists():
        return torchao_pt2e.load(job["model"])
    return reload_by_transformers(job)


if __name__ == "__main__":
    main(quantize, load)
