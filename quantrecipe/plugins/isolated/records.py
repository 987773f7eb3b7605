"""What became of each layer in a checkpoint that another library wrote."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from quantrecipe.errors import DamageError
from quantrecipe.modeling.digest import digest
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats import READERS, method_of, quantization_config, reader_of
from quantrecipe.modeling.formats.reader import Reader
from quantrecipe.modeling.plan import PlannedModule
from quantrecipe.modeling.skeleton import Skeleton, is_transposed
from quantrecipe.modeling.stream import compute_dtype
from quantrecipe.plugins.contract import Job, LayerRecord
from quantrecipe.plugins.isolated.remote_model import RemoteModel

#: Relative distance between two readers of one weight: each may round it once, to bf16 at the coarsest.
READERS_AGREE = 2.0**-7


def records(job: Job, reloaded: RemoteModel) -> Iterator[LayerRecord]:
    """One record a planned module, its weight asked of the library that reloaded the checkpoint.

    Raises DamageError where a weight is not finite or lost all likeness to the original.
    """
    folder = ModelFolder.open(job.model_path)
    skeleton = Skeleton(folder, job.trust_remote_code)
    made = _safetensors(job.output_path)
    reader = _reader(made) if made else None
    stored = stored_bytes(made, job.plan.by_name()) if made else {}
    dtype = compute_dtype(skeleton.dtype, job.device)
    for planned in job.plan.quantized:
        name = skeleton.stored_name(f"{planned.name}.weight")
        weight = folder.tensor(name).float()
        if is_transposed(skeleton.model.get_submodule(planned.name)):
            weight = weight.t()
        served = reloaded.weight(planned.name, planned.info.columns)
        read = reader.decode(made, name.removesuffix(".weight")).weight(dtype).to(dtype) if made and reader else None
        yield _record(planned, weight, served.float(), stored, _digest(planned.name, served, read))


def _reader(folder: ModelFolder) -> Reader | None:
    """quantrecipe's own, which goes by the format's rules; None where it knows no such format."""
    config = quantization_config(folder.config, folder.path)
    return reader_of(folder) if config and method_of(config) in READERS else None


def _digest(name: str, served: torch.Tensor, read: torch.Tensor | None) -> str:
    """sha256 of the weight as the format has it, once both readers agree on it. Raises DamageError."""
    if read is None:
        return ""
    apart = float((served.float() - read.float()).norm() / read.float().norm().clamp_min(1e-30))
    if not apart <= READERS_AGREE:
        raise DamageError(
            "the backend's own loader and the format's rules read different weights",
            value=f"{name}: {apart:.3g} apart, relative",
            limit=f"at most {READERS_AGREE:g}",
        )
    return digest(read)


def _safetensors(folder: Path) -> ModelFolder | None:
    """The output as a folder of safetensors; None for a format that has none."""
    return ModelFolder.open(folder) if any(folder.glob("*.safetensors")) else None


def stored_bytes(model: ModelFolder, modules: Iterable[str]) -> dict[str, int]:
    """Bytes of the tensors that stand for each module's weight in the files: all under its name but a bias."""
    names = model.names
    found = {}
    for module in modules:
        first, last = (bisect_left(names, f"{module}{end}") for end in (".", "/"))  # "/" follows "." in ASCII
        found[module] = sum(model.info(name).nbytes for name in names[first:last] if name != f"{module}.bias")
    return found


def _record(
    planned: PlannedModule, weight: torch.Tensor, served: torch.Tensor, stored: dict[str, int], sha256: str
) -> LayerRecord:
    assert planned.group is not None
    if served.shape != weight.shape or not bool(torch.isfinite(served).all()):
        raise DamageError("the backend's checkpoint reloads with a damaged layer", value=planned.name)
    return LayerRecord(
        name=planned.name,
        scheme=planned.group.scheme.name,
        method=planned.group.method.name,
        rows=weight.shape[0],
        columns=weight.shape[1],
        bytes=stored.get(planned.name) or planned.packed_bytes or 0,
        relative_error=float((weight - served).norm() / weight.norm().clamp_min(1e-30)),
        output_error=None,
        digest=sha256,
        seconds=0.0,
    )
