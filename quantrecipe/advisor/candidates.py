"""Every way to quantize one model that is worth considering: scheme x group x method x KV bits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import cache, lru_cache
from typing import NamedTuple

from quantrecipe.model import ModelSpec
from quantrecipe.scheme_facts import SchemeFacts, scheme_facts
from quantrecipe.storage import default_format, format_fault

GROUP_SIZES = (1024, 128, 64, 32)  # beside one scale a row
KV_BITS = (16, 8)  # always weighed; 4 where the engine has it
RANK = 8  # of LoRC: what ZeroQuant-V2's slides print

# Weight-only integers: bits, groups (0 = one scale a row), symmetric or not, methods.
_WEIGHT_ONLY: tuple[tuple[int, tuple[int, ...], tuple[bool, ...], tuple[str, ...]], ...] = (
    (8, (0, 128), (True,), ("rtn", "gptq")),
    (6, (0, 128), (True,), ("rtn", "gptq")),
    (5, (0, 128), (True,), ("rtn", "gptq")),
    (4, (0, 1024, 128, 64, 32), (True, False), ("rtn", "gptq", "awq")),
    (3, (0, 1024, 128, 64, 32), (True, False), ("rtn", "gptq", "awq")),
    (4, (0, 128), (True,), ("lorc",)),
    (3, (0, 128), (True, False), ("lorc",)),
    (2, (128, 64, 32), (False,), ("gptq", "awq+gptq")),
)
# Named schemes with the methods that were published for them.
_NAMED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("w8a8", ("rtn", "gptq", "smoothquant", "smoothquant+gptq")),
    ("w8a8-ag128", ("rtn",)),
    ("w4a8", ("rtn", "gptq")),
    ("w4a8-g128", ("rtn", "gptq", "smoothquant+gptq")),
    ("w4a8-g128-ag128", ("rtn", "gptq", "zq-local")),
    ("fp8", ("rtn",)),
    ("nf4", ("nf4",)),
    ("nf4-dq", ("nf4",)),
    ("mxfp4", ("rtn", "gptq")),
    ("nvfp4", ("rtn", "gptq")),
)


class Pipeline(NamedTuple):
    """What a published pipeline is made of: transforms before rounding, the rounding, what is added after it."""

    rounding: str
    transforms: tuple[str, ...] = ()
    compensation: str = ""


PIPELINES = {
    "nf4": Pipeline("rtn"), "awq": Pipeline("rtn", ("awq",)), "awq+gptq": Pipeline("gptq", ("awq",)),
    "smoothquant": Pipeline("rtn", ("smoothquant",)), "smoothquant+gptq": Pipeline("gptq", ("smoothquant",)),
    "os+": Pipeline("rtn", ("outlier-suppression-plus",)), "lorc": Pipeline("gptq", (), "lorc"),
}  # fmt: skip


@cache
def _pipeline(method: str) -> Pipeline:
    return PIPELINES.get(method) or Pipeline(method)


class Way(NamedTuple):
    """A scheme, the method that makes it, and the format it is written in.

    embedding_bits: of the embedding of tokens; 8 where the engine and a backend can hold it so.
    """

    scheme: SchemeFacts
    method: str
    format: str
    embedding_bits: int = 16

    @property
    def pipeline(self) -> Pipeline:
        """The parts of the method; a method that is no known pipeline rounds by itself."""
        return _pipeline(self.method)

    @property
    def compensation(self) -> str:
        """What is added after rounding; empty where nothing is."""
        return self.pipeline.compensation

    @property
    def rank(self) -> int:
        """Of the compensation's factors."""
        return RANK if self.compensation else 0

    @property
    def act_order(self) -> bool:
        """GPTQ takes columns by falling Hessian diagonal: always, groups keep their place and it costs nothing."""
        return self.pipeline.rounding == "gptq"


@lru_cache(maxsize=8)
def _divisible(model: ModelSpec) -> frozenset[int]:
    """Group sizes that divide the inputs of every quantizable matrix."""
    inputs = {matrix.columns for matrix in model.quantizable()}
    return frozenset(size for size in (*GROUP_SIZES, 256, 16) if all(columns % size == 0 for columns in inputs))


def ways(
    model: ModelSpec, readable: Collection[str] = (), takes: Callable[[Way], bool] = lambda way: True
) -> Iterator[Way]:
    """Schemes, methods and formats for a model; ``readable``: formats that the engine loads, the best first.

    takes: whether the engine loads a way; its usual format is given up for one that the engine takes.
    """
    sizes = _divisible(model)
    for scheme, methods in _schemes():
        if scheme.group and scheme.group not in sizes:
            continue
        output = _format(model, scheme, readable, takes)
        if output:
            yield from (Way(scheme, method, output) for method in methods)


def _schemes() -> Iterator[tuple[SchemeFacts, tuple[str, ...]]]:
    for bits, groups, signs, methods in _WEIGHT_ONLY:
        for group in groups:
            for symmetric in signs:
                name = f"w{bits}a16" + (f"-g{group}" if group else "") + ("" if symmetric else "-asym")
                yield scheme_facts(name), methods
    for name, methods in _NAMED:
        yield scheme_facts(name), methods


def _format(
    model: ModelSpec, scheme: SchemeFacts, readable: Collection[str], takes: Callable[[Way], bool]
) -> str | None:
    """The format for a scheme: the usual one if the engine takes it, else the first that it takes and that holds it.

    GPT-2's Conv1D and Falcon's own class go out as GPTQ, since compressed-tensors skips them in silence.
    """
    if not model.plain_linear:
        usual = "gptq" if scheme.symmetric else "gptq_v2"
        return usual if format_fault(scheme, usual) is None else None
    usual = default_format(scheme)
    if not readable or (usual in readable and takes(Way(scheme, "rtn", usual))):
        return usual
    able = [name for name in readable if format_fault(scheme, name) is None]
    return next((name for name in able if takes(Way(scheme, "rtn", name))), able[0] if able else usual)
