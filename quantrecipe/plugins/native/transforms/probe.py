"""A decoder block's wiring, laid bare: every matrix replaced by numbers of ours, so that no weight is needed.

The block's own forward runs on a few tokens while its linear layers return constants. Whatever then changes
when one layer's output is changed shows which layer feeds which, whatever the architecture calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from quantrecipe.modeling.skeleton import find_blocks, is_transposed
from quantrecipe.plugins.native.transforms.norms import NormFacts, norm_facts

TOKENS = 3
#: Numbers in the largest matrix that a router may have.
SMALL = 2**23


@dataclass(frozen=True, slots=True)
class Observed:
    """One run of a block. inputs: of each linear layer and each norm, by name in the block. output: the block's."""

    inputs: dict[str, torch.Tensor]
    output: torch.Tensor


class Probe:
    """A block whose linear layers and norms give what they are told to.

    sizes: outputs N of each linear layer, channels of each norm, by name in the block. constants: what they give
    unless told otherwise. x: the block's input.
    """

    def __init__(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], hidden: int) -> None:
        self.block, self._args, self._kwargs = block, args, kwargs
        self.linears = {name: module for name, module in block.named_modules() if is_linear(module)}
        facts = {name: norm_facts(module) for name, module in block.named_modules() if not is_linear(module)}
        self.norms: dict[str, NormFacts] = {name: found for name, found in facts.items() if found is not None}
        self.sizes = {name: rows(module) for name, module in self.linears.items()}
        self.sizes |= {name: found.size for name, found in self.norms.items()}
        generator = torch.Generator().manual_seed(1)
        # Positive, so that a ReLU lets them pass.
        self.constants = {name: torch.rand(size, generator=generator) + 0.5 for name, size in self.sizes.items()}
        self.x = torch.rand(1, TOKENS, hidden, generator=generator) + 0.5

    @property
    def make(self) -> object:
        """The same for blocks that are wired alike."""
        return type(self.block), tuple(sorted(self.sizes.items()))

    def run(self, given: Mapping[str, torch.Tensor] | None = None, x: torch.Tensor | None = None) -> Observed:
        """given: outputs [N] or [tokens, N] instead of the constants. x: the block's input [1, tokens, hidden]."""
        seen: dict[str, torch.Tensor] = {}
        found = self.answer(given or {}, self.x if x is None else x, seen)
        return Observed(seen, found[0] if isinstance(found, tuple) else found)

    def answer(self, given: Mapping[str, torch.Tensor], x: torch.Tensor, seen: dict[str, torch.Tensor]) -> Any:
        """What the block's own forward returns; ``seen`` receives the layers' inputs."""
        outputs = {**self.constants, **given}
        with filled(self.block), ExitStack() as stack:
            for name in self.sizes:
                stands_in = partial(give, name, outputs[name], seen)
                stack.enter_context(forward_of(self.block.get_submodule(name), stands_in))
            return type(self.block).forward(self.block, x, *self._args, **self._kwargs)


def is_linear(module: nn.Module) -> bool:
    """nn.Linear, its subclasses, and GPT-2's Conv1D."""
    return isinstance(module, nn.Linear) or is_transposed(module)


def rows(module: nn.Module) -> int:
    """Outputs N of a linear layer."""
    weight: torch.Tensor = module.weight  # type: ignore[assignment]
    return weight.shape[1] if is_transposed(module) else weight.shape[0]


def give(
    name: str, output: torch.Tensor, seen: dict[str, torch.Tensor], inputs: torch.Tensor, *_: Any, **__: Any
) -> torch.Tensor:
    """Stands in for a layer: notes its input and returns ``output``, the same for every token or one row a token."""
    seen[name] = inputs
    shape = (*inputs.shape[:-1], output.shape[-1])
    return (output.expand(shape) if output.dim() == 1 else output.reshape(shape)).clone()


@contextmanager
def forward_of(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Within, calling the module calls ``forward``."""
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]


@torch.inference_mode()
def probes(model: Any) -> list[Probe]:
    """One probe a decoder block of a model of transformers, in order; its weights may be on the meta device."""
    found: list[Probe] = []

    def visit(block: nn.Module, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        found.append(Probe(block, args, kwargs, hidden.shape[-1]))
        return found[-1].answer({}, found[-1].x, {})

    with filled(model), ExitStack() as stack:
        for block in find_blocks(model):
            stack.enter_context(forward_of(block.module, partial(_by_position, visit, block.module)))
        tokens = torch.zeros(1, TOKENS, dtype=torch.int64)
        model.base_model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
    return found


def _by_position(visit: Callable[..., Any], block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Hidden states first, whether they came by position or by name."""
    return visit(block, *args, **kwargs) if args else visit(block, kwargs.pop("hidden_states"), **kwargs)


@contextmanager
def filled(model: nn.Module) -> Iterator[None]:
    """Stand-ins for all parameters while this lasts: ones, of one number in memory; small matrices random.

    The matrices that matter so are routers of classes of their own, which must be seen to depend on their input.
    """
    held = [(module, dict(module._parameters)) for module in model.modules() if module._parameters]
    for module, parameters in held:
        for name, parameter in parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(_stand_in(module, parameter), requires_grad=False)
    try:
        yield
    finally:
        for module, parameters in held:
            module._parameters.update(parameters)


def _stand_in(module: nn.Module, parameter: torch.Tensor) -> torch.Tensor:
    matters = parameter.dim() > 1 and parameter.numel() <= SMALL and not is_linear(module)
    if matters and not isinstance(module, nn.Embedding):
        return torch.randn(parameter.shape, generator=torch.Generator().manual_seed(6))
    return torch.ones((), dtype=torch.float32).expand(parameter.shape)
