"""The model that is trained, whole in memory, and the modules in it that will be quantized."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from quantrecipe.errors import BackendError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.modeling.stream import compute_dtype
from quantrecipe.plugins.contract import Job
from quantrecipe.plugins.native.checks import check_job
from quantrecipe.plugins.native.formats import format_named
from quantrecipe.plugins.native.layers import Layer
from quantrecipe.plugins.native.methods.rtn import rtn
from quantrecipe.plugins.native.qparams import Matrix, Storage
from quantrecipe.recipe import Group


@dataclass(frozen=True, slots=True)
class Subject:
    """A job's model as it is stored. stored: the type of its matrices; computed: what readers compute in."""

    job: Job
    skeleton: Skeleton
    storage: Storage
    stored: torch.dtype
    computed: torch.dtype

    @classmethod
    def of(cls, job: Job) -> Subject:
        """Raises BackendError where the backend cannot carry the job out."""
        skeleton = Skeleton(ModelFolder.open(job.model_path), job.trust_remote_code)
        form = format_named(job.format, any(not one.info.is_plain for one in job.plan.quantized))
        check_job(job, form)
        expert = next((planned.name for planned in job.plan.quantized if planned.info.is_expert), None)
        if expert is not None or skeleton.fused:
            raise BackendError("mixtures of experts are not trained", value=expert, remedy="method zq-global or gptq")
        computed = compute_dtype(skeleton.dtype, job.device)
        return cls(job, skeleton, form.storage(skeleton.dtype, computed), skeleton.dtype, computed)

    def model(self, dtype: torch.dtype) -> Any:
        """The whole model of transformers, nothing in it learned yet."""
        import transformers

        factory: Any = transformers.AutoModelForCausalLM
        model = factory.from_pretrained(
            self.job.model_path,
            dtype=dtype,
            trust_remote_code=self.job.trust_remote_code,
            local_files_only=True,
        )
        return model.to(self.job.device).eval().requires_grad_(False)

    def layers(self, model: Any) -> Iterator[Layer]:
        """The modules that will be quantized."""
        for planned in self.job.plan.quantized:
            assert planned.group is not None
            yield Layer.of(planned, planned.group, model.get_submodule(planned.name))

    def rounded(self, group: Group, weight: torch.Tensor) -> Matrix:
        """A weight [N, K] as it will be written: stored in the model's own type, then rounded to nearest."""
        return rtn(weight.detach().to(self.stored).float(), group.weights, self.storage)

    def served(self, matrix: Matrix) -> torch.Tensor:
        """The weight [N, K] that readers will compute with."""
        return matrix.served(self.storage, self.computed)
