"""Engines and backends decide what is recommended: caches, groups, embeddings, compensation, host memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from quantrecipe.advisor import backend, engine
from quantrecipe.advisor.advise import advise
from quantrecipe.advisor.candidates import PIPELINES, Way
from quantrecipe.advisor.cli import cli
from quantrecipe.advisor.tables import engines
from quantrecipe.catalog import lookup
from quantrecipe.memory import Serving, kv_cache_bytes, weight_bytes
from quantrecipe.plugins.contract import Capabilities
from quantrecipe.plugins.native.backend import CAPABILITIES
from quantrecipe.recipe import Recipe
from quantrecipe.scheme_facts import scheme_facts

ABLE = replace(
    CAPABILITIES, methods=("rtn", "gptq"), embeddings=True, transforms=("smoothquant", "awq"),
    compensations=("lorc",), kv_cache_bits={"float": (8,)},
)  # fmt: skip


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The native backend as if it could do more; answers are kept by way, so they are dropped before and after."""
    monkeypatch.setattr(backend, "capabilities", lambda: {"native": ABLE})
    backend.backend_for.cache_clear()
    yield
    backend.backend_for.cache_clear()


def way(scheme: str, method: str, form: str = "compressed-tensors", **more: Any) -> Way:
    return Way(scheme_facts(scheme), method, form, **more)


def test_every_engine_says_what_was_read() -> None:
    for one in engines().values():
        assert one.version and one.sources and isinstance(one.unverified, list)
    text = CliRunner().invoke(cli, ["hardware"]).output
    assert "unverified" in text and "PR 26092" in text and max(map(len, text.splitlines())) <= 100
    assert {e["key"] for e in json.loads(CliRunner().invoke(cli, ["hardware", "--format", "json"]).output)["engines"]}


@pytest.mark.parametrize(
    ("missing", "ways"),
    [
        ({"methods": ("rtn",)}, [way("w4a16-g128", "gptq"), way("w4a16-g128", "lorc")]),
        ({"transforms": ()}, [way("w4a16-g128", "awq"), way("w8a8", "smoothquant+gptq")]),
        ({"compensations": ()}, [way("w4a16-g128", "lorc")]),
        ({"embeddings": False}, [way("w4a16-g128", "gptq", embedding_bits=8)]),
        ({"activation_bits": (16,)}, [way("w8a8", "rtn")]),
        ({"activation_strategies": ("token",)}, [way("w8a8-ag128", "rtn")]),
        ({"strategies": ("channel",)}, [way("w4a16-g128", "gptq")]),
        ({"group_sizes": (64,)}, [way("w4a16-g128", "gptq")]),
        ({"asymmetric": False}, [way("w4a16-g128-asym", "gptq")]),
        ({"formats": ("gptq",)}, [way("w4a16-g128", "gptq")]),
        ({"weight_bits": {"int": (8,)}}, [way("w4a16-g128", "gptq")]),
    ],
)
def test_capabilities_decide(missing: dict[str, Any], ways: list[Way]) -> None:
    whole: Capabilities = replace(ABLE, activation_strategies=("token", "group"))
    for one in ways:
        assert backend.can(whole, one) and not backend.can(replace(whole, **missing), one)


def test_a_pipeline_is_known_whole_or_by_its_parts() -> None:
    one = way("w4a16-g128", "awq")
    assert backend.can(replace(ABLE, transforms=(), methods=("awq",)), one)
    assert not backend.can(replace(ABLE, transforms=(), methods=("rtn",)), one)
    assert PIPELINES["smoothquant+gptq"].rounding == "gptq"


def test_recipes_of_pipelines_validate(able: None) -> None:
    answer = advise("opt-66b", hardware="a100-80gb", objective="throughput")
    assert answer.recommended and answer.recommended.way.method.startswith("smoothquant")
    data = answer.recipe_data
    assert data and data["quantization"]["transforms"] == [{"name": "smoothquant"}]
    assert isinstance(answer.recipe, Recipe)


def test_an_fp8_cache_carries_its_scales_where_it_can(able: None) -> None:
    answer = advise("llama-2-13b", "9GB")
    assert answer.recommended and answer.recommended.kv_bits == 8 and answer.recipe_data
    assert answer.recipe_data["quantization"]["kv_cache_scheme"]["type"] == "float"
    assert "--kv-cache-dtype fp8" in answer.recipe_data["launch"] and isinstance(answer.recipe, Recipe)


@pytest.mark.parametrize("name", [key for key, one in engines().items() if one.kv])
def test_the_launch_line_agrees_with_the_cache_that_was_counted(name: str) -> None:
    answer = advise("llama-3-8b", "8GB", engine=name)
    if answer.recommended is None:
        return
    flags = {bits: engines()[name].cache(bits) for bits in engines()[name].cache_bits}
    launch = answer.recipe_data["launch"] if answer.recipe_data else ""
    for bits, entry in flags.items():
        assert entry and (entry["flag"] in launch) == (answer.recommended.kv_bits == bits)
    if answer.recommended.kv_bits == 16 or (answer.recipe_data or {})["quantization"].get("kv_cache_scheme"):
        return
    assert answer.recommended.kv_type == "int" or any("stay at 1" in line for line in answer.warnings)


