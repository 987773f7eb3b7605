"""int8 inputs with one scale a tensor by PyTorch 2's export path (PT2E): exported, prepared, calibrated, converted.

The quantizer is the one for x86 CPUs: asymmetric uint8 inputs, symmetric int8 weights with a scale a row. What it
leaves is a graph; it is saved as torch.export saves graphs, and torch with torchao loads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from worker_io import Channel, Refused, calibration, witness

FILE = "model.pt2"


def is_wanted(scheme: dict[str, Any]) -> bool:
    """Whether a scheme rounds inputs with one scale a tensor, found on calibration text or on the fly."""
    inputs = scheme["input_activations"]
    return inputs is not None and inputs["strategy"] == "tensor"


def quantize(job: dict[str, Any], channel: Channel, scheme: dict[str, Any]) -> None:
    """Export the model in fp32, quantize the graph, save it; then the witness."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from transformers import AutoConfig, AutoModelForCausalLM

    inputs = scheme["input_activations"]
    if inputs["symmetric"] or inputs["num_bits"] != 8:
        raise Refused("PT2E's x86 quantizer has asymmetric 8-bit inputs", "set symmetric: false")
    channel.start("export")
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32, local_files_only=True).eval()
    longest = int(model.config.max_position_embeddings)
    with torch.no_grad():
        graph = prepare_pt2e(export(_Logits(model), longest).module(), quantizer(job, inputs["dynamic"]))
        _calibrate(graph, calibration(job), channel)
        made = convert_pt2e(graph)
        _drop_replaced(made)
        output = Path(job["output"])
        torch.export.save(export(made, longest), output / FILE)
    settings = {"quant_method": "torchao", "quant_type": "pt2e", "file": FILE, "dynamic": inputs["dynamic"]}
    config = AutoConfig.from_pretrained(job["model"], local_files_only=True).to_dict()
    (output / "config.json").write_text(json.dumps({**config, "quantization_config": settings}, indent=1), "utf-8")
    witness(job, Graph(made))


def export(model: torch.nn.Module, longest: int) -> Any:
    """The graph of a module that gives logits, for any batch and any length up to ``longest``."""
    batch, length = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim("length", min=2, max=longest)
    tokens = torch.zeros(4, min(16, longest), dtype=torch.int64)
    shapes = {"input_ids": {0: batch, 1: length}}
    return torch.export.export(model, (tokens,), dynamic_shapes=shapes, strict=False)


def quantizer(job: dict[str, Any], dynamic: bool) -> Any:
    """For the modules of the job alone."""
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    config = x86.get_default_x86_inductor_quantization_config(is_dynamic=dynamic)
    found = x86.X86InductorQuantizer()
    for name in job["modules"]:
        found.set_module_name_qconfig(f"model.{name}", config)
    return found


def _calibrate(graph: Any, tokens: Any, channel: Channel) -> None:
    """Observers of static scales look at the calibration text; dynamic ones need one pass to be set up."""
    windows = torch.zeros(1, 2, dtype=torch.int64) if tokens is None else tokens
    channel.start("calibrate", len(windows), "windows")
    for window in windows.split(4):
        graph(window)
        channel.advance(len(window))


def _drop_replaced(graph: Any) -> None:
    """Take the weights out that int8 ones have replaced: conversion leaves them, and they would be saved."""
    read = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in graph.named_parameters() if name not in read]:
        owner, _, attribute = name.rpartition(".")
        delattr(graph.get_submodule(owner), attribute)


class _Logits(torch.nn.Module):
    """A model of transformers as a function of tokens."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids, use_cache=False).logits  # type: ignore[no-any-return]


class Graph:
    """A converted graph, as the worker's answers ask models."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._place = torch.zeros(1)

    def eval(self) -> Graph:
        """Graphs are exported as they serve."""
        return self

    def parameters(self) -> Iterator[torch.Tensor]:
        """One that has the type and the place that it computes in."""
        yield self._place

    def __call__(self, input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        """``.logits``, as models of transformers give them."""
        return SimpleNamespace(logits=self._graph(input_ids))

    def get_submodule(self, name: str) -> Any:
        """The product with the weight that the named module's node reads, dequantized."""
        weight = self._weight(name)
        return lambda x: x @ weight.t()

    def _weight(self, name: str) -> torch.Tensor:
        for node in self._graph.graph.nodes:
            path = [entry[0] for entry in node.meta.get("nn_module_stack", {}).values()]
            if str(node.target) == "aten.linear.default" and path and path[-1] == f"model.{name}":
                return self._dequantized(node.args[1])
        raise Refused(f"the graph holds no linear layer {name}")

    def _dequantized(self, node: Any) -> torch.Tensor:
        if "dequantize_per_channel" not in str(node.target):
            raise Refused(f"a weight was not quantized: its node is {node.target}")
        codes, scales, zeros = (self._constant(part) for part in node.args[:3])
        return (codes.float() - zeros.float().unsqueeze(1)) * scales.float().unsqueeze(1)

    def _constant(self, node: Any) -> torch.Tensor:
        found = self._graph
        for part in str(node.target).split("."):
            found = getattr(found, part)
        return found  # type: ignore[no-any-return]


def load(folder: str) -> Graph:
    """The saved graph."""
    import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401 - registers the operators

    return Graph(torch.export.load(Path(folder) / FILE).module())
