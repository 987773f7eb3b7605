"""Steps of AdamW on fp32 copies of what is learned, whatever the model computes in; its state as plain tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from quantrecipe.plugins.training.precision import Numbers

#: Share of the steps that the learning rate rises over; the longest gradient.
WARM_UP, LONGEST = 0.05, 1.0
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class Trainer:
    """learned: the model's parameters that are, by name. steps: of the whole training. rate: the highest."""

    def __init__(
        self, learned: Mapping[str, nn.Parameter], numbers: Numbers, steps: int, rate: float, device: str
    ) -> None:
        self.learned, self.numbers, self.steps, self.rate, self.device = learned, numbers, steps, rate, device
        self.masters = {
            name: one if one.dtype == torch.float32 else nn.Parameter(one.detach().float())
            for name, one in learned.items()
        }
        self._optimizer = torch.optim.AdamW(self.masters.values(), lr=rate, weight_decay=0.0)
        self._scaler = torch.amp.GradScaler(device, enabled=numbers.scales, growth_interval=100)

    def step(self, number: int, loss: Callable[[], torch.Tensor]) -> float:
        """Step ``number``, from 0; the loss before it. A step whose gradients overflow fp16 is left out."""
        with torch.enable_grad():
            with self.numbers.computing(self.device):
                found = loss()
            self._scaler.scale(found).backward()  # type: ignore[no-untyped-call]
        for name, master in self.masters.items():
            gradient = self.learned[name].grad
            if gradient is not None and master is not self.learned[name]:
                master.grad, self.learned[name].grad = gradient.float(), None
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(self.masters.values(), LONGEST)
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate * share(number, self.steps)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()
        self._show()
        return float(found.detach())

    @torch.no_grad()
    def _show(self) -> None:
        """Give the model what its fp32 copies have become."""
        for name, master in self.masters.items():
            if master is not self.learned[name]:
                self.learned[name].copy_(master)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """All that a training which goes on needs: tensors, and the state of the loss scaling."""
        tensors = {f"weight.{name}": master.detach() for name, master in self.masters.items()}
        for name, master in self.masters.items():
            held = self._optimizer.state.get(master, {})
            tensors |= {f"{moment}.{name}": held[moment] for moment in _MOMENTS if moment in held}
        return tensors, self._scaler.state_dict()

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, torch.Tensor], scaling: dict[str, Any]) -> None:
        """Go on from what ``state`` gave."""
        for name, master in self.masters.items():
            master.copy_(tensors[f"weight.{name}"])
            found = {moment: tensors.get(f"{moment}.{name}") for moment in _MOMENTS}
            if found["step"] is not None:
                held = {moment: one.clone() for moment, one in found.items() if one is not None}
                self._optimizer.state[master] = held | {"step": held["step"].cpu()}
        self._scaler.load_state_dict(scaling)
        self._show()


def share(number: int, steps: int) -> float:
    """Of the highest learning rate, at step ``number`` from 0: up in ``WARM_UP`` of the steps, then down to 0."""
    rising = max(1, round(WARM_UP * steps))
    return min((number + 1) / rising, (steps - number) / max(1, steps - rising + 1))
