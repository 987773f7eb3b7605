"""LLM.int8() and NF4/FP4 by bitsandbytes, through transformers.

Saved before any forward pass: on the CPU the first one repacks NF4 weights in place, and a checkpoint saved after
it reloads, without an error, to another model.
"""

from __future__ import annotations

from typing import Any

from worker_io import Channel, Refused, dtype_named, load_quantized, main, reload_by_transformers, the_one_scheme


def quantize(job: dict[str, Any], channel: Channel) -> None:
    """Load quantized, save; then the witness."""
    load_quantized(job, channel, "bitsandbytes", config(job))


def config(job: dict[str, Any]) -> Any:
    """bitsandbytes' words for the recipe's. Raises Refused for what it has no words for."""
    from transformers import BitsAndBytesConfig

    one = the_one_scheme(job)
    weights, method = one["weights"], one["method"]
    kept = job["kept"]
    if weights["type"] == "int":
        if method["name"] != "llm-int8":
            raise Refused("bitsandbytes' int8 is LLM.int8(), which rounds inputs too", "use method llm-int8")
        threshold = float(method.get("threshold", method.get("options", {}).get("threshold", 6.0)))
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=threshold, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=weights["type"],
        bnb_4bit_use_double_quant=weights["scale"] is not None,
        bnb_4bit_compute_dtype=dtype_named(job),
        llm_int8_skip_modules=kept,
    )


if __name__ == "__main__":
    main(quantize, reload_by_transformers)
