"""PyTorch's own int8, weight-only or with inputs rounded on the fly, by torchao through transformers."""

from __future__ import annotations

from typing import Any

from worker_io import Channel, Refused, load_quantized, main, reload_by_transformers, the_one_scheme


def quantize(job: dict[str, Any], channel: Channel) -> None:
    """Load quantized, save; then the witness."""
    from transformers import TorchAoConfig

    load_quantized(job, channel, "torchao", TorchAoConfig(scheme(job), modules_to_not_convert=job["kept"]))


def scheme(job: dict[str, Any]) -> Any:
    """torchao's config for the recipe's scheme."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig

    one = the_one_scheme(job)
    if one["weights"]["strategy"] != "channel" or not one["weights"]["symmetric"]:
        raise Refused("torchao's int8 here has one symmetric scale a row", "use scheme w8a16 or w8a8")
    return Int8WeightOnlyConfig() if one["input_activations"] is None else Int8DynamicActivationInt8WeightConfig()


if __name__ == "__main__":
    main(quantize, reload_by_transformers)
