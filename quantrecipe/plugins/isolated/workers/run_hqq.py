"""HQQ by its own library (https://github.com/mobiusml/hqq): half-quadratic, no calibration text.

Saved through its safetensors-encoded state dict rather than its own ``save_quantized``, which writes a pickle.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from worker_io import Channel, dtype_named, main, the_one_scheme, witness

SETTINGS = "hqq_modules.json"


def quantize(job: dict[str, Any], channel: Channel) -> None:
    """One linear layer after the other; save; then the witness."""
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    weights = the_one_scheme(job)["weights"]
    config = BaseQuantizeConfig(nbits=weights["num_bits"], group_size=weights["group_size"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], torch_dtype=dtype_named(job), local_files_only=True)
    channel.start("quantize with hqq", len(job["modules"]), "layers")
    for name in job["modules"]:
        layer = HQQLinear(model.get_submodule(name), config, compute_dtype=dtype_named(job), device=job["device"])
        _put(model, name, layer)
        channel.advance(layer=name)
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    save_file(
        {key: tensor.cpu().contiguous() for key, tensor in state.items()}, Path(job["output"]) / "model.safetensors"
    )
    data = {**model.config.to_dict(), "torch_dtype": job["dtype"]}
    data["quantization_config"] = {"quant_method": "hqq", "modules": list(job["modules"])}
    (Path(job["output"]) / "config.json").write_text(json.dumps(data, indent=2, sort_keys=True))
    witness(job, model)


def _put(model: Any, name: str, layer: Any) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, layer)


def load(job: dict[str, Any]) -> Any:
    """The model built anew, hqq's layers loaded from their encoded state."""
    import torch
    from hqq.core.quantize import HQQLinear
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = Path(job["model"])
    data = json.loads((folder / "config.json").read_text())
    modules = data["quantization_config"]["modules"]
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    del config.quantization_config
    dtype = getattr(torch, data["torch_dtype"])
    model = AutoModelForCausalLM.from_config(config, torch_dtype=dtype)
    state = load_file(folder / "model.safetensors")
    for name in modules:
        parts = {key.removeprefix(f"{name}."): state.pop(key) for key in list(state) if key.startswith(f"{name}.")}
        layer = HQQLinear(None, None, compute_dtype=dtype, device=job["device"], initialize=False)
        layer.load_state_dict(parts)
        _put(model, name, layer)
    model.load_state_dict(state, strict=False)
    model.tie_weights()
    return model.to(job["device"])


if __name__ == "__main__":
    main(quantize, load)
