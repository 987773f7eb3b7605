"""Read the published tables: type each row, name each thing once, drop what papers quote from each other.

Used when fitting, documenting and testing; an answer of qadvise never parses these files.
"""

from __future__ import annotations

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from quantrecipe.rules.evidence_names import normalise_family, normalise_method, normalise_metric
from quantrecipe.rules.evidence_row import EvidenceRow

FOLDER = Path(__file__).with_name("evidence")
NOT_EVIDENCE = frozenset({"checkpoint_sizes.csv", "memory_measured.csv", "wikitext2_tokens.csv"})  # not quality
# Bits per weight of llama.cpp's block formats (ggml-common.h: block bytes x 8 / weights in a block).
GGUF_BPW = {"q2_k": 2.625, "q3_k": 3.4375, "q4_k": 4.5, "q5_k": 5.5, "q6_k": 6.5625, "q8_0": 8.5,
            "q4_0": 4.5, "q4_1": 5.0, "q5_0": 5.5, "q5_1": 6.0}  # fmt: skip
QUOTED_AT_LEAST = 3  # shared quantized numbers that make two sources linked
MIXTRAL_PARAMS_B = 46.7  # arXiv:2401.04088, the table leaves it empty


def load(folder: Path = FOLDER) -> list[EvidenceRow]:
    """Every quality row with a printed value, in file order; SUSPECT ones included."""
    rows: list[EvidenceRow] = []
    for path in sorted(folder.glob("*.csv")):
        if path.name not in NOT_EVIDENCE:
            with path.open(newline="", encoding="utf-8") as file:
                rows += [row for raw in csv.DictReader(file) if (row := _typed(raw)) is not None]
    return rows


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _typed(raw: dict[str, str]) -> EvidenceRow | None:
    value = _number(raw["value"])
    if value is None or raw["metric"].startswith(("delta_", "mean_kld", "rms_", "same_top")):
        return None
    method, bits = _method(raw), _number(raw["weight_bits"]) or 0.0
    return EvidenceRow(
        source=raw["source"], table=raw["table"], family=normalise_family(raw["family"], raw["model"]),
        model=raw["model"], params_b=_params(raw), weight_bits=bits, effective_bits=_effective(raw, bits),
        symmetric=_symmetric(raw), act_bits=int(_number(raw["act_bits"]) or 16), kv_bits=_kv_bits(raw),
        method=method, group_size=_group(raw), metric=_metric(raw), value=value,
        baseline=_number(raw["fp16_value"]), note=raw["note"], act_order=_act_order(raw),
        act_scope=_scope(raw), weight_type=_weight_type(raw), act_type=_act_type(raw),
    )  # fmt: skip


def _params(raw: dict[str, str]) -> float:
    if "header prints OPT-3b" in raw["note"]:
        return 1.3  # a slip of the slide: its 16-bit numbers are OPT-1.3b's
    return _number(raw["params_b"]) or (MIXTRAL_PARAMS_B if "Mixtral" in raw["model"] else 0.0)


def _metric(raw: dict[str, str]) -> str:
    """SmoothQuant's README names no data set; the script that it runs, ppl_eval.py, loads WikiText-2's test text."""
    if raw["metric"] == "ppl_unnamed" and raw["source"] == "SmoothQuant repo README":
        return "ppl_wiki2"
    return normalise_metric(raw["metric"])


def _method(raw: dict[str, str]) -> str:
    name = normalise_method(raw["method"])
    return "gguf-legacy" if name == "gguf" and raw["method"].lower().endswith(("_0", "_1")) else name


def _effective(raw: dict[str, str], bits: float) -> float:
    """Average bits: as printed, else from the file's size or format, else codes + scale + zero a group."""
    printed = _number(raw.get("bpw_effective"))
    kind = raw["method"].lower().removeprefix("gguf-").split("+")[0]
    known = next((bpw for name, bpw in GGUF_BPW.items() if kind.startswith(name)), None)
    if printed or known:
        return printed or known or bits
    group = _group(raw)
    return bits + ((16 + bits) / group if group and bits < 16 else 0.0)


def _symmetric(raw: dict[str, str]) -> bool | None:
    scheme, method = raw["weight_scheme"], raw["method"].lower()
    if method.startswith("gguf"):
        return method.endswith("_0")
    return {"sym": True, "asym": False}.get(scheme)


