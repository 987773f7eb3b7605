"""A model of transformers on the meta device, whose weights come and go one decoder block at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from quantrecipe.config_limits import check_config
from quantrecipe.errors import ModelError
from quantrecipe.modeling.experts import Experts, experts_of, unfuse
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.names import stored_names, tied_names

Kind = Literal["Linear", "LinearSubclass", "Conv1D", "Embedding", "Other"]


@dataclass(frozen=True, slots=True)
class Block:
    """One decoder block: its full name (``model.layers.3``) and module."""

    name: str
    module: nn.Module


@dataclass(frozen=True, slots=True)
class LinearInfo:
    """A matrix of the model. rows: outputs N. columns: inputs K. Conv1D stores [K, N].

    is_tied: another module has the same matrix. Other: a parameter of two or more dimensions in a module of another
    class, which nothing quantizes. is_router: it decides which experts a token visits, or how much a shared one
    counts. stored: the module's name in the files, '' where it is ``name``.
    """

    name: str
    kind: Kind
    rows: int
    columns: int
    block: int | None
    is_head: bool
    is_tied: bool
    is_router: bool = False
    stored: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Its name in transformers, and in the files where that differs."""
        return (self.name, self.stored) if self.stored else (self.name,)

    @property
    def is_expert(self) -> bool:
        """Whether it is a matrix of one routed expert."""
        return experts_of(f"{self.name}.weight") is not None

    @property
    def is_plain(self) -> bool:
        """What compressed-tensors attaches to: torch's Linear, an Embedding; no Conv1D, no subclass (Falcon's)."""
        return self.kind in ("Linear", "Embedding")

    @property
    def is_embedding(self) -> bool:
        """Whether its rows are looked up, not multiplied."""
        return self.kind == "Embedding"


