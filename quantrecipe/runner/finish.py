"""What stands beside the weights: config, tokenizer, recipe and provenance. Nothing of it holds a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantrecipe import __version__
from quantrecipe.errors import BackendError
from quantrecipe.modeling.adapter import ADAPTER, has_adapter
from quantrecipe.modeling.files import copy_file
from quantrecipe.modeling.folder import sha256_file
from quantrecipe.modeling.stream import compute_dtype
from quantrecipe.modeling.writer import write_json, write_text
from quantrecipe.plugins.contract import Checkpoint
from quantrecipe.recipe_file import dump_recipe
from quantrecipe.runner.environment import environment
from quantrecipe.runner.preflight import Prepared

PROVENANCE, RECIPE, RESULTS = "provenance.json", "recipe.yaml", "results.json"
#: Files that stay what they are: everything small that is not weights, an index, or written anew.
_COPIED = (".json", ".jinja", ".model", ".txt", ".tiktoken", ".py")
_NOT_COPIED = ("config.json", "quantize_config.json", PROVENANCE, RESULTS)


def finish(prepared: Prepared, checkpoint: Checkpoint) -> None:
    """Complete the checkpoint in its temporary folder."""
    if not (checkpoint.path / "config.json").is_file():
        raise BackendError(f"backend {prepared.backend.name!r} left no config.json", value=str(checkpoint.path))
    copy_companions(prepared.model_path, checkpoint.path)
    write_text(checkpoint.path / RECIPE, dump_recipe(prepared.recipe))
    write_json(checkpoint.path / PROVENANCE, provenance(prepared, checkpoint))


def copy_companions(source: Path, target: Path) -> None:
    """Copy tokenizer, chat template and generation config as they are, where the backend wrote none."""
    for path in sorted(source.iterdir()):
        kept = path.suffix in _COPIED and path.name not in _NOT_COPIED and not path.name.endswith(".index.json")
        if not kept or not path.is_file() or (target / path.name).exists():
            continue
        copy_file(path, target / path.name)


def provenance(prepared: Prepared, checkpoint: Checkpoint) -> dict[str, Any]:
    """Where the checkpoint comes from: versions, seed, sha256 of inputs and outputs, and of each weight."""
    return {
        "schema": 1,
        "quantrecipe": __version__,
        "backend": {"name": prepared.backend.name, "version": prepared.backend.availability().version},
        "format": checkpoint.format,
        "seed": prepared.recipe.calibration.seed,
        "environment": environment(prepared.device),
        "model": {"id": prepared.recipe.model.id, "revision": prepared.recipe.model.revision},
        "inputs": input_hashes(prepared),
        "outputs": output_hashes(checkpoint.path),
        "weights_dtype": str(compute_dtype(prepared.skeleton.dtype, prepared.device)).removeprefix("torch."),
        "weights": {layer.name: layer.digest for layer in checkpoint.layers},
        "changed": dict(checkpoint.details.get("changed_parameters", {})),
        "adapter": dict(checkpoint.details.get("adapter", {})),
    }


def input_hashes(prepared: Prepared) -> dict[str, str]:
    """sha256 of the model's files, and of the calibration tokens."""
    found = prepared.folder.hashes()
    if prepared.calibration is not None:
        from hashlib import sha256

        found["calibration tokens"] = sha256(prepared.calibration.tokens.numpy().tobytes()).hexdigest()
    return found


def output_hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file in the checkpoint but its provenance and its report."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != PROVENANCE]
    files += sorted((folder / ADAPTER).iterdir()) if has_adapter(folder) else []
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
