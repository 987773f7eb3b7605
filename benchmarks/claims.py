"""The findings that can be tried on small models, as data: recipes, and linear contrasts of their window losses.

A contrast is a sum of coefficient x loss, in nats a token, over the same windows; "none" is the unquantized model. A
claim about one model names its rows; one about sizes names (size, row), size being "small" or "large".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rows import group

NONE = "none"
#: A difference of perplexity under 0.5 % counts as none (DESIGN.md's tie).
TIE = 0.005
MOST_BYTES = 1.2


def inputs(bits: int, weights: int = 8, **args: Any) -> dict[str, Any]:
    """Weights by rows, and inputs described by ``args``."""
    main = {
        "weights": {"num_bits": weights, "strategy": "channel"},
        "input_activations": {"num_bits": bits, "dynamic": True, **args},
    }
    return {"config_groups": {"main": main}}


def _kv(bits: int) -> dict[str, Any]:
    args = {"num_bits": bits, "strategy": "token", "dynamic": True}
    return group("w8a16", kv_cache_scheme=args, format="quantrecipe")


FINE = {"strategy": "group", "group_size": 64}
LORC: dict[str, Any] = {"compensation": {"name": "lorc", "rank": 8}}
ROWS: dict[str, dict[str, Any]] = {
    **{name: group(name) for name in ("w8a16", "w8a8", "w4a16-g64", "w4a16", "w3a16-g64", "w4a8-g64", "w5a16")},
    **{f"{name} gptq": group(name, "gptq") for name in ("w4a16-g64", "w3a16-g64", "w4a8-g64", "w4a16")},
    **{f"{name} {zq}": group(name, zq) for zq in ("zq-local", "zq-global") for name in ("w4a16-g64", "w4a8-g64")},
    **{name: group(name) for name in ("w4a16-g16", "w2a16-g64", "w8a4", "w4a8", "w6a16", "w6a16-g64")},
    **{f"{name} lorc": group(name, **LORC) for name in ("w8a16", "w4a16-g64", "w3a16-g64", "w2a16-g64")},
    "w8a8, inputs by 64": inputs(8, **FINE),
    "w8a8, inputs by 64, asymmetric": inputs(8, **FINE, symmetric=False),
    "w8a4, inputs by 64": inputs(4, **FINE),
    "w8a4, inputs by 64, asymmetric": inputs(4, **FINE, symmetric=False),
    "w8, fp8 inputs": inputs(8, strategy="token", type="float"),
    "nf4": group("nf4"),
    "w4a16-g64-asym": group("w4a16-g64-asym"),
    "w4a16-g64 gptq, columns in order": {
        "config_groups": {"main": {"scheme": "w4a16-g64", "method": {"name": "gptq", "actorder": None}}}
    },
    "w8a16, kv 8": _kv(8),
    "w8a16, kv 4": _kv(4),
}

Bound = Literal["above 0", "below tie", "within tie"]
Term = tuple[float, str] | tuple[float, str, str]


@dataclass(frozen=True)
class Test:
    """What the number says, the contrast, and what makes the finding hold.

    wider_than: hidden sizes up to it are not asked, as a group of so many weights is a row there.
    equal_bytes: only pairs are asked whose larger model takes at most MOST_BYTES times the bytes of the smaller.
    """

    says: str
    contrast: tuple[Term, ...]
    bound: Bound = "above 0"
    wider_than: int = 0
    equal_bytes: bool = False

    @property
    def sizes(self) -> bool:
        """Whether it compares two sizes."""
        return any(len(term) == 3 for term in self.contrast)

    @property
    def rows(self) -> set[str]:
        """The recipes it needs."""
        return {term[-1] for term in self.contrast} - {NONE}


@dataclass(frozen=True)
class Claim:
    """One finding and the tests that try it."""

    finding: str
    source: str
    tests: tuple[Test, ...]


def _worse(worse: str, better: str) -> tuple[Term, ...]:
    return ((1.0, worse), (-1.0, better))


def _than(method: str, base: str = "rtn") -> Test:
    """``SCHEME METHOD`` loses less than the same scheme rounded to nearest."""
    scheme = method.split(" ", 1)[0]
    return Test(f"{scheme}: what {base} loses beyond {method.split(' ', 1)[1]}", _worse(scheme, method))


def _small_more(row: str, base: str = NONE) -> Test:
    beyond = "" if base == NONE else f" beyond {base}"
    terms: tuple[Term, ...] = (
        (1.0, "small", row), (-1.0, "small", base), (-1.0, "large", row), (1.0, "large", base),
    )  # fmt: skip
    return Test(f"{row}{beyond}: what the smaller loses more", terms)


def _larger_wins(large: str, small: str) -> Test:
    terms: tuple[Term, ...] = ((1.0, "small", small), (-1.0, "large", large))
    return Test(f"smaller at {small} against larger at {large}", terms, equal_bytes=True)


def _gain_grows(low: str, high: str) -> Test:
    terms: tuple[Term, ...] = ((1.0, low), (-1.0, f"{low} lorc"), (-1.0, high), (1.0, f"{high} lorc"))
    return Test(f"gain at {low} beyond that at {high}", terms)


CLAIMS = (
    Claim(
        "INT8 weight-only is lossless",
        "arXiv:2303.08302",
        (Test("w8a16 by rows", _worse("w8a16", NONE), "below tie"),),
    ),
    Claim(
        "4-bit weights hurt small models more",
        "arXiv:2303.08302",
        (_small_more("w4a16-g64"), _small_more("w4a16"), _small_more("w3a16-g64")),
    ),
    Claim(
        "activations are more sensitive than weights",
        "arXiv:2303.08302",
        (
            Test("8 bits: inputs beyond weights", ((1.0, "w8a8"), (-2.0, "w8a16"), (1.0, NONE))),
            Test("4 and 8 bits: w8a4 beyond w4a8", _worse("w8a4", "w4a8")),
        ),
    ),
    Claim(
        "smaller models stand activation quantization better",
        "arXiv:2303.08302",
        (
            Test("w8a8 beyond w8a16: what the larger loses more", (
                (1.0, "large", "w8a8"), (-1.0, "large", "w8a16"), (-1.0, "small", "w8a8"), (1.0, "small", "w8a16"))),
            Test("w8a4 beyond w8a16: what the larger loses more", (
                (1.0, "large", "w8a4"), (-1.0, "large", "w8a16"), (-1.0, "small", "w8a4"), (1.0, "small", "w8a16"))),
        ),
    ),
    Claim(
        "at equal true bits, more bits by rows beat fewer bits in fine groups",
        "arXiv:2303.08302 (BLOOM-176B)",
        (
            Test("w4a16-g16 (5.0 bits) against w5a16 by rows (5.0 to 5.25)", _worse("w4a16-g16", "w5a16")),
        ),
    ),
    Claim(
        "groups of 64 gain at least half of what a fifth bit gains",
        "arXiv:2212.09720",
        (
            Test("twice the groups' gain beyond the bit's",
                 ((1.0, "w4a16"), (-2.0, "w4a16-g64"), (1.0, "w5a16")),
                 wider_than=64),
        ),
    ),
    Claim(
        "nothing helps at 6 bits",
        "arXiv:2212.09720",
        (Test("w6a16 by rows against groups of 64", _worse("w6a16", "w6a16-g64"), "within tie", 64),),
    ),
    Claim(
        "symmetric and asymmetric fine-grained inputs are alike",
        "arXiv:2303.08302",
        (
            *(
                Test(f"{bits} bits, groups of 64",
                     _worse(f"w8a{bits}, inputs by 64", f"w8a{bits}, inputs by 64, asymmetric"), "within tie")
                for bits in (8, 4)
            ),
        ),
    ),
    Claim(
        "GPTQ beats rounding to nearest",
        "arXiv:2210.17323, arXiv:2303.08302",
        tuple(_than(f"{one} gptq") for one in ("w4a16-g64", "w4a16", "w3a16-g64", "w4a8-g64")),
    ),
    Claim(
        "ZQ beats rounding to nearest",
        "arXiv:2303.08302",
        tuple(_than(f"{one} {zq}") for one in ("w4a16-g64", "w4a8-g64") for zq in ("zq-local", "zq-global")),
    ),
    Claim(
        "GPTQ is best weight-only, ZQ with activations",
        "arXiv:2303.08302, slides",
        (
            Test("w4a16-g64: zq-global beyond gptq", _worse("w4a16-g64 zq-global", "w4a16-g64 gptq")),
            Test("w4a8-g64: gptq beyond zq-global", _worse("w4a8-g64 gptq", "w4a8-g64 zq-global")),
        ),
    ),
    Claim(
        "LoRC's gain grows as bits fall",
        "arXiv:2303.08302",
        (
            _gain_grows("w4a16-g64", "w8a16"),
            _gain_grows("w3a16-g64", "w4a16-g64"),
            _gain_grows("w2a16-g64", "w3a16-g64"),
        ),
    ),
    Claim(
        "at equal bytes a larger model at fewer bits beats a smaller at more",
        "arXiv:2303.18223, arXiv:2303.08302",
        (_larger_wins("w4a16-g64", NONE), _larger_wins("w4a16-g64 gptq", NONE), _larger_wins("w2a16-g64", "w8a16")),
    ),
    Claim(
        "NF4 beats INT4",
        "arXiv:2305.14314, arXiv:2212.09720",
        (Test("w4a16-g64 (4.25 bits) beyond nf4 (4.5)", _worse("w4a16-g64", "nf4")),
         Test("asymmetric (4.31 bits) beyond nf4 (4.5)", _worse("w4a16-g64-asym", "nf4"))),
    ),
    Claim(
        "GPTQ's columns by importance beat columns in order",
        "arXiv:2210.17323",
        (Test("w4a16-g64", _worse("w4a16-g64 gptq, columns in order", "w4a16-g64 gptq")),),
    ),
    Claim(
        "8-bit floats stand for inputs better than 8-bit integers",
        "arXiv:2307.09782 (OPT)",
        (Test("int8 inputs beyond fp8", _worse("w8a8", "w8, fp8 inputs")),),
    ),
    Claim(
        "a KV cache of 8 bits costs nothing, of 4 bits little",
        "arXiv:2304.01089",
        (Test("8 bits a token", _worse("w8a16, kv 8", "w8a16"), "below tie"),
         Test("4 bits a token", _worse("w8a16, kv 4", "w8a16"), "below tie")),
    ),
)  # fmt: skip