class Skeleton:
    """The architecture without its weights.

    ``materialize`` fills a module from the folder, ``release`` empties it again.
    """

    def __init__(self, folder: ModelFolder, trust_remote_code: bool = False) -> None:
        self.folder = folder
        self.model = _on_meta(folder, trust_remote_code)
        unfuse(self.model)
        self.blocks = find_blocks(self.model)
        tied = tied_names(self.model)
        self._shared = {*tied, *tied.values()}
        self._names = stored_names(self.model, folder.names)
        self._check_complete()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the decoder's matrices as stored."""
        first = next(info.name for info in self.linears() if info.block is not None and info.kind != "Other")
        return self.folder.info(self.stored_name(f"{first}.weight")).dtype

    @cached_property
    def head(self) -> str | None:
        """Name of the output head."""
        head = self.model.get_output_embeddings()
        return next((name for name, module in self.model.named_modules() if module is head), None)

    def linears(self) -> list[LinearInfo]:
        """Every Linear, Conv1D and Embedding of the model, and every other matrix, in its own order."""
        routers = routers_of(self.model)
        found = [(name, module, _kind(module)) for name, module in self.model.named_modules()]
        return [self._info(name, module, kind, name in routers) for name, module, kind in found if kind is not None]

    def _info(self, name: str, module: nn.Module, kind: Kind, is_router: bool) -> LinearInfo:
        attribute, parameter = next(
            (key, one) for key, one in module.named_parameters(recurse=False) if one.dim() > 1
        )
        rows, columns = parameter.shape[0], parameter[0].numel()
        if kind == "Conv1D":
            rows, columns = columns, rows
        full = f"{name}.{attribute}"
        stored = self.written_name(full).removesuffix(f".{attribute}")
        return LinearInfo(
            name, kind, rows, columns, self.block_index(name), name == self.head, full in self._shared, is_router,
            "" if stored == name else stored,
        )  # fmt: skip

    def block_index(self, name: str) -> int | None:
        """The decoder block that a module lies in."""
        for index, block in enumerate(self.blocks):
            if name.startswith(f"{block.name}."):
                return index
        return None

    def stored_name(self, parameter: str) -> str:
        """The tensor in the files that a parameter of the model is, or is a part of."""
        if parameter not in self._names:
            raise ModelError("tensor missing from the checkpoint", value=parameter, limit=str(self.folder.path))
        return self._names.stored(parameter)

    def stored_module(self, name: str) -> str:
        """A layer's name in the files."""
        return self.stored_name(f"{name}.weight").removesuffix(".weight")

    def written_name(self, parameter: str) -> str:
        """The name to write it under: as stored, or its own where it was stored as a part of another tensor."""
        return parameter if parameter in self._names.parts else self.stored_name(parameter)

    @cached_property
    def fused(self) -> dict[str, list[str]]:
        """The parameters that lie together in a stored tensor, by its name."""
        found: dict[str, list[str]] = {}
        for name, part in self._names.parts.items():
            found.setdefault(part.stored, []).append(name)
        return found

    def read(self, parameter: str, mapped: bool = False) -> torch.Tensor:
        """One parameter on the CPU, as stored: a copy, or (mapped) as it lies in its file, never to be written to."""
        self.stored_name(parameter)
        return self._names.read(self.folder, parameter, mapped)

    def parameters_of(self, prefix: str) -> Iterator[tuple[str, nn.Module, str]]:
        """(full name, owner, attribute) of every parameter under a module."""
        root = self.model.get_submodule(prefix)
        for path, module in root.named_modules(remove_duplicate=False):
            owner = ".".join(part for part in (prefix, path) if part)
            for attribute in module._parameters:
                if module._parameters[attribute] is not None:
                    yield (f"{owner}.{attribute}" if owner else attribute), module, attribute

    def materialize(self, prefix: str, dtype: torch.dtype | None = None, device: str = "cpu") -> None:
        """Load all weights and stored buffers under ``prefix`` ('' = the model), in ``dtype`` or as they are."""
        for name, module, attribute in self.parameters_of(prefix):
            expected = module._parameters[attribute]
            tensor = self._loaded(name, expected, dtype, device)
            module._parameters[attribute] = nn.Parameter(tensor, requires_grad=False)
        for path, module in self.model.get_submodule(prefix).named_modules():
            for attribute in set(module._buffers) - module._non_persistent_buffers_set:
                name = ".".join(part for part in (prefix, path, attribute) if part)
                if name in self._names.whole:
                    module._buffers[attribute] = self._loaded(name, module._buffers[attribute], dtype, device)

    def _loaded(
        self, name: str, expected: torch.Tensor | None, dtype: torch.dtype | None, device: str
    ) -> torch.Tensor:
        """In memory of its own, copied once."""
        tensor = self.read(name, mapped=True)
        if expected is not None and tensor.shape != expected.shape:
            raise ModelError(
                f"tensor {name} has the wrong shape", value=list(tensor.shape), limit=f"{list(expected.shape)}"
            )
        wanted = self._dtype_of(name, dtype) if tensor.is_floating_point() else None
        lies_in_file = name in self._names.whole and self.folder.is_verbatim(self._names.whole[name])
        return tensor.to(device, wanted or tensor.dtype, copy=lies_in_file)

    def _dtype_of(self, name: str, dtype: torch.dtype | None) -> torch.dtype | None:
        """``dtype``, but what the library keeps in fp32 (DeepSeek's correction of its routers) stays so."""
        plan: dict[str, torch.dtype] = self.model._get_dtype_plan(dtype) if dtype else {}
        return next((kept for pattern, kept in plan.items() if re.search(pattern, name)), dtype)

    def materialize_outside(self, dtype: torch.dtype | None = None, device: str = "cpu") -> None:
        """Load everything that lies in no block: embeddings, final norm, head."""
        for prefix in self._outside():
            self.materialize(prefix, dtype, device)

    def _outside(self) -> list[str]:
        """The largest modules that contain no block."""
        inside = {id(block.module) for block in self.blocks}
        found: list[str] = []

        def visit(module: nn.Module, name: str) -> None:
            if id(module) in inside:
                return
            if not any(id(child) in inside for child in module.modules()):
                found.append(name)
                return
            for child_name, child in module.named_children():
                visit(child, f"{name}.{child_name}" if name else child_name)

        visit(self.model, "")
        return found

    def release(self, prefix: str) -> None:
        """Give the weights under a module back; it is on the meta device again."""
        for _, module, attribute in self.parameters_of(prefix):
            parameter = module._parameters[attribute]
            if parameter is not None:
                module._parameters[attribute] = nn.Parameter(parameter.to("meta"), requires_grad=False)

    def _check_complete(self) -> None:
        for name, _, _ in self.parameters_of(""):
            self.stored_name(name)