def test_embeddings_in_8_bits_where_the_engine_holds_them(able: None, monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_only = advise("llama-3.1-8b", "6.5GB", engine="vllm@0.25")
    assert all(one.way.embedding_bits == 16 for one in bytes_only.alternatives)  # it wants packed rows
    holding = engines()["vllm@0.25"]._replace(embeddings={"compressed-tensors": [8]})
    monkeypatch.setitem(engines(), "vllm@0.25", holding)
    answer = advise("llama-3.1-8b", "6.5GB", engine="vllm@0.25")
    found = [one for one in [answer.recommended, *answer.alternatives] if one and one.way.embedding_bits == 8]
    assert found
    model, facts = lookup.spec("llama-3.1-8b"), scheme_facts("w4a16-g128")
    plain = weight_bytes(model, facts, "compressed-tensors")
    small = weight_bytes(model, facts, "compressed-tensors", embedding_bits=8)
    assert plain.groups["embeddings"] - small.groups["embeddings"] == 128256 * 4096 - 128256 * 2 - 16
    tied = advise("llama-3.2-3b", "3GB", engine="vllm@0.25")
    assert all(one.way.embedding_bits == 16 for one in tied.alternatives)  # that engine only looks rows up


def test_lorc_counts_its_factors(able: None) -> None:
    model, facts = lookup.spec("opt-6.7b"), scheme_facts("w4a16")
    with_it = weight_bytes(model, facts, "compressed-tensors", rank=8)
    factors = sum(8 * (m.rows + m.columns) * m.count * 2 for m in model.quantizable())
    assert with_it.groups["compensation"] == factors
    assert with_it.resident - weight_bytes(model, facts, "compressed-tensors").resident == factors
    found = advise("opt-6.7b", "5GB").alternatives
    lorc = next(one for one in found if one.way.method == "lorc")
    assert lorc.backend == "native" and lorc.memory.weights_bytes == sum(lorc.memory.groups.values())


def test_four_bits_of_cache_only_where_the_engine_has_them() -> None:
    assert engines()["llama.cpp"].cache_bits == [8, 4] and engines()["vllm"].cache_bits == [8]
    model = lookup.spec("llama-2-7b")
    q4 = kv_cache_bytes(model, Serving(1024, kv_bits=4, kv_group=32))
    assert q4 == 1024 * 32 * 2 * 4096 * 4.5 / 8  # q4_0: 18 bytes a block of 32
    assert engine.fault(engines()["vllm"], way("w4a16-g128", "gptq"), 4)


def test_groups_that_no_kernel_takes_go_out_in_another_format_or_not_at_all() -> None:
    answer = advise("bloom-176b", "110GB", engine="vllm")
    wide = [c for c in [answer.recommended, *answer.alternatives] if c and c.way.scheme.name == "w4a16-g1024"]
    assert all(c.way.format == "gptq" for c in wide)
    assert "groups of a row, 32, 64, 128" in (engine.fault(engines()["vllm"], way("w4a16-g1024", "gptq"), 16) or "")
    assert not engine.aligned(engines()["vllm"], lookup.spec("smollm2-135m"), 1)
    assert engine.aligned(engines()["vllm"], lookup.spec("llama-3-70b"), 2)


def test_transformers_expands_what_compressed_tensors_packs() -> None:
    packed = advise("llama-3-8b", "20GB", engine="vllm").recommended
    assert packed
    answer = advise("llama-3-8b", "20GB", engine="transformers")
    for one in answer.alternatives:
        if one.way.format == "compressed-tensors":
            assert one.memory.weights_bytes == 2 * 8030261248 > one.memory.file_bytes
    if answer.recommended and answer.recommended.way.format == "compressed-tensors":
        assert any("expands compressed-tensors" in line for line in answer.warnings)


def test_offload_is_counted_and_said() -> None:
    plain = advise("llama-3-70b", "30GB", hardware="rtx-4090")
    answer = advise("llama-3-70b", "30GB", hardware="rtx-4090", offload="20GB")
    assert answer.recommended and (plain.recommended is None or plain.recommended.loss > answer.recommended.loss)
    assert answer.recommended.memory.total_bytes > 30e9
    assert "--cpu-offload-gb" in (answer.recipe_data or {})["launch"]
    assert any("stay in host memory" in line for line in answer.warnings)
    assert advise("llama-3-8b", "24GB", offload="20GB").recommended == advise("llama-3-8b", "24GB").recommended


def test_a_backend_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "installed", frozenset)
    backend.backend_for.cache_clear()
    monkeypatch.setattr("quantrecipe.advisor.hints_serving.installed", frozenset)
    answer = advise("bloom-7b1", "10GB")
    backend.backend_for.cache_clear()
    assert answer.recommended and any("is not installed here" in line for line in answer.warnings)
