"""Format, backend, engine, memory and disk are judged from shapes alone; the dry run prints what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from runner_models import make_workplace, qrun, recipe_data, write_recipe

from quantrecipe.errors import BackendError, QuantRecipeError
from quantrecipe.modeling.plan import make_plan
from quantrecipe.modeling.skeleton import LinearInfo
from quantrecipe.plugins.contract import Capabilities
from quantrecipe.plugins.manager import backend
from quantrecipe.recipe import Recipe
from quantrecipe.runner.capability import check_backend, choose_backend, choose_format
from quantrecipe.runner.engine_check import check_engine
from quantrecipe.runner.locate import catalogue_spec, linears
from quantrecipe.runner.needs import RUNTIME_BYTES, SHARD_BYTES, Needs, Sizes, check_memory, count_needs

NATIVE = backend("native").capabilities()


def _recipe(engine: str | None = None, form: str = "auto", **groups: Any) -> Recipe:
    quantization = {"format": form, "config_groups": groups or {"main": "w4a16-g64"}}
    return Recipe.model_validate({"model": {"id": "x"}, "target": {"engine": engine}, "quantization": quantization})


def _linear(name: str, kind: Any = "Linear", block: int | None = 0, head: bool = False) -> LinearInfo:
    return LinearInfo(name, kind, 256, 256, block, head, False)


LLAMA = [_linear(f"model.layers.0.self_attn.{x}_proj") for x in "qkvo"] + [_linear("lm_head", block=None, head=True)]


@pytest.mark.parametrize(
    ("scheme", "odd", "expected"),
    [
        ("w4a16-g64", False, "compressed-tensors"),
        ("w3a16-g64", False, "gptq"),
        ("w3a16-g64-asym", False, "gptq_v2"),
        ("w8a8", False, "compressed-tensors"),
        ("w4a16-g64", True, "gptq"),
        ("w4a16-g64-asym", True, "gptq_v2"),
    ],
)
def test_auto_is_the_format_that_most_engines_read(scheme: str, odd: bool, expected: str) -> None:
    assert choose_format(_recipe(main=scheme), NATIVE, odd) == expected


def test_a_mixed_recipe_goes_out_as_the_backends_first_format() -> None:
    mixed = _recipe(main="w3a16-g64", other={"targets": ["re:.*q_proj"], "scheme": "w8a16"})
    assert choose_format(mixed, NATIVE, False) == "compressed-tensors"


@pytest.mark.parametrize(
    ("group", "fault"),
    [
        ({"scheme": "w4a12"}, "12-bit inputs"),
        ({"scheme": "w4a16", "method": "awq"}, "method 'awq'"),
        ({"scheme": "nf4", "method": "gptq"}, "type nf4; that type takes rtn"),
    ],
)
def test_what_a_backend_lacks_is_named(group: dict[str, Any], fault: str) -> None:
    with pytest.raises(BackendError, match=fault):
        check_backend(_recipe(main=group), backend("native"), "compressed-tensors", "cpu")


class Able:
    """A backend that can do what native cannot."""

    name = "able"

    def capabilities(self) -> Capabilities:
        return Capabilities({"nf4": (4,)}, (16,), ("group",), ("magic",), ("bitsandbytes",), ("cpu",))

    def availability(self) -> Any:
        return backend("native").availability()


def test_another_backend_that_could_is_the_remedy_and_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    both: dict[str, Any] = {"native": backend("native"), "able": Able()}
    monkeypatch.setattr("quantrecipe.runner.capability.backends", lambda: both)
    monkeypatch.setattr("quantrecipe.runner.capability.backend", both.__getitem__)
    recipe = _recipe(form="bitsandbytes", main={"scheme": "nf4", "method": "magic"})
    with pytest.raises(BackendError, match="backend able could"):
        choose_backend(recipe, False, "cpu")
    recipe.quantization.fallback = "able"
    chosen, form, notes = choose_backend(recipe, False, "cpu")
    assert (chosen.name, form) == ("able", "bitsandbytes")
    assert "takes over" in notes[0]


@pytest.mark.parametrize(
    ("engine", "form", "groups", "fault"),
    [
        ("vllm", "compressed-tensors", {"main": "w8a8-asym"}, "symmetric weights only"),
        ("vllm", "compressed-tensors", {"main": "w3a16-g64-asym"}, "zero points at 4 and 8"),
        ("vllm", "compressed-tensors", {"main": "w4a8-g64-ag64"}, "activation groups"),
        ("vllm", "gptq_v2", {"main": "w3a16-g64-asym"}, None),
        (None, "compressed-tensors", {"main": "w3a16-g64-asym"}, None),
        ("vllm", "compressed-tensors", {"main": "w4a16-g64-asym"}, None),
        (None, "gptq", {"main": "w8a8"}, "no activation quantization"),
        (None, "gptq", {"main": "w4a16-g64", "q": {"targets": ["re:.*q_proj"], "scheme": "w8a16"}}, "one scheme"),
        ("sglang", "auto", {"main": "w4a16", "q": {"targets": ["re:.*q_proj"], "scheme": "w8a16"}}, "share a scheme"),
        ("vllm", "auto", {"main": "w4a16-g64", "o": {"targets": ["re:.*o_proj"], "scheme": "w8a16"}}, None),
    ],
)  # fmt: skip
def test_engines(engine: str | None, form: str, groups: dict[str, Any], fault: str | None) -> None:
    recipe = _recipe(engine, form, **groups)
    plan = make_plan(recipe, LLAMA)
    if fault is None:
        check_engine(recipe, plan, form)
        return
    with pytest.raises(QuantRecipeError, match=fault):
        check_engine(recipe, plan, form)


@pytest.mark.parametrize("kind", ["Conv1D", "LinearSubclass"])
def test_what_is_no_plain_linear_never_goes_out_as_compressed_tensors(kind: str) -> None:
    recipe = _recipe()
    plan = make_plan(recipe, [_linear("transformer.h.0.attn.c_attn", kind)])
    with pytest.raises(QuantRecipeError, match="not a plain Linear"):
        check_engine(recipe, plan, "compressed-tensors")


def test_needs_grow_with_the_largest_block_and_not_with_depth() -> None:
    recipe = _recipe(main={"scheme": "w4a16-g64", "method": "gptq"})
    one, two = (
        count_needs(
            make_plan(recipe, [_linear(f"h.{block}.fc", block=block) for block in range(depth)]),
            depth * 131072,
            Sizes(2, 256, 1000),
        )
        for depth in (1, 2)
    )
    assert one.memory == two.memory
    assert one.memory["Hessian, its factor in it (K x K, fp32)"] == 256 * 256 * 4
    assert two.weights_after == 2 * one.weights_after == 2 * (256 * 256 // 2 + 256 * 4 * 2)


def test_what_blocks_compute_in_is_what_counts() -> None:
    recipe = _recipe(main={"scheme": "w4a16-g64", "method": "gptq"})
    plan = make_plan(recipe, [_linear("h.0.fc", block=0)])
    half, full = (count_needs(plan, 131072, Sizes(2, 256, 1000, computed=size)) for size in (None, 4))
    for line in ("largest block, twice (weights and their replacement)", "calibration activations between blocks"):
        assert full.memory[line] == 2 * half.memory[line]
    assert full.weights_after == half.weights_after


def test_data_free_needs_no_block_and_no_activations() -> None:
    recipe = _recipe(main={"scheme": "w4a16-g64", "method": "rtn"})
    linears = [_linear(f"h.{block}.fc", block=block) for block in range(3)]
    needs = count_needs(make_plan(recipe, linears), 3 * 131072, Sizes(2, 256, 0))
    assert needs.total_memory == RUNTIME_BYTES + SHARD_BYTES + 4 * 256 * 256


def test_shards_of_straight_runs_are_as_large_as_is_counted() -> None:
    from quantrecipe.plugins.native import straight

    assert straight.SHARD_BYTES == SHARD_BYTES


def test_too_little_memory_names_both_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantrecipe.runner.needs.available_memory", lambda: 10**9)
    with pytest.raises(QuantRecipeError, match=r"needs about 2.00 GB and 1.00 GB are free"):
        check_memory(Needs(0, 0, {"all": 2 * 10**9}), "cpu")


@pytest.mark.parametrize("name", ["bloom-7b1", "opt-30b", "llama-3.1-8b", "gpt2"])
def test_the_catalogue_gives_every_module_of_a_model(name: str) -> None:
    spec = catalogue_spec(name)
    found = linears(spec)
    assert sum(info.is_head for info in found) == 1
    assert len({info.name for info in found}) == len(found)
    total = sum(i.rows * i.columns for i in found if not (i.is_head and spec.tied))
    assert total == sum(matrix.elements for matrix in spec.matrices)


def test_a_dry_run_of_a_model_that_is_not_here_asks_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    data = {"model": {"id": "bigscience/bloom-7b1"}, "quantization": {"config_groups": {"main": "w4a16-g128"}}}
    data |= {"output": {"path": str(tmp_path / "out")}}
    assert qrun("--dry-run", write_recipe(tmp_path, data)) == 0
    said = capsys.readouterr().out
    assert "no weights were looked at" in said
    assert "30 x transformer.h.*.mlp.dense_h_to_4h" in said
    assert "native" in said


def test_a_dry_run_of_a_folder_reads_no_weights_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_workplace(tmp_path)
    path = write_recipe(tmp_path, recipe_data(tmp_path, scheme="w4a16-g32", method="gptq"))
    monkeypatch.setattr("quantrecipe.modeling.folder.ModelFolder.tensor", lambda *_: pytest.fail("weights were read"))
    before = sorted(one.name for one in tmp_path.iterdir())
    assert qrun("--dry-run", path) == 0
    said = capsys.readouterr().out
    for words in ("3 x model.layers.*.mlp.up_proj", "w4a16-g32", "ignored by 'lm_head'", "calibration activations"):
        assert words in said
    assert sorted(one.name for one in tmp_path.iterdir()) == before


def test_preflight_only_and_validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_recipe(make_workplace(tmp_path))
    assert qrun("--preflight-only", path) == 0
    assert capsys.readouterr().out.startswith("ready: 21 layers")
    assert not (tmp_path / "out").exists()
    assert qrun("validate", path) == 0
    assert "main w4a16-g32 by rtn" in capsys.readouterr().out
    assert qrun("backends") == 0
    assert capsys.readouterr().out.startswith("native")
