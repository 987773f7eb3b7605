"""GPTQ by AutoGPTQ 0.7.1 (archived), with CUDA where there is one, else on the CPU through the shim below.

The shim (docs/backends/autogptq.md): the model class is built directly, since ``from_pretrained`` refuses to
quantize without CUDA; the package's constant for the first GPU means the CPU; CUDA's synchronize and
empty_cache do nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker_io import Channel, Refused, calibration, dtype_named, main, the_one_scheme


def on_cpu() -> None:
    """Make AutoGPTQ take the CPU for its GPU."""
    import auto_gptq.modeling._base as base
    import auto_gptq.quantization.gptq as solver
    import torch

    torch.cuda.synchronize = lambda *_, **__: None
    torch.cuda.empty_cache = lambda: None
    for module in (base, solver, *_modules_with_constant()):
        if hasattr(module, "CUDA_0"):
            module.CUDA_0 = torch.device("cpu")


def _modules_with_constant() -> list[Any]:
    import sys

    return [module for name, module in sys.modules.items() if name.startswith("auto_gptq.") and module is not None]


def quantize(job: dict[str, Any], channel: Channel) -> None:
    """Load, quantize, save."""
    import torch
    from auto_gptq import BaseQuantizeConfig
    from auto_gptq.modeling.auto import GPTQ_CAUSAL_LM_MODEL_MAP
    from transformers import AutoConfig, AutoModelForCausalLM

    if job["device"] == "cpu":
        on_cpu()
    one = the_one_scheme(job)
    weights, method = one["weights"], one["method"]
    order = method.get("actorder", None)
    if order not in (None, "static"):
        raise Refused(f"AutoGPTQ has no actorder {order!r}", "use null or static")
    config = BaseQuantizeConfig(
        bits=weights["num_bits"],
        group_size=weights["group_size"] or -1,
        sym=weights["symmetric"],
        desc_act=order == "static",
        static_groups=order == "static",
        damp_percent=method.get("dampening_frac", 0.01),
        true_sequential=True,
    )
    kind = AutoConfig.from_pretrained(job["model"], local_files_only=True).model_type
    if kind not in GPTQ_CAUSAL_LM_MODEL_MAP:
        raise Refused(f"AutoGPTQ knows no model of type {kind!r}", "use backend gptqmodel or native")
    channel.start("quantize with AutoGPTQ")
    dense = AutoModelForCausalLM.from_pretrained(job["model"], torch_dtype=_dtype(job), local_files_only=True)
    dense.seqlen = dense.config.max_position_embeddings
    model = GPTQ_CAUSAL_LM_MODEL_MAP[kind](dense.to(job["device"]), False, config)
    _refuse_kept(model, job)
    rows = calibration(job)
    examples = [{"input_ids": row[None], "attention_mask": torch.ones_like(row[None])} for row in rows]
    model.quantize(examples, batch_size=1, use_triton=False, cache_examples_on_gpu=job["device"] != "cpu")
    for parameter in model.model.parameters():  # what is not quantized, in the type that it came in
        parameter.data = parameter.data.to(dtype_named(job))
    model.model.config.torch_dtype = dtype_named(job)
    model.save_quantized(job["output"], use_safetensors=True)
    _rename(job["output"])


def _dtype(job: dict[str, Any]) -> Any:
    """fp16 on a GPU, as AutoGPTQ has it; fp32 on the CPU, where half a product is slow and loses bits."""
    import torch

    return torch.float32 if job["device"] == "cpu" else torch.float16


def _refuse_kept(model: Any, job: dict[str, Any]) -> None:
    """AutoGPTQ quantizes every linear layer of a block; a recipe that keeps one asks for too much."""
    kept = [name for name in job["kept"] if name.startswith(model.layers_block_name + ".")]
    if kept:
        raise Refused(f"AutoGPTQ quantizes every layer of a block, and the recipe keeps {kept[0]}", "use gptqmodel")


def _rename(folder: str) -> None:
    """Its file under the name that loaders look for."""
    found = [path for path in Path(folder).glob("*.safetensors") if path.name != "model.safetensors"]
    if len(found) == 1:
        found[0].replace(Path(folder) / "model.safetensors")


def load(job: dict[str, Any]) -> Any:
    """The saved checkpoint by AutoGPTQ's own loader, with its plain torch kernel."""
    from auto_gptq import AutoGPTQForCausalLM

    if job["device"] == "cpu":
        on_cpu()
    model = AutoGPTQForCausalLM.from_quantized(
        job["model"],
        model_basename="model",
        use_safetensors=True,
        device=job["device"],
        use_triton=False,
        disable_exllama=True,
        disable_exllamav2=True,
        inject_fused_attention=False,
        inject_fused_mlp=False,
        torch_dtype=_dtype(job),
        use_cuda_fp16=False,
    )
    return model.model


if __name__ == "__main__":
    main(quantize, load)
