"""int8 per row, the range of each row shrunk to where the squared error of its weights is least."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from quantrecipe.plugins.contract import Availability, Capabilities, Checkpoint, Job, LayerRecord

SHARES = [1.0, 0.98, 0.96, 0.94, 0.92, 0.9, 0.85, 0.8]


class MseClip:
    """One tensor after the other; needs no calibration text."""

    name = "mseclip"

    def capabilities(self) -> Capabilities:
        """Symmetric int8 per row, as compressed-tensors."""
        return Capabilities(
            {"int": (8,)}, (16,), ("channel",), ("rtn",), ("compressed-tensors",), ("cpu",), asymmetric=False
        )

    def availability(self) -> Availability:
        """It needs nothing that quantrecipe does not."""
        return Availability(True, version="0.1.0", devices=("cpu",))

    def quantize(self, job: Job) -> Checkpoint:
        """Fill ``job.output_path`` with one safetensors file and config.json."""
        from safetensors.torch import save_file

        from quantrecipe.errors import ModelError
        from quantrecipe.modeling.folder import ModelFolder

        folder, planned, tensors, layers = ModelFolder.open(job.model_path), job.plan.by_name(), {}, []
        job.progress.start("quantize", len(planned), "layers")
        for name in folder.names:
            module, tensor = name.removesuffix(".weight"), folder.tensor(name)
            if module not in planned:
                tensors[name] = tensor
                continue
            if not bool(tensor.isfinite().all()):
                raise ModelError("a weight holds NaN or infinity", value=name)
            codes, scale, record = _clip(module, tensor)
            tensors |= {name: codes, f"{module}.weight_scale": scale}
            layers.append(record)
            job.progress.advance(layer=module)
        save_file(tensors, job.output_path / "model.safetensors", {"format": "pt"})
        kept = [one.name for one in job.plan.modules if one.group is None and one.info.kind == "Linear"]
        config = {**folder.config, "quantization_config": _config(kept)}
        (job.output_path / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
        return Checkpoint(job.output_path, job.format, tuple(layers))

    def load(self, checkpoint: Path, device: str) -> Any:
        """By transformers, dequantized."""
        from transformers import AutoModelForCausalLM, CompressedTensorsConfig

        config = CompressedTensorsConfig(dequantize=True)
        return AutoModelForCausalLM.from_pretrained(checkpoint, quantization_config=config).to(device)


def _clip(name: str, weight: Any) -> tuple[Any, Any, LayerRecord]:
    """int8 codes [N, K], scales [N, 1] in the weight's dtype, and the record."""
    import torch

    began, exact = time.perf_counter(), weight.float()
    full = exact.abs().amax(1, keepdim=True).clamp_min(1e-8) / 127.5
    errors = torch.stack([((_round(exact, full * share) * full * share - exact) ** 2).sum(1) for share in SHARES])
    share = torch.tensor(SHARES)[errors.argmin(0)].unsqueeze(1)
    scale = (full * share).to(weight.dtype)
    codes = _round(exact, scale.float()).to(torch.int8)  # now, since int8 has no -0.0 and its readers none either
    served = (codes.to(weight.dtype) * scale).to(weight.dtype)
    error = float((served.float() - exact).norm() / exact.norm())
    digest = _sha256(served)
    note = f"rows kept {100 * float(share.mean()):.1f} %"
    size = codes.numel() + scale.numel() * scale.element_size()
    rows, columns = weight.shape
    seconds = time.perf_counter() - began
    return codes, scale, LayerRecord(
        name, "w8a16", "rtn", rows, columns, size, error, None, digest, seconds, note
    )  # fmt: skip


def _round(weight: Any, scale: Any) -> Any:
    return (weight / scale).round().clamp(-128, 127)


def _sha256(tensor: Any) -> str:
    import hashlib

    import torch

    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def _config(ignore: list[str]) -> dict[str, Any]:
    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
    group = {"targets": ["Linear"], "weights": weights, "format": "int-quantized"}
    return {
        "quant_method": "compressed-tensors", "format": "int-quantized", "quantization_status": "compressed",
        "config_groups": {"group_0": group}, "ignore": ignore,
    }  # fmt: skip
