"""PyTorch's own int8, weight-only or with inputs rounded on the fly, by torchao through transformers."""

from __future__ import annotations

from typing import Any

from worker_io import Channel, Refused, dtype_named, main, the_one_scheme, witness


def quantize(job: dict[str, Any], channel: Channel) -> None:
    """Load quantized, save; then the witness."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, TorchAoConfig

    channel.start("quantize with torchao")
    model = AutoModelForCausalLM.from_pretrained(
        job["model"],
        quantization_config=TorchAoConfig(scheme(job), modules_to_not_convert=job["kept"]),
        dtype=dtype_named(job),
        device_map={"": job["device"]},
        local_files_only=True,
        trust_remote_code=job["trust_remote_code"],
    )
    model.save_pretrained(job["output"])
    AutoTokenizer.from_pretrained(job["model"], local_files_only=True).save_pretrained(job["output"])
    witness(job, model)


def scheme(job: dict[str, Any]) -> Any:
    """torchao's config for the recipe's scheme."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig

    one = the_one_scheme(job)
    if one["weights"]["strategy"] != "channel" or not one["weights"]["symmetric"]:
        raise Refused("torchao's int8 here has one symmetric scale a row", "use scheme w8a16 or w8a8")
    return Int8WeightOnlyConfig() if one["input_activations"] is None else Int8DynamicActivationInt8WeightConfig()


def load(job: dict[str, Any]) -> Any:
    """The saved checkpoint by transformers, which calls torchao."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(job["model"], device_map={"": job["device"]}, local_files_only=True)


if __name__ == "__main__":
    main(quantize, load)
