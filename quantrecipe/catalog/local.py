"""A model from its own files: config.json on the meta device, or the headers of its safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantrecipe.errors import ModelError
from quantrecipe.model import ModelSpec
from quantrecipe.safe_json import parse_json, read_json

_MAX_CONFIG = 10_000_000
_MAX_HEADER = 100_000_000


def from_path(path: Path) -> ModelSpec:
    """The model in a folder, or of a config.json. Raises ModelError."""
    config_path = path / "config.json" if path.is_dir() else path
    if not config_path.exists():
        return _headers_only(path)
    config = _read(config_path)
    folder = path if path.is_dir() else path.parent
    from quantrecipe.catalog.meta import spec_from_config

    return spec_from_config(config, folder, folder.name or "model")


def _read(path: Path) -> dict[str, Any]:
    data = read_json(path, max_bytes=_MAX_CONFIG)
    if not isinstance(data.get("model_type"), str):
        raise ModelError("not a model's config.json", value=str(path), limit="it must have model_type")
    return data


def _headers_only(path: Path) -> ModelSpec:
    if path.is_dir() and any(path.glob("*.safetensors")):
        from quantrecipe.catalog.headers import spec_from_headers

        return spec_from_headers(path)
    raise ModelError(
        "no model there", value=str(path), limit="a folder with config.json or safetensors, or a config.json"
    )


def tensor_shapes(folder: Path) -> dict[str, list[int]]:
    """Name -> shape of every tensor, read off the headers alone. Raises ModelError for a damaged file."""
    shapes: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        shapes |= {name: _shape(info, file) for name, info in _header(file).items() if name != "__metadata__"}
    return shapes


def _shape(info: Any, file: Path) -> list[int]:
    shape = info.get("shape") if isinstance(info, dict) else None
    if isinstance(shape, list) and all(type(size) is int and 0 <= size < 2**40 for size in shape):
        return shape
    raise ModelError("not a safetensors file", value=str(file), limit="a tensor has no shape")


def _header(file: Path) -> Mapping[str, Any]:
    """The JSON header of one safetensors file: eight bytes of length, then that much text."""
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if not 0 < size <= min(_MAX_HEADER, file.stat().st_size - 8):
                raise ModelError("not a safetensors file", value=str(file), limit=f"a header of {size} bytes")
            header = parse_json(stream.read(size), str(file))
    except OSError as error:
        raise ModelError("not a safetensors file", value=str(file), limit=error.strerror) from error
    if not isinstance(header, dict):
        raise ModelError("not a safetensors file", value=str(file), limit="the header is no mapping")
    return header
