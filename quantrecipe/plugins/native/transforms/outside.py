"""What lies before the first block and behind the last one, and whether the residual stream passes it unmixed.

As in probe.py, the model's own forward runs with numbers of ours: blocks hand their input on, embeddings and norms
give constants, the head notes what it receives.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from quantrecipe.modeling.skeleton import find_blocks
from quantrecipe.plugins.native.transforms.norms import NormFacts, norm_facts
from quantrecipe.plugins.native.transforms.observe import close
from quantrecipe.plugins.native.transforms.probe import TOKENS, filled, forward_of, give, is_linear, rows
from quantrecipe.plugins.native.transforms.residual import is_multiple

BLOCKS = "the blocks"


@dataclass(frozen=True, slots=True)
class Outside:
    """embeddings: tables whose rows are added to the stream. norm: the last one, in front of ``head``.

    fault: why the stream cannot be rotated here; None where it can.
    """

    embeddings: tuple[str, ...] = ()
    norm: str = ""
    facts: NormFacts | None = None
    head: str = ""
    fault: str | None = None


class Trial:
    """One model whose parts outside the blocks are replaced; blocks hand on what they are given."""

    def __init__(self, model: Any, blocks_return_tuples: bool) -> None:
        self.model, self._tuples = model, blocks_return_tuples
        self.blocks = [block.module for block in find_blocks(model)]
        inside = {id(part) for block in self.blocks for part in block.modules()}
        parts = {name: part for name, part in model.named_modules() if id(part) not in inside}
        self.tables = {name: part for name, part in parts.items() if isinstance(part, nn.Embedding)}
        self.linears = {name: part for name, part in parts.items() if is_linear(part)}
        self.norms = {name: facts for name, part in parts.items() if (facts := norm_facts(part)) is not None}
        sizes = {name: table.embedding_dim for name, table in self.tables.items()}
        sizes |= {name: facts.size for name, facts in self.norms.items()}
        sizes |= {name: rows(part) for name, part in self.linears.items()}
        generator = torch.Generator().manual_seed(7)
        self.constants = {name: torch.rand(size, generator=generator) + 0.5 for name, size in sizes.items()}

    def run(self, name: str | None = None, change: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """What each part receives, in the order of the calls; ``BLOCKS`` for the first block.

        name, change: one part gives its constant and this more.
        """
        seen: dict[str, torch.Tensor] = {}
        with filled(self.model), ExitStack() as stack:
            for part, constant in self.constants.items():
                output = constant if change is None or part != name else constant + change
                look = (
                    partial(_look_up, part, output, seen)
                    if part in self.tables
                    else partial(give, part, output, seen)
                )
                stack.enter_context(forward_of(self.model.get_submodule(part), look))
            for block in self.blocks:
                stack.enter_context(forward_of(block, partial(self._pass, seen)))
            tokens = torch.zeros(1, TOKENS, dtype=torch.int64)
            self.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
        return seen

    def _pass(self, seen: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        seen.setdefault(BLOCKS, hidden)
        return (hidden, None) if self._tuples else hidden


def _look_up(name: str, output: torch.Tensor, seen: dict[str, torch.Tensor], *_: Any, **__: Any) -> torch.Tensor:
    """Stands in for an embedding: every token has the same row."""
    seen[name] = output
    return output.expand(1, TOKENS, len(output)).clone()


@torch.inference_mode()
def outside(model: Any, head: str | None, blocks_return_tuples: bool) -> Outside:
    """What the residual stream meets outside the blocks of a model of transformers."""
    trial = Trial(model, blocks_return_tuples)
    base = trial.run()
    change = torch.randn(base[BLOCKS].shape[-1], generator=torch.Generator().manual_seed(8))
    before, behind = _split(list(base))
    tables = tuple(name for name in before if name in trial.tables)
    odd = next((name for name in before if name not in trial.tables), None)
    if odd is not None:
        return Outside(fault=f"{odd} stands between the embeddings and the first block")
    if len(behind) != 2 or behind[0] not in trial.norms or behind[1] != head:
        return Outside(fault="a norm and the head are not all that follows the last block")
    for name in tables:
        moved = trial.run(name, change)
        if not all(is_multiple(moved[place] - base[place], change) for place in (BLOCKS, behind[0])):
            return Outside(fault=f"{name} does not enter the residual stream as it is")
    moved = trial.run(behind[0], change)
    if not close(moved[head] - base[head], change.expand_as(base[head])):
        return Outside(fault=f"the head does not read what {behind[0]} gives as it is")
    return Outside(tables, behind[0], trial.norms[behind[0]], head)


def _split(order: list[str]) -> tuple[list[str], list[str]]:
    place = order.index(BLOCKS)
    return order[:place], order[place + 1 :]
