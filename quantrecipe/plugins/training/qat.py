"""Quantization-aware training (Jacob et al., arXiv:1712.05877, section 3): the model computes with rounded weights.

Every weight is learned; the gradient by a rounded weight counts as that by the weight itself. What the model sees is
bit for bit what the checkpoint's readers will give, so that nothing is lost in the conversion.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quantrecipe.modeling.digest import digest
from quantrecipe.modeling.skeleton import is_transposed
from quantrecipe.plugins.contract import Checkpoint
from quantrecipe.plugins.native.activations import quantized_inputs
from quantrecipe.plugins.native.block import input_schemes
from quantrecipe.plugins.native.straight_through import straight_through
from quantrecipe.plugins.native.tuning.student import show
from quantrecipe.plugins.training.models import Subject
from quantrecipe.plugins.training.trained_folder import convert, write_trained


class Qat:
    """The model under training."""

    def __init__(self, subject: Subject, dtype: torch.dtype) -> None:
        self.subject = subject
        self.model: Any = subject.model(dtype).requires_grad_(True)
        self.layers = list(subject.layers(self.model))
        self.learned: dict[str, nn.Parameter] = dict(self.model.named_parameters())

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Within, the model rounds its weights as they are now, and its inputs; gradients pass straight through."""
        try:
            for layer in self.layers:
                parameter = layer.module._parameters["weight"]
                assert parameter is not None
                weight = parameter.t() if is_transposed(layer.module) else parameter
                served = self.subject.served(self.subject.rounded(layer.group, weight)).to(weight.dtype)
                show(layer.module, straight_through(weight, served))
            with quantized_inputs(input_schemes(self.layers)):
                yield
        finally:
            for layer in self.layers:
                layer.module.__dict__.pop("weight", None)


def write(subject: Subject, learned: dict[str, torch.Tensor], scratch: Path) -> Checkpoint:
    """The checkpoint of what was learned, each parameter in fp32 by its name."""
    write_trained(subject, learned, scratch / "model")
    quantized = {f"{planned.name}.weight" for planned in subject.job.plan.quantized}
    changed = {
        name: digest(_stored(subject, name, value).to(subject.computed))
        for name, value in learned.items()
        if name not in quantized
    }
    return convert(subject.job, scratch, {"changed_parameters": changed})


def _stored(subject: Subject, name: str, value: torch.Tensor) -> torch.Tensor:
    skeleton = subject.skeleton
    return value.to(skeleton.folder.info(skeleton.stored_name(name)).dtype)
