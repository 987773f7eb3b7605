"""``--allow-pickle``: a model whose weights are pickles, converted to safetensors before anything else sees it.

Tensors alone are unpickled (torch.load with weights_only=True, by memory map): a file that asks for any other class
is refused. That is torch's promise rather than ours, hence the flag.
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from quantrecipe.errors import ModelError, OutputError
from quantrecipe.modeling.folder import INDEX
from quantrecipe.safe_json import read_json

PICKLE_INDEX = "pytorch_model.bin.index.json"
COMPLETE = ".complete"
COMPANIONS = (".json", ".jinja", ".model", ".txt", ".tiktoken")


def converted_folder(output: Path) -> Path:
    """Where the converted model lies until the run has ended well."""
    return output.with_name(f".{output.name}.quantrecipe-model")


def without_pickles(model: Path, output: Path) -> Path:
    """The model itself where it has safetensors, else its conversion, kept while the run can be resumed.

    Raises ModelError for a pickle that holds anything but tensors by name.
    """
    if any(model.glob("*.safetensors")):
        return model
    target = converted_folder(output)
    if (target / COMPLETE).exists():
        return target
    shutil.rmtree(target, ignore_errors=True)
    try:
        target.mkdir(parents=True)
        _convert(model, target)
        (target / COMPLETE).touch()
    except OSError as error:
        raise OutputError("cannot write the converted model", value=target.name, limit=error.strerror) from error
    return target


def _convert(model: Path, target: Path) -> None:
    from safetensors.torch import save_file

    weight_map: dict[str, str] = {}
    total = 0
    for number, path in enumerate(_pickles(model), 1):
        tensors = _tensors(path)
        name = f"model-{number:05d}.safetensors"
        save_file(tensors, target / name, {"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
        total += sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (target / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True), encoding="utf-8")
    for path in sorted(model.iterdir()):
        if path.is_file() and path.suffix in COMPANIONS and not path.name.endswith(".index.json"):
            shutil.copyfile(path, target / path.name)


def _pickles(model: Path) -> Iterator[Path]:
    """The weight files, as the index or their names say; none outside the folder."""
    index = model / PICKLE_INDEX
    if index.exists():
        names = read_json(index, ModelError).get("weight_map", {})
        found = sorted({str(name) for name in names.values()}) if isinstance(names, dict) else []
    else:
        found = sorted(path.name for path in model.glob("pytorch_model*.bin"))
    if not found:
        raise ModelError("the folder has no weights", value=str(model), limit="*.safetensors or pytorch_model*.bin")
    for name in found:
        if Path(name).name != name or not (model / name).is_file() or (model / name).is_symlink():
            raise ModelError("the index names a file outside the model folder", value=name, limit="plain file names")
        yield model / name


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of one file by name, each with memory of its own."""
    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(
            "the pickle holds more than tensors, or is damaged",
            value=path.name,
            limit=str(error).splitlines()[0][:160] if str(error) else type(error).__name__,
            remedy="convert it to safetensors where you trust it",
        ) from error
    if not isinstance(held, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in held.values()):
        raise ModelError("the pickle holds no table of tensors", value=path.name)
    return {str(name): tensor.clone().contiguous() for name, tensor in held.items()}
