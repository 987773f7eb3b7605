"""Carries transforms out on small random models without quantizing, for tests."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.plan import make_plan
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.modeling.stream import Stream
from quantrecipe.plugins.native.layers import Layer
from quantrecipe.plugins.native.stages import Block, Parameters
from quantrecipe.plugins.native.transforms import BUILT_IN
from quantrecipe.recipe import Recipe
from tests import families
from tests.native_jobs import tokens


class Uneven:
    """A random model whose norms, biases and weights have channels of very different size."""

    def __init__(self, family: str, folder: Path) -> None:
        import transformers

        families.make_model(family, folder)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        generator = torch.Generator().manual_seed(5)
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.data += 0.3 * noise
                parameter.data[:: max(7, len(noise) // 5)] *= 4 if name.endswith("weight") else 1
        model.save_pretrained(folder)
        self.skeleton = Skeleton(ModelFolder.open(folder))
        self.skeleton.materialize("", torch.float32)

    def logits(self) -> torch.Tensor:
        output: torch.Tensor = self.skeleton.model(tokens(2, 24, seed=2)).logits
        return output


@torch.inference_mode()
def transform(model: Uneven, part: Any, scheme: str, ignore: list[str] | None = None) -> tuple[set[str], list[str]]:
    """Apply one transform to every block in place; the parameters it changed, and its notes."""
    skeleton, notes = model.skeleton, list[str]()
    recipe = Recipe.model_validate(
        {
            "model": {"id": "x"},
            "quantization": {"config_groups": {"main": scheme}, "ignore": ["lm_head", *(ignore or [])]},
        }
    )
    plan = make_plan(recipe, skeleton.linears())
    stage = BUILT_IN[part.name](part)
    outside = Parameters(skeleton.model, "", lambda name: torch.float32)
    stage.outside(outside)
    stream = Stream(skeleton, tokens(8, 32, seed=1), 4, torch.float32)
    hidden, changed = stream.enter(), dict(outside.changed)
    skeleton.materialize(skeleton.blocks[0].name, torch.float32)
    for index, one in enumerate(skeleton.blocks):
        run = partial(stream.call, index)
        layers = {
            planned.name: Layer(planned, planned.group, skeleton.model.get_submodule(planned.name))
            for planned in plan.quantized
            if planned.info.block == index and planned.group
        }
        block = Block(
            one.module, one.name, lambda name: torch.float32, index=index, layers=layers,
            inputs={"original": hidden}, run=run, note=notes.append,
        )  # fmt: skip
        targets = [run(batch) for batch in hidden]
        stage.apply(block)
        hidden = targets
        changed |= block.changed
    return set(changed), notes
