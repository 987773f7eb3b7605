"""Bytes of a mix: of each unit under each option, and of the whole checkpoint's files, to the byte."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from quantrecipe.errors import QuantRecipeError
from quantrecipe.mixed.options import KEEP, Option
from quantrecipe.mixed.units import Unit
from quantrecipe.modeling.experts import experts_of
from quantrecipe.modeling.folder import DTYPES
from quantrecipe.modeling.skeleton import LinearInfo, Skeleton
from quantrecipe.modeling.tensor_file import Piece, entry_bytes, header_bytes
from quantrecipe.modeling.writer import SHARD_BYTES
from quantrecipe.plugins.native.block import Naming
from quantrecipe.plugins.native.formats import format_named
from quantrecipe.plugins.native.kv_cache import cached_attention
from quantrecipe.scheme_facts import SchemeFacts
from quantrecipe.storage import Tensor, own_tensors, packed_tensors

Assignment = Mapping[str, Option]
#: The formats that hold a scheme a layer, and what each keeps of a matrix.
LISTINGS: dict[str, Callable[[SchemeFacts, int, int], list[Tensor]]] = {
    "compressed-tensors": packed_tensors,
    "quantrecipe": own_tensors,
}
#: What a file takes beside its tensors and their entries: length, metadata, padding.
_FRAME = 8 + 64 + 64


def _written_elsewhere(file: object) -> None:
    raise AssertionError("a piece that is only counted")


class Sizes:
    """What a model's checkpoint takes as units take options, in one format."""

    def __init__(self, skeleton: Skeleton, units: tuple[Unit, ...], form: str) -> None:
        if form not in LISTINGS:
            raise QuantRecipeError(
                "the format holds one scheme for all layers", value=form, limit=f"mixes: {', '.join(LISTINGS)}"
            )
        self._skeleton, self._units, self._form = skeleton, units, form
        self._dtype = skeleton.dtype
        self._offset = skeleton.folder.nbytes  # a place in the file with as many digits as any has
        self._naming = Naming.of(skeleton, format_named(form, False))
        self._shapes = {name: _shape(skeleton, name) for stored in skeleton.fused.values() for name in stored}

    def file_bytes(self, chosen: Assignment, cache_scales: bool = False) -> int:
        """Bytes of the safetensors files, headers among them, as the native backend writes them.

        cache_scales: with a KV cache's static scale a tensor.
        """
        pieces = [*self._pieces(chosen), *(self._cache_scales() if cache_scales else ())]
        return sum(len(header_bytes(shard)) + sum(one.nbytes for one in shard) for shard in _shards(pieces))

    def data_bytes(self, chosen: Assignment) -> int:
        """Bytes of the tensors alone: what is resident once they are loaded."""
        return sum(piece.nbytes for piece in self._pieces(chosen))

    def option_bytes(self, unit: Unit, option: Option, files: bool) -> int:
        """Bytes of one unit's tensors. files: with what they take in a header, at the most."""
        pieces = [piece for info in unit.parts for piece in self._matrix(info, option)]
        return sum(piece.nbytes + (entry_bytes(piece, self._offset) if files else 0) for piece in pieces)

    def rest_bytes(self, files: bool) -> int:
        """Bytes of everything that is in no unit. files: with headers, at the most."""
        inside = {self._naming.alone(f"{layer}.weight") for unit in self._units for layer in unit.layers}
        pieces = list(self._rest(inside))
        if not files:
            return sum(piece.nbytes for piece in pieces)
        dense = sum(piece.nbytes for unit in self._units for info in unit.parts for piece in self._matrix(info, KEEP))
        shards = 1 + (sum(piece.nbytes for piece in pieces) + dense) // SHARD_BYTES
        return sum(piece.nbytes + entry_bytes(piece, self._offset) for piece in pieces) + shards * _FRAME

    def _pieces(self, chosen: Assignment) -> Iterator[Piece]:
        """What is quantized, then the rest."""
        replaced: set[str] = set()
        for unit in self._units:
            if not chosen[unit.name].keeps:
                replaced |= {self._naming.alone(f"{layer}.weight") for layer in unit.layers}
                yield from (piece for info in unit.parts for piece in self._matrix(info, chosen[unit.name]))
        yield from self._rest(replaced)

    def _cache_scales(self) -> Iterator[Piece]:
        for block in self._skeleton.blocks:
            for name in cached_attention(block.module):
                for part in ("k_scale", "v_scale"):
                    stored = self._naming.written(f"{block.name}.{name}.{part}")
                    yield Piece(stored, self._dtype, (1,), _written_elsewhere)

    def _rest(self, replaced: set[str]) -> Iterator[Piece]:
        """Every stored tensor that is not replaced; experts in a larger one come out of it if some are."""
        folder = self._skeleton.folder
        apart = {experts_of(name) for name in replaced}
        for stored in folder.names:
            info = folder.info(stored)
            parts = self._skeleton.fused.get(stored, [])
            if parts and experts_of(parts[0]) in apart:
                for name in parts:
                    if name not in replaced:
                        yield Piece(name, info.dtype, self._shapes[name], _written_elsewhere)
            elif stored not in replaced:
                yield Piece(self._naming.unchanged(stored), info.dtype, info.shape, _written_elsewhere)

    def _matrix(self, info: LinearInfo, option: Option) -> list[Piece]:
        """The tensors of one layer."""
        parameter = f"{info.name}.weight"
        name = self._naming.written(parameter)
        if option.keeps:
            stored = self._skeleton.folder.info(self._skeleton.stored_name(parameter))
            return [Piece(name, stored.dtype, (info.rows, info.columns), _written_elsewhere)]
        tensors = LISTINGS[self._form](option.facts, info.rows, info.columns)
        return [
            Piece(
                f"{name.removesuffix('.weight')}.{one.suffix}",
                DTYPES[one.dtype] if one.dtype else self._dtype,
                one.shape,
                _written_elsewhere,
            )
            for one in tensors
        ]


def _shape(skeleton: Skeleton, parameter: str) -> tuple[int, ...]:
    owner, _, attribute = parameter.rpartition(".")
    return tuple(getattr(skeleton.model.get_submodule(owner), attribute).shape)


def _shards(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """The pieces of each file, in the order of its header."""
    waiting: list[Piece] = []
    held = 0
    for piece in pieces:
        waiting.append(piece)
        held += piece.nbytes
        if held >= SHARD_BYTES:
            yield _ordered(waiting)
            waiting, held = [], 0
    if waiting:
        yield _ordered(waiting)


def _ordered(pieces: list[Piece]) -> list[Piece]:
    return sorted(pieces, key=lambda piece: (-piece.dtype.itemsize, piece.name))
