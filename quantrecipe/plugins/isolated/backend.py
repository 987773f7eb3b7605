"""A backend that a worker carries out: capabilities as data, a process for the work, a fresh one to reload it."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from quantrecipe.errors import BackendError, DamageError
from quantrecipe.plugins.contract import Availability, Capabilities, Checkpoint, Job, Progress
from quantrecipe.plugins.isolated.environment import Environment

if TYPE_CHECKING:
    import torch

    from quantrecipe.plugins.isolated.remote_model import RemoteModel

#: KL in nats between the model in memory and the checkpoint reloaded, above which they are two models. The same
#: library runs the same kernels on both, so that rounding alone explains far less.
SAME_MODEL = 1e-3


@dataclass(slots=True)
class IsolatedBackend:
    """One library behind the job protocol (docs/backends/protocol.md).

    worker: the script, run by the environment's interpreter.
    """

    name: str
    able: Capabilities
    environment: Environment
    worker: Path

    def capabilities(self) -> Capabilities:
        """As its page in docs/backends says; nothing is imported."""
        return self.able

    def availability(self) -> Availability:
        """Whether the library is installed, here or in its own environment; nothing is imported."""
        if not sys.platform.startswith("linux"):
            return Availability(False, missing="Linux", remedy="run it on Linux")
        if find_spec("torch") is None:
            return Availability(False, missing="torch", remedy="pip install 'quantrecipe[run]'")
        if self.environment.python() is None:
            return Availability(
                False, missing=self.environment.library, remedy=f"qrun backends install {self.environment.name}"
            )
        return Availability(True, version=self.environment.version(), devices=self.able.devices)

    def quantize(self, job: Job) -> Checkpoint:
        """Quantize in one process, reload in another. Raises BackendError, and DamageError where the two differ."""
        import tempfile

        from quantrecipe.plugins.isolated import job_file
        from quantrecipe.plugins.isolated.process import Worker
        from quantrecipe.plugins.isolated.records import records

        with tempfile.TemporaryDirectory(prefix="quantrecipe-job-") as folder:
            scratch = Path(folder)
            began = time.perf_counter()
            with Worker(self.name, self._python(), self.worker, job_file.quantize_job(job, scratch)) as worker:
                done = worker.run(job.progress)
            seconds = time.perf_counter() - began
            job.progress.start(f"reload with {self.name}", len(job.plan.quantized), "layers")
            reloaded = self._reload(job.output_path, job.device, job.progress)
            try:
                logits = reloaded(job.witness).logits.float()
                kept = self._check(scratch / job_file.WITNESS_ANSWER, logits)
                layers = tuple(records(job, reloaded))
            finally:
                reloaded.close()
        alone = reads_alone(job)
        return Checkpoint(
            path=job.output_path,
            format=job.format,
            layers=layers,
            witness_logits=None if alone else logits,
            notes=tuple(done.get("notes", ())),
            details={
                "reads_alone": alone,
                "reload_kl": kept,
                "own_process": {"seconds": seconds, "peak_memory": done.get("peak_memory")},
            },
        )

    def load(self, checkpoint: Path, device: str) -> torch.nn.Module:
        """The checkpoint as its own library reloads it, in a process of its own; ``close()`` ends that."""
        from quantrecipe.plugins.isolated.process import Silent

        return self._reload(checkpoint, device, Silent())

    def _reload(self, checkpoint: Path, device: str, progress: Progress) -> RemoteModel:
        import tempfile

        from quantrecipe.plugins.isolated.job_file import serve_job
        from quantrecipe.plugins.isolated.process import Worker
        from quantrecipe.plugins.isolated.remote_model import RemoteModel

        with tempfile.TemporaryDirectory(prefix="quantrecipe-job-") as scratch:
            worker = Worker(self.name, self._python(), self.worker, serve_job(checkpoint, device, Path(scratch)))
            try:
                return RemoteModel(worker, progress)
            except BaseException:
                worker.close()
                raise

    def _python(self) -> Path:
        python = self.environment.python()
        if python is None:
            here = self.availability()
            raise BackendError(f"backend {self.name!r} cannot run here", limit=here.missing, remedy=here.remedy)
        return python

    def _check(self, saved: Path, reloaded: torch.Tensor) -> float | None:
        """KL between the model that was saved and what was reloaded; None where the library keeps no model to ask."""
        from safetensors.torch import load_file

        from quantrecipe.modeling.divergence import kl_divergence

        if not saved.exists():
            return None
        found = float(kl_divergence(load_file(saved)["logits"], reloaded).mean())
        if not found <= SAME_MODEL:
            raise DamageError(
                f"the checkpoint that {self.name} saved reloads to another model",
                value=f"KL {found:.3g} nats a token",
                limit=f"at most {SAME_MODEL:g}",
                remedy="another backend or format may do; the files were dropped",
            )
        return found


def reads_alone(job: Job) -> bool:
    """Whether only its own library reads the files, or computes the same from them, and so measures them.

    LLM.int8() rounds inputs, and keeps outliers, in a way of its own.
    """
    from quantrecipe.modeling.formats import READERS

    groups = job.recipe.quantization.config_groups.values()
    known = job.format in READERS or job.format == "gptq_v2"
    return not known or any(group.method.name == "llm-int8" for group in groups)
