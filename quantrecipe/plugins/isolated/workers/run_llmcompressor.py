"""RTN and GPTQ by llm-compressor, written as compressed-tensors."""

from __future__ import annotations

from typing import Any

from worker_io import Channel, Refused, calibration, dtype_named, main

OLD_KEYS = ("num_bits", "type", "symmetric", "strategy", "group_size", "block_structure", "dynamic")


def quantize(job: dict[str, Any], channel: Channel) -> None:
    """Load, quantize, save; then the witness."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokens = calibration(job)
    channel.start("quantize with llm-compressor")
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype_named(job), local_files_only=True)
    more: dict[str, Any] = {}
    if tokens is not None:
        rows = tokens.tolist()
        data = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]})
        more = {
            "dataset": data,
            "max_seq_length": len(rows[0]),
            "num_calibration_samples": len(rows),
            "pipeline": "sequential",
        }
        more |= {"shuffle_calibration_samples": False, "batch_size": 4}
    oneshot(model=model, recipe=modifier(job), **more)
    model.save_pretrained(job["output"], save_compressed=True)
    AutoTokenizer.from_pretrained(job["model"], local_files_only=True).save_pretrained(job["output"])


def modifier(job: dict[str, Any]) -> Any:
    """llm-compressor's words for the recipe's groups. Raises Refused where the methods differ."""
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier

    methods = {str(sorted(one["method"].items(), key=str)): one["method"] for one in job["modules"].values()}
    if len(methods) != 1:
        raise Refused("llm-compressor carries out one method a run here", "give all groups one method")
    method = next(iter(methods.values()))
    groups = config_groups(job)
    if method["name"] == "rtn":
        return QuantizationModifier(config_groups=groups, ignore=job["kept"])
    order = {None: None, "static": "static", "group": "group"}[method.get("actorder")]
    return GPTQModifier(
        config_groups=groups,
        ignore=job["kept"],
        dampening_frac=method.get("dampening_frac", 0.01),
        block_size=method.get("block_size", 128),
        actorder=order,
    )


def config_groups(job: dict[str, Any]) -> dict[str, Any]:
    """One group a scheme, its layers by full name."""
    groups: dict[str, Any] = {}
    for name, one in job["modules"].items():
        key = str((one["weights"], one["input_activations"]))
        group = groups.setdefault(key, {"targets": [], **_schemes(one)})
        group["targets"].append(name)
    return {f"group_{number}": group for number, group in enumerate(groups.values())}


def _schemes(one: dict[str, Any]) -> dict[str, Any]:
    parts = {"weights": one["weights"], "input_activations": one["input_activations"]}
    return {key: {k: args[k] for k in OLD_KEYS if args[k] is not None} for key, args in parts.items() if args}


def load(job: dict[str, Any]) -> Any:
    """The saved checkpoint by transformers, decompressed."""
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    return AutoModelForCausalLM.from_pretrained(
        job["model"],
        dtype="auto",
        quantization_config=CompressedTensorsConfig(dequantize=True),
        local_files_only=True,
    ).to(job["device"])


if __name__ == "__main__":
    main(quantize, load)
