"""The registry of the methods that work layer by layer.

What a method must look at is said by its class in ``quantrecipe.recipe_methods`` (``needs``). Methods that work on a
block as a whole are registered in ``stages.TUNINGS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from quantrecipe.errors import BackendError
from quantrecipe.plugins.manager import methods
from quantrecipe.plugins.native.factor import Factor, Setting
from quantrecipe.plugins.native.hessian import Hessian
from quantrecipe.plugins.native.methods.awq_clip import clipped_grid, clips
from quantrecipe.plugins.native.methods.glm_int4 import glm_int4
from quantrecipe.plugins.native.methods.gptq import gptq, gptq_on_grid
from quantrecipe.plugins.native.methods.hqq import hqq
from quantrecipe.plugins.native.methods.llm_int8 import llm_int8
from quantrecipe.plugins.native.methods.odyssey import learned_clipping
from quantrecipe.plugins.native.methods.olive import olive
from quantrecipe.plugins.native.methods.rtn import rtn
from quantrecipe.plugins.native.qparams import Matrix, Quantized, Storage, by_rows, quantize
from quantrecipe.schemes import QuantizationArgs

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Problem:
    """One layer to quantize.

    name: of the module. weight: fp32 [N, K]. method: its options. inputs: the Hessian of what reaches it, None for
    methods that need nothing. note: one line for the user.
    """

    name: str
    weight: torch.Tensor
    args: QuantizationArgs
    storage: Storage
    method: Any
    inputs: Hessian | None
    note: Note

    @property
    def hessian(self) -> Hessian:
        """Of its inputs. Raises BackendError where there is none."""
        if self.inputs is None:
            raise BackendError(f"method {self.method.name} has no inputs to look at", value=self.name)
        return self.inputs

    def factor(self) -> Factor:
        """Of the inverse Hessian, as the method's options say."""
        return self.hessian.factor(Setting.of(self.method, self.args), self.name, self.note)


def _rtn(problem: Problem) -> Matrix:
    args, storage = problem.args, problem.storage
    return by_rows(lambda weight: rtn(weight, args, storage), problem.weight, args)


def _gptq(problem: Problem) -> Matrix:
    factor, args, storage = problem.factor(), problem.args, problem.storage
    block_size = problem.method.block_size
    return by_rows(lambda weight: gptq(weight, factor, args, storage, block_size), problem.weight, args)


def _odyssey(problem: Problem) -> Matrix:
    H = problem.hessian.matrix(problem.name)
    grid = learned_clipping(problem.weight, H, problem.args, problem.storage, problem.method)
    return gptq_on_grid(problem.weight, problem.factor(), problem.args, grid, problem.method.block_size)


def _awq_clip(problem: Problem) -> Matrix:
    weight, args, storage = problem.weight, problem.args, problem.storage
    if not clips(problem.name):
        return rtn(weight, args, storage)
    grid = clipped_grid(weight, problem.hessian.matrix(problem.name), args, storage, problem.method)
    return Quantized(quantize(weight, grid, args.num_bits), grid, args)


SOLVERS: dict[str, Callable[[Problem], Matrix]] = {
    "rtn": _rtn,
    "glm-int4": lambda problem: glm_int4(problem.weight, problem.args, problem.storage),
    "hqq": lambda problem: hqq(problem.weight, problem.args, problem.storage, problem.method),
    "llm-int8": lambda problem: llm_int8(problem.weight, problem.args),
    "olive": lambda problem: olive(problem.weight, problem.args, problem.storage, problem.method),
    "gptq": _gptq,
    "odyssey": _odyssey,
    "awq-clip": _awq_clip,
}


def solve(problem: Problem) -> Matrix:
    """The layer's quantized matrix, by one of ours or a plugin's method. Raises BackendError for an unknown one."""
    name = problem.method.name
    solver = SOLVERS.get(name) or methods().get(name)
    if solver is None:
        raise BackendError("the native backend has no such method", value=name, limit=", ".join(SOLVERS))
    matrix: Matrix = solver(problem)
    return matrix
