"""Where a model's files are: a folder, the demo, the hub's cache, or nowhere yet (then the catalogue's shapes)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from quantrecipe.catalog import lookup
from quantrecipe.errors import ModelError, did_you_mean
from quantrecipe.model import Matrix, ModelSpec
from quantrecipe.modeling.skeleton import Kind, LinearInfo, local_path

SMALL_MODEL_ALIAS = "demo"


def find_offline(model_id: str, revision: str | None = None) -> Path | None:
    """The model's folder if it is on this machine, without asking the network; None where it is not."""
    if model_id == SMALL_MODEL_ALIAS:
        return local_path(model_id)
    path = Path(model_id).expanduser()
    if path.exists():
        return path
    return _cached(model_id, revision)


def _cached(model_id: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        if not isinstance(try_to_load_from_cache(model_id, "config.json", revision=revision), str):
            return None
        return Path(snapshot_download(model_id, revision=revision, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError, ValueError):
        return None


def find(model_id: str, revision: str | None = None) -> Path:
    """The model's folder; asks the hub where it is not on this machine. Raises ModelError."""
    found = find_offline(model_id, revision)
    if found is not None:
        return found
    spec = lookup.find(model_id)
    hub_id = spec.hub_id if spec and spec.hub_id and "/" not in model_id else model_id
    if "/" not in hub_id:
        raise _unknown(model_id)
    return find_offline(hub_id, revision) or local_path(hub_id)


def _unknown(model_id: str) -> ModelError:
    near = did_you_mean(model_id, [*lookup.names(), SMALL_MODEL_ALIAS])
    return ModelError(
        "unknown model",
        value=model_id,
        limit="a folder with config.json, 'demo', a catalogue name or a hub id",
        remedy=near,
    )


def catalogue_spec(model_id: str) -> ModelSpec:
    """The catalogue's shapes of a model that is not here. Raises ModelError where it has none."""
    spec = lookup.find(model_id)
    if spec is None:
        raise _unknown(model_id)
    return spec


def linears(spec: ModelSpec) -> list[LinearInfo]:
    """The catalogue's matrices as the modules that a recipe is laid over."""
    found = [info for matrix in spec.matrices for info in _modules(matrix, spec)]
    if not any(info.is_head for info in found):
        table = next(matrix for matrix in spec.matrices if matrix.group == "embeddings")
        found.append(LinearInfo("lm_head", "Linear", table.rows, table.columns, None, True, spec.tied))
    return found


def _modules(matrix: Matrix, spec: ModelSpec) -> Iterator[LinearInfo]:
    odd = matrix.quantizable and not spec.plain_linear
    kind: Kind = "Embedding" if matrix.group == "embeddings" else "LinearSubclass" if odd else "Linear"
    if matrix.group == "router" and matrix.rows > 1:  # a class of its own; the gate of a shared expert is a Linear
        kind = "Other"
    each = max(spec.experts, 1) if "{e}" in matrix.name else 1
    head = matrix.group == "head"
    for index in range(matrix.count):
        layer, expert = divmod(index, each)
        name = matrix.name.replace("{i}", str(layer)).replace("{e}", str(expert))
        block = layer if "{i}" in matrix.name else None
        router = matrix.group == "router"
        yield LinearInfo(name, kind, matrix.rows, matrix.columns, block, head, head and spec.tied, router)
