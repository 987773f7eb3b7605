"""What a writer of a checkpoint format does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch

from quantrecipe.errors import BackendError
from quantrecipe.modeling.plan import Plan
from quantrecipe.plugins.native.qparams import Matrix, Storage


class Format(Protocol):
    """A checkpoint format: how grids are stored, which tensors stand for a matrix, what the config says."""

    @property
    def name(self) -> str:
        """The recipe's name for it."""

    @property
    def unties(self) -> bool:
        """Whether its files hold a head that is tied to the embedding once more."""

    def check(self, plan: Plan) -> None:
        """Raises BackendError where the format, or its readers, cannot hold the plan."""

    def storage(self, model_dtype: torch.dtype, compute_dtype: torch.dtype) -> Storage:
        """How grids are kept beside weights stored in ``model_dtype``, for loaders that use ``compute_dtype``."""

    def tensors(self, matrix: Matrix, as_bytes: bool) -> Iterable[tuple[str, torch.Tensor]]:
        """(suffix, tensor) of one module. as_bytes: ``PlannedModule.as_bytes``."""

    def config(self, plan: Plan) -> dict[str, Any]:
        """The ``quantization_config`` of config.json."""

    def extra_files(self, plan: Plan) -> dict[str, dict[str, Any]]:
        """JSON files beside config.json, by name."""

    def stored_name(self, stored: str, parameter: str, prefix: str) -> str:
        """Name to write for a tensor stored as ``stored`` that is ``parameter`` in the model.

        prefix: of the model without its head, such as ``transformer``.
        """


def refuse_matrix(form: str, matrix: Matrix) -> BackendError:
    """The error of a format that has no place for a number type."""
    kind = type(matrix).__name__
    return BackendError(
        f"format {form} cannot hold {matrix.args.num_bits}-bit {matrix.args.type} weights so",
        value=kind,
        remedy="set format: auto",
    )
