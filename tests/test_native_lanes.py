"""Batches that meet at each layer: every activation once, Hessians shared, routes that differ."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from quantrecipe.plugins.native.hessian import Hessian
from quantrecipe.plugins.native.lanes import Lanes
from quantrecipe.plugins.native.walk import walk_block


class Block(nn.Module):
    """q and k see the same tensor; o sees what they give. route: even batches skip ``side``."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.o = (nn.Linear(8, 8, bias=False) for _ in range(3))
        self.side = nn.Linear(8, 8, bias=False)
        self.routed = False
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        normed = x / x.norm(dim=-1, keepdim=True)
        y = self.o(self.q(normed) * self.k(normed))
        if self.routed and float(x[0, 0]) > 0:
            y = y + self.side(normed)
        return x + y


def batches() -> list[torch.Tensor]:
    made = [torch.randn(5, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    for index, batch in enumerate(made):
        batch[0, 0] = 1.0 if index % 2 else -1.0
    return made


def layers_of(block: Block, *names: str) -> dict[str, nn.Module]:
    return {name: block.get_submodule(name) for name in names}


@torch.no_grad()
def test_one_pass_gives_what_two_passes_give() -> None:
    one, two = Block(), Block()
    seen: dict[str, Hessian] = {}

    def double(block: Block, name: str) -> None:
        block.get_submodule(name).weight.mul_(2)  # type: ignore[operator]

    def quantize(name: str, hessian: Hessian) -> None:
        seen[name] = hessian
        double(one, name)

    outputs = walk_block(one, batches(), layers_of(one, "q", "k", "o"), quantize)
    for name in ("q", "k", "o"):
        double(two, name)
    assert all(torch.equal(got, two(batch)) for got, batch in zip(outputs, batches(), strict=True))
    assert one.calls == 4
    assert seen["q"] is seen["k"] and seen["o"] is not seen["q"]


@torch.no_grad()
def test_hessians_come_from_the_layers_already_quantized() -> None:
    block = Block()
    found: dict[str, torch.Tensor] = {}

    def quantize(name: str, hessian: Hessian) -> None:
        found[name] = hessian.matrix()
        block.get_submodule(name).weight.zero_()  # type: ignore[operator]

    walk_block(block, batches(), layers_of(block, "q", "k", "o"), quantize)
    assert float(found["q"].abs().sum()) > 0
    assert float(found["o"].abs().sum()) == 0


@torch.no_grad()
def test_routes_that_differ_fall_back_to_two_passes() -> None:
    block = Block()
    block.routed = True
    tokens: dict[str, int] = {}

    def quantize(name: str, hessian: Hessian) -> None:
        tokens[name] = hessian.tokens

    outputs = walk_block(block, batches(), layers_of(block, "q", "k", "o", "side"), quantize)
    assert tokens == {"q": 20, "k": 20, "o": 20, "side": 10}
    assert all(torch.equal(got, block(batch)) for got, batch in zip(outputs, batches(), strict=True))


@torch.no_grad()
def test_a_layer_that_is_never_reached_is_quantized_all_the_same() -> None:
    block = Block()
    tokens: dict[str, int] = {}

    def quantize(name: str, hessian: Hessian) -> None:
        tokens[name] = hessian.tokens

    outputs = walk_block(block, batches(), layers_of(block, "q", "side"), quantize)
    assert tokens == {"q": 20, "side": 0} and len(outputs) == 4


@torch.no_grad()
def test_leaves_off_behind_the_last_layer() -> None:
    block = Block()
    done: list[str] = []
    assert walk_block(block, batches(), layers_of(block, "q", "k"), lambda name, _: done.append(name), False) == []
    assert done == ["q", "k"]
    assert not block.q._forward_pre_hooks


@torch.no_grad()
def test_an_error_in_the_block_reaches_the_caller() -> None:
    block = Block()

    def run(batch: torch.Tensor) -> torch.Tensor:
        block(batch)
        raise ValueError("from inside")

    with pytest.raises(ValueError, match="from inside"):
        walk_block(run, batches(), layers_of(block, "q"), lambda *_: None)
    assert not block.q._forward_pre_hooks


@torch.no_grad()
def test_batches_are_given_up_as_the_lanes_take_them() -> None:
    block, waiting = Block(), batches()
    with Lanes(block, waiting, {}) as lanes:
        assert list(lanes.meetings()) == []
        assert len(lanes.outputs) == 4 and not waiting
