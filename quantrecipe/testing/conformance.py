"""What a backend must keep: one test a promise. Needs pytest, torch and transformers."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from quantrecipe.errors import QuantRecipeError
from quantrecipe.modeling.folder import ModelFolder, sha256_file
from quantrecipe.plugins.contract import Backend, Checkpoint, Job
from quantrecipe.recipe import Group
from quantrecipe.testing.job import carry_out, errors_of, logits_of, make_job, original_logits, spoil
from quantrecipe.testing.model import tiny_model
from quantrecipe.testing.reference import mean_kl, relative_error, rounded

#: A backend's weights may be this many times as far from the original as round-to-nearest's: GPTQ and its like
#: move weights further to bring outputs nearer.
WEIGHT_BAND = 3.0
#: KL to the original, likewise, over round-to-nearest's with every weight of the same scheme.
OUTPUT_BAND = 1.5
#: Share of the bytes on disk that a record may be wrong by.
BYTES_BAND = 0.02
HEAVY = ("torch", "transformers")


class BackendConformance:
    """Subclass it as ``Test...``; set ``make_backend`` (a class or function at module level) and maybe ``group``.

    group: what is asked for; the default takes four bits in groups of 32 by round-to-nearest. dtype: of the model;
    for backends that store whatever they keep in 16 bits.
    """

    make_backend: ClassVar[Callable[[], Backend]]
    group: ClassVar[dict[str, Any]] = {"scheme": "w4a16-g32", "method": "rtn"}
    dtype: ClassVar[torch.dtype] = torch.float32

    @classmethod
    def backend(cls) -> Backend:
        """The backend under test."""
        return cls.make_backend()

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The tiny model."""
        return tiny_model(tmp_path_factory.mktemp("model"), cls.dtype)

    @pytest.fixture(scope="class")
    @classmethod
    def job(cls, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
        """The order that most tests look at."""
        return cls.order(model, tmp_path_factory.mktemp("out"))

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls, job: Job) -> Checkpoint:
        """What the backend made of it."""
        cls._skip_unless_available()
        return carry_out(cls.backend(), job)

    @classmethod
    def order(cls, model: Path, output: Path) -> Job:
        """A job for this backend: ``group`` for every layer but those of the last block's MLP."""
        return make_job(cls.backend(), model, output, cls.group)

    @classmethod
    def _skip_unless_available(cls) -> None:
        here = cls.backend().availability()
        if not here.available:
            pytest.skip(f"{cls.backend().name} cannot run here: {here.missing}; {here.remedy}")

    def test_capabilities_are_data(self) -> None:
        """Asked in a fresh interpreter, they import neither torch nor the library behind, and never change."""
        factory = type(self).make_backend
        code = (
            f"import sys; sys.path[:0] = {sys.path!r}; import {factory.__module__} as module\n"
            f"before = set(sys.modules); backend = module.{factory.__qualname__}()\n"
            "backend.capabilities(); backend.availability(); print(sorted(set(sys.modules) - before))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        loaded = done.stdout
        for name in HEAVY:
            assert f"'{name}'" not in loaded, f"capabilities() or availability() imports {name}"
        first, second = self.backend().capabilities(), self.backend().capabilities()
        assert dataclasses.asdict(first) == dataclasses.asdict(second)

    def test_availability_is_honest(self) -> None:
        """Where it cannot run it says what is missing and the remedy; where it can, its version."""
        here = self.backend().availability()
        if here.available:
            assert here.version, "an available backend names its version"
        else:
            assert here.missing and here.remedy, "what is missing, and the remedy"

    def test_can_do_what_it_claims(self, job: Job) -> None:
        """The scheme under test is among its capabilities."""
        able = self.backend().capabilities()
        group = Group.model_validate(type(self).group)
        assert group.weights.num_bits in able.weight_bits.get(group.weights.type, ())
        assert group.weights.strategy in able.strategies and group.method.name in able.methods
        assert job.format in able.formats

    def test_obeys_targets_and_ignore(self, job: Job, made: Checkpoint) -> None:
        """Every planned layer, and no other, is quantized; everything else reads as in the original."""
        assert {layer.name for layer in made.layers} == set(job.plan.by_name())
        original, stored = ModelFolder.open(job.model_path), stored_tensors(made)
        kept = [module.name for module in job.plan.modules if module.group is None]
        for name in kept:
            weight = f"{name}.weight"
            if weight in original and weight in stored:
                first, second = original.tensor(weight).float(), stored.tensor(weight).float()
                assert first.shape == second.shape and torch.equal(first, second), f"{name} was to stay as it is"

    def test_true_bits_per_weight(self, job: Job, made: Checkpoint) -> None:
        """Bytes in the records are those on disk, and are fewer than the original's."""
        stored = stored_tensors(made)
        for layer in made.layers:
            parts = [
                name for name in stored.names if name.startswith(f"{layer.name}.") and not name.endswith(".bias")
            ]
            found = sum(stored.info(name).nbytes for name in parts)
            assert found == pytest.approx(layer.bytes, rel=BYTES_BAND, abs=64), f"{layer.name}: bytes on disk differ"
            planned = job.plan.by_name()[layer.name].packed_bytes or 0
            assert layer.bytes >= 0.9 * planned, f"{layer.name}: fewer bytes than its codes take"

    def test_records_true_errors(self, made: Checkpoint) -> None:
        """Errors are finite, above what no rounding would give, and within a band of round-to-nearest's."""
        assert all(math.isfinite(layer.relative_error) and layer.relative_error > 0 for layer in made.layers)

    def test_reloads_to_what_was_made(self, job: Job, made: Checkpoint) -> None:
        """``load`` gives the model whose logits the checkpoint brought, within rounding."""
        found = logits_of(self.backend(), made, job.witness)
        assert bool(torch.isfinite(found).all())
        if made.witness_logits is not None:
            assert mean_kl(made.witness_logits, found) < 1e-4
        for layer, error in errors_of(self.backend(), made, job.model_path):
            assert error == pytest.approx(layer.relative_error, rel=0.05), f"{layer.name}: loads as other weights"

    def test_quality_within_a_band(self, job: Job, made: Checkpoint) -> None:
        """Neither weights nor outputs are further from the original than the reference's, by more than the band."""
        original = ModelFolder.open(job.model_path)
        group = Group.model_validate(type(self).group)
        if group.weights.type == "int":
            for layer in made.layers:
                weight = original.tensor(f"{layer.name}.weight")
                floor = relative_error(weight, rounded(weight, group.weights))
                assert layer.relative_error < WEIGHT_BAND * floor, f"{layer.name}: weights too far off"
                assert layer.relative_error > 0.3 * floor, f"{layer.name}: too good for its bits"
        truth = original_logits(job.model_path, job.witness)
        reference = original_logits(job.model_path, job.witness, group.weights, job.plan)
        found = mean_kl(truth, logits_of(self.backend(), made, job.witness))
        assert found < OUTPUT_BAND * mean_kl(truth, reference) + 1e-6
        assert found > 0, "a quantized model that computes just what the original does is none"

    def test_deterministic(self, job: Job, made: Checkpoint, tmp_path: Path) -> None:
        """The same order gives the same weight files."""
        again = carry_out(self.backend(), self.order(job.model_path, tmp_path / "again"))
        assert _weight_files(again.path) == _weight_files(made.path)

    def test_refuses_a_damaged_model(self, model: Path, tmp_path: Path) -> None:
        """A NaN in a weight is one line of ours, not a traceback of the library's, and never a checkpoint."""
        self._skip_unless_available()
        damaged = spoil(model, tmp_path / "damaged")
        with pytest.raises(QuantRecipeError) as caught:
            carry_out(self.backend(), self.order(damaged, tmp_path / "out"))
        assert "\n" not in caught.value.line()

    def test_killed_and_run_again(self, job: Job, made: Checkpoint, tmp_path: Path) -> None:
        """Killed in the middle and run again it gives the same files; what it kept for that lies in scratch alone."""
        scratch, output = tmp_path / "scratch", tmp_path / "out"
        scratch.mkdir()
        order = (type(self).make_backend, job.model_path, output, type(self).group, scratch)
        process = multiprocessing.get_context("spawn").Process(target=_run_until_killed, args=order)
        process.start()
        process.join(300)
        assert process.exitcode == -9, "it was to be killed at its first sign of progress"
        if not self.backend().capabilities().resumes:
            _empty(output)
        again = make_job(self.backend(), job.model_path, output, type(self).group, scratch)
        assert _weight_files(carry_out(self.backend(), again).path) == _weight_files(made.path)


def stored_tensors(made: Checkpoint) -> ModelFolder:
    """The checkpoint's tensors; skips the test where its format has no safetensors to look into."""
    if not any(made.path.glob("*.safetensors")):
        pytest.skip(f"{made.format} has no safetensors")
    return ModelFolder.open(made.path)


def _run_until_killed(
    make_backend: Callable[[], Backend], model: Path, output: Path, group: dict[str, Any], scratch: Path
) -> None:
    """Carry an order out; SIGKILL at the first unit of progress."""
    backend = make_backend()
    carry_out(backend, make_job(backend, model, output, group, scratch, killed=True))


def _weight_files(folder: Path) -> dict[str, str]:
    """sha256 of every tensor by name; of whole files for formats without safetensors.

    Not of safetensors files, whose header lists its metadata in random order.
    """
    if any(folder.glob("*.safetensors")):
        stored = ModelFolder.open(folder)
        return {name: _digest(stored.tensor(name)) for name in stored.names}
    return {path.name: sha256_file(path) for path in sorted(folder.glob("*.gguf"))}


def _digest(tensor: torch.Tensor) -> str:
    data = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return f"{tensor.dtype} {list(tensor.shape)} {hashlib.sha256(data).hexdigest()}"


def _empty(folder: Path) -> None:
    """What the runner does with the output of a backend that does not resume."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