def _on_meta(folder: ModelFolder, trust_remote_code: bool) -> Any:
    """The model with parameters on the meta device, buffers real (rotary frequencies are computed)."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        check_config(folder.config)
        config = AutoConfig.from_pretrained(folder.path, trust_remote_code=trust_remote_code, local_files_only=True)
        if not folder.config.get("tie_word_embeddings", True):  # a folder may be seen otherwise than it is stored
            config.tie_word_embeddings = False
        with init_empty_weights(include_buffers=False):
            build: Any = AutoModelForCausalLM.from_config
            model = build(config, trust_remote_code=trust_remote_code)
    except (ValueError, KeyError, TypeError, OSError, AttributeError, json.JSONDecodeError) as error:
        kind = folder.config.get("model_type")
        raise ModelError(
            "transformers cannot build this architecture", value=kind, limit=str(error).splitlines()[0][:200]
        ) from error
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.eval()


def find_blocks(model: nn.Module) -> list[Block]:
    """The decoder blocks: the ModuleList that holds the most parameters."""
    lists = [
        (name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module)
    ]
    if not lists:
        raise ModelError("no decoder blocks found", value=type(model).__name__, limit="a ModuleList of blocks")
    name, blocks = max(lists, key=lambda pair: sum(p.numel() for p in pair[1].parameters()))
    return [Block(f"{name}.{index}", block) for index, block in enumerate(blocks)]


def is_transposed(module: nn.Module) -> bool:
    """Whether the module stores its weight as [K, N], as GPT-2's Conv1D does."""
    return type(module).__name__ == "Conv1D"


def _kind(module: nn.Module) -> Kind | None:
    if isinstance(module, nn.Linear):
        return "Linear" if type(module) is nn.Linear else "LinearSubclass"
    if isinstance(module, nn.Embedding):
        return "Embedding"
    if is_transposed(module):
        return "Conv1D"
    return "Other" if any(parameter.dim() > 1 for parameter in module.parameters(recurse=False)) else None


def routers_of(model: nn.Module) -> set[str]:
    """The modules beside experts that have one output an expert, or one: routers and gates of shared experts."""
    found: set[str] = set()
    for path, owner in model.named_modules():
        experts = next((child for child in owner.children() if isinstance(child, Experts)), None)
        for name, child in owner.named_children() if experts is not None else ():
            matrices = [(key, one) for key, one in child.named_modules() if _kind(one) is not None]
            if child is experts or len(matrices) != 1:
                continue
            key, matrix = matrices[0]
            rows = max(len(parameter) for parameter in matrix.parameters(recurse=False))
            if rows in (1, len(experts or ())):
                found.add(".".join(part for part in (path, name, key) if part))
    return found


def local_path(model_id: str) -> Path:
    """The folder that a model id stands for: ``demo``, a folder, or a snapshot in the hub's cache."""
    if model_id == "demo":
        return Path(__file__).parent.parent / "demo" / "model"
    if Path(model_id).exists():
        return Path(model_id)
    return _from_hub(model_id)


def _from_hub(model_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    try:
        return Path(snapshot_download(model_id, allow_patterns=patterns))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            "neither a folder nor a model that the hub gives",
            value=model_id,
            limit=str(error).splitlines()[0][:160],
            remedy="give a folder, 'demo', or a hub id while online",
        ) from error
