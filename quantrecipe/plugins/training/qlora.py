"""QLoRA (Dettmers et al., arXiv:2305.14314): a low-rank adapter learned on frozen rounded weights, through peft."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quantrecipe.errors import BackendError
from quantrecipe.modeling.digest import digest
from quantrecipe.plugins.contract import Checkpoint
from quantrecipe.plugins.native.compensation.peft_files import write_adapter
from quantrecipe.plugins.native.linear import get_weight
from quantrecipe.plugins.native.load import load
from quantrecipe.plugins.native.run import quantize as quantize_natively
from quantrecipe.plugins.training.frozen import FrozenLinear
from quantrecipe.plugins.training.models import Subject
from quantrecipe.plugins.training.trained_folder import convert, write_trained
from quantrecipe.recipe_training import QloraTraining


class Qlora:
    """The model under training: rounded weights, and factors A and B of each matrix in a decoder block."""

    def __init__(self, subject: Subject, dtype: torch.dtype, part: QloraTraining) -> None:
        self.subject, adapted = subject, list[str]()
        model = subject.model(dtype)
        for layer in list(subject.layers(model)):
            if not isinstance(layer.module, nn.Linear):
                raise BackendError(
                    "qlora adapts plain linear layers", value=f"{layer.name}, a {type(layer.module).__name__}"
                )
            matrix = subject.rounded(layer.group, get_weight(layer.module))
            frozen = FrozenLinear(layer.module, partial(subject.served, matrix))
            model.set_submodule(layer.name, frozen)
            adapted += [layer.name] if layer.planned.info.block is not None else []
        self.model = with_adapter(model, adapted, part).to(dtype)
        self.learned: dict[str, nn.Parameter] = {
            name.replace(".default.", ".").removeprefix("base_model.model."): one
            for name, one in self.model.named_parameters()
            if one.requires_grad
        }

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The model computes as it is."""
        yield


def with_adapter(model: Any, adapted: list[str], part: QloraTraining) -> Any:
    """peft's LoRA with alpha = rank on these modules: A as peft draws it, from the recipe's seed, and B zero."""
    import peft

    config = peft.LoraConfig(r=part.rank, lora_alpha=part.rank, lora_dropout=0.0, bias="none", target_modules=adapted)
    with torch.random.fork_rng():
        torch.manual_seed(part.seed)
        return peft.get_peft_model(model, config)


def write(subject: Subject, learned: dict[str, torch.Tensor], scratch: Path, part: QloraTraining) -> Checkpoint:
    """The frozen weights with the adapter beside them, or with it merged and rounded anew."""
    return _merged(subject, learned, scratch) if part.adapter == "merged" else _kept(subject, learned, scratch, part)


def _kept(subject: Subject, learned: dict[str, torch.Tensor], scratch: Path, part: QloraTraining) -> Checkpoint:
    job = subject.job
    plan = replace(job.plan, transforms_look=False)
    made = quantize_natively(replace(job, plan=plan, scratch=scratch))
    factors = {name: tensor.to(subject.stored).contiguous() for name, tensor in learned.items()}
    write_adapter(job.output_path, part.rank, factors)
    beside = {name.rpartition(".lora_")[0]: 0 for name in factors}
    for name, tensor in factors.items():
        beside[name.rpartition(".lora_")[0]] += tensor.nbytes
    layers = tuple(replace(one, bytes=one.bytes + beside.get(one.name, 0)) for one in made.layers)
    with torch.no_grad():
        logits = load(job.output_path, job.device, subject.computed)(job.witness.to(job.device)).logits
    details = {**made.details, "adapter": {name: digest(tensor) for name, tensor in factors.items()}}
    return replace(made, layers=layers, witness_logits=logits.float().cpu(), details=details)


def _merged(subject: Subject, learned: dict[str, torch.Tensor], scratch: Path) -> Checkpoint:
    merged = {}
    for name, planned in subject.job.plan.by_name().items():
        A, B = (learned.get(f"{name}.lora_{side}.weight") for side in "AB")
        if A is not None and B is not None and planned.group is not None:
            frozen = subject.rounded(planned.group, subject.skeleton.read(f"{name}.weight"))
            merged[f"{name}.weight"] = subject.served(frozen).float() + B @ A
    write_trained(subject, merged, scratch / "model")
    return convert(subject.job, scratch, {})
