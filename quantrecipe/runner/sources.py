"""A saved checkpoint as something that did not write it reads it: weights by module, tensors by name, logits."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch

from quantrecipe.errors import DamageError
from quantrecipe.modeling.experts import expert_layouts, expert_tensor
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats import method_of, quantization_config
from quantrecipe.plugins.native.activations import Rounding, apply_scheme
from quantrecipe.runner.meter import available_memory
from quantrecipe.runner.moe_readers import why_not_transformers
from quantrecipe.runner.progress import Quiet
from quantrecipe.runner.quantized import Rounded, open_dequantized, round_activations
from quantrecipe.runner.scorers import Streamed

#: Share of the free memory that a model may take; above it the checkpoint is read block by block instead.
ROOM = 0.6
#: What transformers needs beside itself, by quant_method.
_NEEDS = {
    "gptq": ("optimum", "gptqmodel"),
    "gptqmodel": ("optimum", "gptqmodel"),
    "awq": ("gptqmodel",),
}


class Source(Protocol):
    """What verifying asks of a loader. ``label`` says which it is; ``model`` has every module, maybe empty."""

    label: str
    model: Any

    def weight(self, name: str) -> torch.Tensor | None:
        """The dequantized weight [N, K] of a module; None where it has none."""

    def tensor(self, name: str) -> torch.Tensor:
        """A parameter of the model."""

    def logits(self, tokens: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """fp64 logits [sequences, length, vocabulary], computed in ``dtype``."""


class Whole:
    """A model that transformers has loaded whole and dequantized."""

    def __init__(self, model: Any, label: str) -> None:
        self.model, self.label = model.eval(), label
        self._modules = dict(model.named_modules())

    def weight(self, name: str) -> torch.Tensor | None:
        """The module's weight, rows first."""
        module = self._modules.get(name)
        weight = getattr(module, "weight", None) if module else expert_tensor(self.model, f"{name}.weight")
        if weight is None or weight.is_meta:
            return None
        return weight.t() if type(module).__name__ == "Conv1D" else weight

    def tensor(self, name: str) -> torch.Tensor:
        """A parameter, or one expert's part of one."""
        part = expert_tensor(self.model, name)
        found: torch.Tensor = self.model.get_parameter(name) if part is None else part
        return found

    @torch.inference_mode()
    def logits(self, tokens: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The plain forward pass; the model stays in ``dtype``."""
        logits: torch.Tensor = self.model.to(dtype)(tokens, use_cache=False).logits
        return logits.double()


class Reader:
    """The reader written apart from the writer, a block at a time; for GPTQ files and for models that do not fit."""

    def __init__(
        self,
        folder: Path,
        dtype: torch.dtype,
        rounded: Rounded,
        why: str,
        trust_remote_code: bool = False,
    ) -> None:
        self.label = f"quantrecipe's reader, which shares no code with the writer ({why})"
        self.dtype, self.why = dtype, why
        self._folder, self._skeleton = open_dequantized(folder, dtype, trust_remote_code)
        self.model = self._skeleton.model
        # The writer's witness copies what transformers computes, whole-tensor scales on flattened inputs included.
        round_activations(self._folder, self._skeleton, rounded, as_transformers=True)

    def quantized(self) -> list[str]:
        """Names of the model's modules that are stored as codes."""
        names = [info.name for info in self._skeleton.linears()]
        return [name for name in names if self._skeleton.stored_module(name) in self._folder.modules]

    def weight(self, name: str) -> torch.Tensor | None:
        """The weight as a loader that computes in ``dtype`` has it."""
        module = self._skeleton.stored_module(name)
        if module not in self._folder.modules:
            return None
        weight = self._folder.tensor(f"{module}.weight").to(self.dtype)
        return weight.t() if module in self._folder.transposed else weight

    def tensor(self, name: str) -> torch.Tensor:
        """A parameter as stored."""
        return self._skeleton.read(name)

    @torch.inference_mode()
    def logits(self, tokens: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Streamed block by block."""
        scorer = Streamed(self._skeleton, dtype=dtype)
        scorer.run(tokens, Quiet())
        logits = torch.cat([scorer.logits(batch, 0, tokens.shape[1]) for batch in range(len(scorer.stream.batches))])
        scorer.close()
        return logits.double()


def open_source(request: dict[str, Any]) -> Source:
    """The most independent loader that can open the checkpoint here. Raises DamageError."""
    folder, dtype = Path(request["folder"]), getattr(torch, request["dtype"])
    stored = ModelFolder.open(folder)
    method = method_of(quantization_config(stored.config, folder))
    rounded = Rounded.from_json(request["rounded"])
    why = _no_loader(method) or why_not_transformers(stored)
    free = available_memory()
    if why is None and free is not None and request["parameters"] * (dtype.itemsize + 4) > ROOM * free:
        why = "the dequantized model does not fit the memory whole"
    if why is not None:
        return Reader(folder, dtype, rounded, why, request["trust_remote_code"])
    whole = _transformers(folder, dtype, method, request["trust_remote_code"])
    if method == "bitsandbytes":
        _round_int8(whole, rounded)
    return whole


def _round_int8(whole: Whole, rounded: Rounded) -> None:
    """What LLM.int8() rounds as it computes: bitsandbytes' modules are plain by now."""
    for name, args in rounded.inputs.items():
        apply_scheme(whole.model.get_submodule(name), Rounding(args), as_transformers=True)


def _no_loader(method: str) -> str | None:
    """Why transformers cannot open such a checkpoint here; None where it can."""
    if method == "quantrecipe":
        return "nothing else reads this layout"
    for name in _NEEDS.get(method, ()):
        if not find_spec(name):
            return f"transformers opens {method} only with {' and '.join(_NEEDS[method])} installed"
    return None


def _transformers(folder: Path, dtype: torch.dtype, method: str | None, trust_remote_code: bool) -> Whole:
    import transformers

    extra: dict[str, Any] = {}
    if method == "compressed-tensors":
        extra["quantization_config"] = transformers.CompressedTensorsConfig(dequantize=True)
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=trust_remote_code, **extra
        )
    except Exception as error:  # the library raises errors of many kinds
        raise DamageError(
            "transformers cannot load the checkpoint",
            value=str(folder),
            limit=f"{type(error).__name__}: {error}"[:300],
            remedy="another quantization.format may do",
        ) from error
    if method == "bitsandbytes":
        model = model.dequantize(dtype)  # type: ignore[no-untyped-call]  # by bitsandbytes itself
        return Whole(model, f"transformers {transformers.__version__} and bitsandbytes {version('bitsandbytes')}")
    if expert_layouts(model):  # grouped products know no fp64, which rounding is measured in
        model.set_experts_implementation("eager")
    return Whole(model, f"transformers {transformers.__version__}")
