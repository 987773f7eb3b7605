"""The layer-wise Hessian H = 2 X X^T of GPTQ (arXiv:2210.17323, section 2), kept in one matrix with its factor."""

from __future__ import annotations

from collections.abc import Callable

import torch

from quantrecipe.errors import BackendError
from quantrecipe.plugins.native.factor import Factor, Setting, column_order, factorize_
from quantrecipe.plugins.native.observers import Observed
from quantrecipe.plugins.native.triangular import blocks, mirror_, permute_

STRIPS = 4


class Hessian:
    """H = (2 / n) sum_t x_t x_t^T over n tokens, fp32 [K, K], shared by all layers with this input.

    There is one matrix of this size: the factor is computed inside it, beside the other triangle of H, from which
    H comes back when it is asked for another setting.
    """

    def __init__(self, columns: int, device: torch.device | str = "cpu") -> None:
        self.tokens = 0
        self.observed = Observed()
        self._held = torch.zeros(columns, columns, dtype=torch.float32, device=device)
        self._diagonal: torch.Tensor | None = None  # of H, once it is whole; in the order of ``_order``
        self._order: torch.Tensor | None = None
        self._factor: tuple[Setting, Factor] | None = None

    def add(self, inputs: torch.Tensor) -> None:
        """Accumulate inputs [..., K] of any float dtype; not after ``matrix``, ``factor`` or ``energy``."""
        flat = inputs.reshape(-1, inputs.shape[-1])
        self.observed.add(flat)
        add_lower_product(self._held, flat, self.tokens)
        self.tokens += len(flat)

    @property
    def dead(self) -> int:
        """How many inputs were always zero."""
        diagonal = self._held.diagonal() if self._diagonal is None else self._diagonal
        return int((diagonal == 0).sum())

    def matrix(self, name: str = "a layer") -> torch.Tensor:
        """H itself, symmetric; what ``factor`` gave is no longer valid.

        Raises BackendError where an activation was NaN or infinite.
        """
        self._restore(name)
        self._arrange(None)
        return self._held

    def diagonal(self, name: str = "a layer") -> torch.Tensor:
        """H's diagonal [K], in the order of the inputs; a factor stays valid. Raises BackendError as ``matrix``."""
        if self._diagonal is None:
            self.matrix(name)
        found = self._whole_diagonal()
        return found.clone() if self._order is None else torch.empty_like(found).index_copy_(0, self._order, found)

    def factor(self, setting: Setting, name: str, note: Callable[[str], None]) -> Factor:
        """The factor for one setting, kept for the next layer that shares this input; valid until another is asked.

        A dead column gets a diagonal of 1: nothing is compensated for it or through it.
        """
        if self._factor is None or self._factor[0] != setting:
            self.matrix(name)
            diagonal = self._whole_diagonal()
            alive = torch.where(diagonal == 0, 1, diagonal)
            order = column_order(alive, setting)
            self._arrange(order)
            in_order = alive if order is None else alive[order]
            share = factorize_(self._held, in_order, setting.dampening, name, note)
            dead = int((diagonal == 0).sum())
            self._factor = setting, Factor(self._held, order, share, dead, setting.group_size)
        return self._factor[1]

    def energy(self, weight: torch.Tensor) -> float:
        """tr(W H W^T) of fp32 W [N, K]: twice the mean over tokens of ||W x||^2."""
        if self._diagonal is None:
            self.matrix()
        W = weight if self._order is None else weight[:, self._order]
        total = float((W.square() @ self._whole_diagonal()).sum())
        for start, stop in blocks(W.shape[1]):
            rows = self._held[start:stop, :stop].tril(start - 1)
            total += 2 * float(((W[:, start:stop] @ rows) * W[:, :stop]).sum())
        return max(total, 0.0)

    def _whole_diagonal(self) -> torch.Tensor:
        assert self._diagonal is not None
        return self._diagonal

    def _restore(self, name: str) -> None:
        """H symmetric again, in whichever order; scaled and checked when first asked for."""
        if self._diagonal is None:
            if not torch.isfinite(self._held.diagonal()).all():
                raise BackendError(
                    f"an input of {name} is NaN or infinite on the calibration text",
                    remedy="run the original model on that text first; fp16 models may overflow, try bf16 or fp32",
                )
            self._held.mul_(2 / max(self.tokens, 1))
            self._diagonal = self._held.diagonal().clone()
        self._held.diagonal().copy_(self._diagonal)
        mirror_(self._held, lower=True)
        self._factor = None

    def _arrange(self, order: torch.Tensor | None) -> None:
        """Bring a symmetric H from the order it is in to another."""
        index = order
        if self._order is not None:
            index = torch.argsort(self._order) if order is None else torch.argsort(self._order)[order]
        if index is not None:
            permute_(self._held, index)
            self._diagonal = self._whole_diagonal()[index]
        self._order = order


def add_lower_product(lower: torch.Tensor, inputs: torch.Tensor, tokens: int = 0) -> None:
    """Add X^T X of inputs X [T, K] to the lower triangle of ``lower``; above it, anything.

    lower: fp32 [K, K], the sum over ``tokens`` tokens so far. Strips of rows stop at the diagonal: with 4
    strips 62.5 % of the full product's work.
    """
    height = -(-inputs.shape[1] // STRIPS)
    fast = tokens > 0 and _has_fast_bf16(inputs)
    x = inputs if fast else inputs.float()
    for start in range(0, inputs.shape[1], height):
        part = lower[start : start + height, : start + height]
        left, right = x[:, start : start + height].t(), x[:, : start + height]
        if fast:
            _add_bf16_product(part, left, right, len(x) / tokens)
        else:
            part.addmm_(left, right)


def _add_bf16_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, share: float) -> None:
    """Add a bf16 product to an fp32 total, about 1.7 times as fast as in fp32 (Zen 4, one thread).

    A CPU's bf16 product is summed in fp32 but returned in bf16, 0.17 % off: enough to make a Hessian
    indefinite. So what the total predicts (``share`` of it, rounded to bf16) is taken off inside the product
    and only the difference is rounded, then both are added in fp32: on synthetic data 7 to 10 times less
    error than rounding the product itself, still some 500 times fp32's.
    """
    predicted = (total * share).to(left.dtype)
    difference = torch.addmm(predicted, left, right, beta=-1)
    total.add_(predicted).add_(difference)


def _has_fast_bf16(inputs: torch.Tensor) -> bool:
    """Whether bf16 products run in hardware on this CPU (AVX512-BF16, AMX)."""
    if inputs.device.type != "cpu" or inputs.dtype != torch.bfloat16:
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