def _kv_bits(raw: dict[str, str]) -> int:
    for bits in (3, 4):
        if raw["method"].endswith(f"A{bits}KV"):
            return bits
    return int(_number(raw.get("kv_bits")) or 16)


def _group(raw: dict[str, str]) -> int | None:
    if raw["method"].lower().startswith("gguf-"):  # sub-blocks of the format: ggml-common.h
        kind = raw["method"].lower().removeprefix("gguf-")
        return 16 if kind.startswith(("q2_k", "q3_k", "q6_k")) else 32
    if raw["method"] == "SpQR":
        return 16  # "small groups (e.g. 16)", the note says
    size = _number(raw["group_size"])
    return int(size) if size and size > 0 else None


def _act_order(raw: dict[str, str]) -> bool | None:
    """Stated by the method's name, the README of GPTQ (LLaMA), or its paper (off in its tables)."""
    if raw["method"] in ("GPTQ+act-order", "GPTQ-R") or "--act-order" in raw["note"]:
        return True if raw["method"].startswith("GPTQ") else None
    paper = raw["source"].startswith(("GPTQ (2210", "AWQ (2306"))
    return False if paper and raw["method"] == "GPTQ" else None


def _scope(raw: dict[str, str]) -> str:
    note = raw["note"]
    if "act per-tensor" in note or raw["method"] in ("Int8 absmax", "Int8 zeropoint"):
        return "tensor"
    return "tensor" if "INT8* = per-tensor weights" in note else ""


def _weight_type(raw: dict[str, str]) -> str:
    return "float" if "weight format FP" in raw["note"] else "int"


def _act_type(raw: dict[str, str]) -> str:
    return "float" if "activation format FP" in raw["note"] else "int"


def number_key(row: EvidenceRow) -> tuple[object, ...]:
    """What makes two printed numbers one: model, metric, scheme, method, and the digits."""
    return (row.family, round(math.log(row.params_b or 1), 1), row.metric, row.weight_bits, row.act_bits,
            row.kv_bits, row.group_size, row.method, f"{row.value:.4g}")  # fmt: skip


def deduplicate(rows: Iterable[EvidenceRow]) -> list[EvidenceRow]:
    """Each printed number once, in the source that printed it first."""
    kept: dict[tuple[object, ...], EvidenceRow] = {}
    for row in sorted(rows, key=lambda r: age(r.source)):
        kept.setdefault(number_key(row), row)
    return list(kept.values())


def age(source: str) -> str:
    """arXiv number as a date of first print; a README is younger than its paper."""
    digits = "".join(c for c in source.rsplit("(", maxsplit=1)[-1] if c.isdigit())[:8]
    return f"{'1' if 'README' in source else '0'}{digits or '9999'}"


def quoted(rows: Iterable[EvidenceRow]) -> Counter[tuple[str, str]]:
    """How many quantized numbers each pair of sources shares, digit for digit."""
    holders: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for row in rows:
        if row.weight_bits < 16 or row.kv_bits < 16:
            holders[number_key(row)].add(row.source)
    pairs: Counter[tuple[str, str]] = Counter()
    for names in holders.values():
        pairs.update((a, b) for a in names for b in names if a < b)
    return pairs


def _authors(source: str) -> str:
    """Papers of one hand share their pipeline: ZeroQuant-V2 and -FP; LLM.int8() and its integration post."""
    first = source.split(" ", maxsplit=1)[0]
    return {"ZeroQuant-FP": "ZeroQuant-V2", "HF": "LLM.int8()"}.get(first, first)


def linked_groups(rows: list[EvidenceRow]) -> dict[str, str]:
    """source -> its group: sources that quote each other, or come from the same authors, stand together."""
    leader = {source: source for source in sorted({row.source for row in rows})}

    def find(source: str) -> str:
        return source if leader[source] == source else find(leader[source])

    links = [pair for pair, shared in quoted(rows).items() if shared >= QUOTED_AT_LEAST]
    links += [(a, b) for a in leader for b in leader if a < b and _authors(a) == _authors(b)]
    for a, b in sorted(links):
        leader[find(b)] = find(a)
    return {source: find(source) for source in leader}
