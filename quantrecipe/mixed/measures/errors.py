"""Cheap errors of one layer under each of its options, from its weight and the Hessian of its inputs.

    weight    ||W - W_q||^2_F                                   against ||W||^2_F
    diagonal  sum_j H_jj ||(W - W_q)_:j||^2                     against the same of W
    hessian   tr((W - W_q) H (W - W_q)^T), H = 2/n sum x x^T    against the same of W (GPTQ's objective,
              arXiv:2210.17323, equation 1)

The first two look at rounding to nearest, which needs no solver; the third at what the option's own method gives, for
the options that are solved.
A row of the journal is (measure, layer, option, value); the option of what it is against is ''.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import nn

from quantrecipe.errors import BackendError
from quantrecipe.mixed.options import Option
from quantrecipe.plugins.native.hessian import Hessian
from quantrecipe.plugins.native.layers import check_finite, choose_codes
from quantrecipe.plugins.native.linear import get_weight
from quantrecipe.plugins.native.qparams import Storage
from quantrecipe.recipe import Group

CHEAP = ("weight", "diagonal", "hessian")


class Row(NamedTuple):
    """One figure of one layer."""

    measure: str
    layer: str
    option: str
    value: float


class Inputs(Protocol):
    """What is known of a layer's inputs: a Hessian, or only its diagonal."""

    tokens: int

    def diagonal(self, name: str) -> torch.Tensor:
        """2 / n sum_t x_t^2, fp32 [K]."""


class Squares:
    """The diagonal of a Hessian, summed without the rest."""

    def __init__(self, columns: int, device: torch.device | str) -> None:
        self.tokens = 0
        self._sum = torch.zeros(columns, dtype=torch.float32, device=device)

    def add(self, inputs: torch.Tensor) -> None:
        """Accumulate inputs [..., K]."""
        flat = inputs.reshape(-1, inputs.shape[-1])
        self._sum += flat.float().square().sum(0)
        self.tokens += len(flat)

    def diagonal(self, name: str) -> torch.Tensor:
        """As Hessian's. Raises BackendError where an activation was NaN or infinite."""
        if not torch.isfinite(self._sum).all():
            raise BackendError(f"an input of {name} is NaN or infinite on the calibration text")
        return self._sum * (2 / max(self.tokens, 1))


@dataclass(frozen=True, slots=True)
class Solver:
    """Quantizes the layers of one block under every option, and leaves the block as it is.

    options: of each layer. solved: (layer, option) to be made by the option's own method. wanted: (layer, option)
    whose weights are needed later; they go to ``weights``.
    tokens: of the calibration text, against which those that reached an expert are weighed.
    """

    modules: Mapping[str, nn.Module]
    options: Mapping[str, Collection[Option]]
    solved: Collection[tuple[str, Option]]
    wanted: Collection[tuple[str, Option]]
    storage: Storage
    tokens: int
    note: Callable[[str], None]
    weights: dict[tuple[str, Option], torch.Tensor] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def look(self, name: str, inputs: Inputs | None) -> None:
        """One layer; inputs None: outside the blocks, where nothing is known of them."""
        weight = get_weight(self.modules[name])
        check_finite(weight, name)
        seen = inputs if inputs is not None and inputs.tokens else None
        diagonal = None if seen is None else seen.diagonal(name) * (seen.tokens / self.tokens)
        self._add("weight", name, "", float(weight.square().sum()))
        if diagonal is not None:
            self._add("diagonal", name, "", float(weight.square().sum(0) @ diagonal))
        if isinstance(seen, Hessian):
            self._add("hessian", name, "", seen.energy(weight) * seen.tokens / self.tokens)
        for option in self.options[name]:
            self._option(name, option, weight, seen, diagonal)

    def _option(
        self,
        name: str,
        option: Option,
        weight: torch.Tensor,
        seen: Inputs | None,
        diagonal: torch.Tensor | None,
    ) -> None:
        rounded = self._served(name, group_of(option, "rtn"), weight, None)
        squares = (weight - rounded.float()).square_().sum(0)
        self._add("weight", name, str(option), float(squares.sum()))
        if diagonal is not None:
            self._add("diagonal", name, str(option), float(squares @ diagonal))
        best = rounded
        if isinstance(seen, Hessian) and (name, option) in self.solved:
            best = self._served(name, group_of(option), weight, seen)
            energy = seen.energy(weight - best.float()) * seen.tokens / self.tokens
            self._add("hessian", name, str(option), energy)
        if (name, option) in self.wanted:
            self.weights[name, option] = best

    def _served(self, name: str, group: Group, weight: torch.Tensor, hessian: Hessian | None) -> torch.Tensor:
        """The weight [N, K] as readers will compute with it."""
        codes = choose_codes(name, group, weight, self.storage, hessian, self.note)
        dtype: torch.dtype = self.modules[name].weight.dtype  # type: ignore[assignment]
        return codes.served(self.storage, dtype)

    def _add(self, measure: str, name: str, option: str, value: float) -> None:
        self.rows.append(Row(measure, name, option, value))


def group_of(option: Option, method: str | None = None) -> Group:
    """The recipe's group of an option, by its own method or another."""
    asked = option.group()
    return Group.model_validate({**asked, "method": method} if method else asked)
