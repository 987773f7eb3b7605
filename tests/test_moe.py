"""Mixtures of experts: unfused experts compute the same, are counted, planned, written and read by others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantrecipe.errors import RecipeError
from quantrecipe.modeling.digest import digest
from quantrecipe.modeling.experts import Experts, Layout, expert_tensor, fuse, unfuse
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.plan import ROUTER_RULE, make_plan
from quantrecipe.modeling.skeleton import LinearInfo, Skeleton
from quantrecipe.plugins.native.backend import NativeBackend
from quantrecipe.plugins.native.load import load
from quantrecipe.recipe import Recipe
from quantrecipe.runner.engine_check import check_engine
from quantrecipe.runner.moe_readers import why_not_transformers
from quantrecipe.runner.plan_notes import fits_marlin, plan_notes
from tests import families
from tests.native_jobs import load_with_transformers, make_job, quantize, tokens

GPTQ4 = {"main": {"scheme": "w4a16-g32", "method": "gptq"}}
#: Those whose experts transformers also knows one by one; the others' checkpoints hold them fused.
SINGLE = tuple(name for name in families.MOE if name not in ("granitemoe", "gpt-oss"))


def linears(folder: Path) -> list[LinearInfo]:
    return Skeleton(ModelFolder.open(folder)).linears()


def recipe(groups: Any, ignore: list[str] | None = None, engine: str | None = None) -> Recipe:
    ignored = ["lm_head"] if ignore is None else ignore
    quantization = {"config_groups": groups, "ignore": ignored}
    return Recipe.model_validate({"model": {"id": "m"}, "target": {"engine": engine}, "quantization": quantization})


@pytest.mark.parametrize("everyone", [False, True])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("concatenated", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_unfused_experts_compute_what_the_library_computes(  # noqa: PLR0917
    gated: bool, concatenated: bool, transposed: bool, biased: bool, everyone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from transformers.integrations.moe import batched_mm_experts_forward

    layout = Layout(5, gated, concatenated, transposed, biased)
    shapes = {"gate_up_proj" if gated else "up_proj": (12, 8) if gated else (6, 8), "down_proj": (8, 6)}
    fused: Any = torch.nn.Module()
    for name, (rows, columns) in shapes.items():
        shape = (5, columns, rows) if transposed else (5, rows, columns)
        setattr(fused, name, torch.nn.Parameter(torch.randn(shape, dtype=torch.float64)))
        if biased:
            setattr(fused, f"{name}_bias", torch.nn.Parameter(torch.randn(5, rows, dtype=torch.float64)))
    fused.has_gate, fused.has_bias = gated, biased
    fused.is_concatenated, fused.is_transposed = concatenated, transposed
    fused.num_experts, fused.act_fn = 5, torch.nn.functional.silu

    def gate(both: torch.Tensor) -> torch.Tensor:
        first, second = both.chunk(2, -1) if concatenated else (both[..., ::2], both[..., 1::2])
        return fused.act_fn(first) * second

    fused._apply_gate = gate
    hidden, chosen = torch.randn(7, 8, dtype=torch.float64), torch.tensor([[0, 3], [3, 1], [0, 1], [1, 3]] * 2)[:7]
    weights = torch.rand(7, 2, dtype=torch.float64)
    expected = batched_mm_experts_forward(fused, hidden, chosen, weights)
    owner = SimpleNamespace(experts=fused)
    whole = {name: parameter.data for name, parameter in fused.named_parameters()}
    assert Layout.of(owner.experts) == layout
    experts = Experts(fused, layout)
    for _, index, leaf, kind in layout.parts(""):
        value = layout.cut(whole[layout.attribute(leaf, kind)][index], leaf)
        setattr(experts[index].get_submodule(leaf), kind, torch.nn.Parameter(value))
    monkeypatch.setattr(Experts, "everyone", everyone)
    torch.testing.assert_close(experts(hidden, chosen, weights), expected, rtol=1e-12, atol=1e-12)
    state = {f"x.{name}": parameter.data for name, parameter in experts.named_parameters()}
    fuse(layout, "x", state)
    assert state.keys() == {f"x.{name}" for name in whole}
    assert all(torch.equal(state[f"x.{name}"], tensor) for name, tensor in whole.items())


def test_no_fused_parameter_is_left_beside_the_plain_ones(tmp_path: Path) -> None:
    model = Skeleton(ModelFolder.open(families.make_model("mixtral", tmp_path / "model"))).model
    unfuse(model)  # twice does no harm
    assert not [name for name, parameter in model.named_parameters() if parameter.dim() == 3]
    assert sum(isinstance(module, Experts) for module in model.modules()) == 3


@pytest.mark.parametrize("family", SINGLE)
@torch.inference_mode()
def test_transformers_reads_the_quantized_experts(family: str, tmp_path: Path) -> None:
    model = families.make_model(
        family, tmp_path / "model", torch.bfloat16 if family == "qwen3-moe" else torch.float32
    )
    checkpoint = quantize(model, tmp_path / "out", GPTQ4)
    assert why_not_transformers(ModelFolder.open(checkpoint.path)) is None
    loaded = load_with_transformers(checkpoint.path)
    for record in checkpoint.layers:
        weight = expert_tensor(loaded, f"{record.name}.weight")
        weight = loaded.get_submodule(record.name).weight if weight is None else weight
        assert digest(weight) == record.digest, record.name
    assert checkpoint.witness_logits is not None
    scale = float(checkpoint.witness_logits.abs().max())
    logits = loaded(tokens(2, 24, seed=2)).logits.float()
    tolerance = 0.05 if family == "qwen3-moe" else 1e-5
    assert float((logits - checkpoint.witness_logits).abs().max()) <= tolerance * scale


@pytest.mark.parametrize(
    ("family", "scheme", "why"),
    [
        ("mixtral", "w4a16-g32-asym", "zero points"),
        ("deepseek-v2", "w8a8", "packed"),
        ("gpt-oss", "w4a16-g32", "architecture"),
        ("granitemoe", "w4a16-g32", "architecture"),
    ],
)
@torch.inference_mode()
def test_others_are_dequantized_by_the_formats_own_library(
    family: str, scheme: str, why: str, tmp_path: Path
) -> None:
    """Every matrix by compressed-tensors' decompressor, experts fused again, into the library's dense model."""
    model = families.make_model(family, tmp_path / "model")
    checkpoint = quantize(model, tmp_path / "out", {"main": {"scheme": scheme, "method": "gptq"}})
    assert why in str(why_not_transformers(ModelFolder.open(checkpoint.path)))
    dense = decompressed(checkpoint.path, checkpoint)
    ours = load(checkpoint.path, "cpu")
    for record in checkpoint.layers:
        weight = expert_tensor(ours, f"{record.name}.weight")
        weight = ours.get_submodule(record.name).weight if weight is None else weight
        assert digest(dense[record.name]) == record.digest == digest(weight), record.name
    if scheme != "w8a8":  # the plain model does not round its inputs
        logits = ours(tokens(2, 24, seed=2)).logits
        torch.testing.assert_close(logits, checkpoint.witness_logits, rtol=1e-4, atol=1e-5)


def decompressed(folder: Path, checkpoint: Any) -> dict[str, torch.Tensor]:
    """Dequantized weights by module, through compressed-tensors alone."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    stored, skeleton = ModelFolder.open(folder), Skeleton(ModelFolder.open(folder.parent / "model"))
    (scheme,) = QuantizationConfig(**stored.config["quantization_config"]).config_groups.values()
    compressor = BaseCompressor.get_value_from_registry(str(scheme.format))
    found = {}
    for record in checkpoint.layers:
        module = torch.nn.Module()
        name = skeleton.written_name(f"{record.name}.weight").removesuffix(".weight")
        for part in ("weight", "weight_packed", "weight_scale", "weight_shape", "weight_zero_point"):
            if f"{name}.{part}" in stored:
                tensor = stored.tensor(f"{name}.{part}")
                setattr(module, part, torch.nn.Parameter(tensor, requires_grad=False))
        module.quantization_scheme = scheme  # type: ignore[assignment]
        compressor.decompress_module(module)
        found[record.name] = module.weight.data
    return found


@torch.inference_mode()
def test_experts_of_another_scheme_than_the_rest(tmp_path: Path) -> None:
    model = families.make_model("qwen2-moe", tmp_path / "model")
    groups = {"attention": "w8a16", "experts": {"scheme": "w4a16-g32", "targets": [r"re:.*\.experts\..*"]}}
    checkpoint = quantize(model, tmp_path / "out", groups)
    loaded = load_with_transformers(checkpoint.path)
    for record in checkpoint.layers:
        weight = expert_tensor(loaded, f"{record.name}.weight")
        assert (weight is None) == (record.scheme == "w8a16")
        assert digest(loaded.get_submodule(record.name).weight if weight is None else weight) == record.digest


@torch.inference_mode()
def test_unequal_experts_are_read_by_our_reader(tmp_path: Path) -> None:
    model = families.make_model("gpt-oss", tmp_path / "model")
    one = "model.layers.1.mlp.experts.2.up_proj"
    groups = {"main": "w4a16-g32", "one": {"scheme": "w8a16", "targets": [one]}}
    ignore = ["lm_head", "model.layers.0.mlp.experts.1.down_proj"]
    checkpoint = quantize(model, tmp_path / "out", groups, ignore=ignore)
    ours, original = load(checkpoint.path, "cpu"), load(model, "cpu")
    for record in checkpoint.layers:
        weight = expert_tensor(ours, f"{record.name}.weight")
        weight = ours.get_submodule(record.name).weight if weight is None else weight
        assert digest(weight) == record.digest
    for kind in ("weight", "bias"):
        name = f"model.layers.0.mlp.experts.1.down_proj.{kind}"
        assert torch.equal(expert_tensor(ours, name), expert_tensor(original, name))  # type: ignore[arg-type]


def test_an_expert_that_sees_no_token_is_rounded_to_nearest_and_named(tmp_path: Path) -> None:
    model = families.make_model("deepseek-v3", tmp_path / "model")
    stored = load_file(model / "model.safetensors")
    for name in [name for name in stored if name.endswith("e_score_correction_bias")]:
        stored[name] = torch.tensor([0.0, 0.0, 0.0, -50.0])
    save_file(stored, model / "model.safetensors", metadata={"format": "pt"})
    checkpoint = quantize(model, tmp_path / "out", GPTQ4)
    rounded = quantize(model, tmp_path / "rtn", {"main": "w4a16-g32"})
    digests = {record.name: record.digest for record in rounded.layers}
    by_name = {record.name: record for record in checkpoint.layers}
    lonely = by_name["model.layers.1.mlp.experts.3.gate_proj"]
    assert (lonely.tokens, lonely.method, lonely.output_error) == (0, "rtn", None)
    assert lonely.note == "no calibration token reached it" and lonely.digest == digests[lonely.name]
    other = by_name["model.layers.1.mlp.experts.0.gate_proj"]
    assert other.tokens and other.method == "gptq" and other.digest != digests[other.name]
    assert any("rounded to nearest: 4, such as model.layers.1.mlp.experts.2" in note for note in checkpoint.notes)
    assert any(note.startswith("calibration tokens an expert: 0 to ") for note in checkpoint.notes)


def test_int8_inputs_of_experts_without_tokens(tmp_path: Path) -> None:
    model = families.make_model("mixtral", tmp_path / "model")
    checkpoint = quantize(model, tmp_path / "out", {"main": {"scheme": "w8a8", "method": "gptq"}})
    assert checkpoint.witness_logits is not None and bool(checkpoint.witness_logits.isfinite().all())


def test_routers_stay_as_they_are_unless_named(tmp_path: Path) -> None:
    infos = linears(families.make_model("qwen2-moe", tmp_path / "model"))
    routers = [info for info in infos if info.is_router]
    assert {info.name.rpartition(".")[2] for info in routers} == {"gate", "shared_expert_gate"}
    plan = make_plan(recipe({"main": "w4a16-g32"}), infos)
    assert {module.name for module in plan.modules if module.ignored_by == ROUTER_RULE} == {i.name for i in routers}
    assert any("6, such as model.layers.0.mlp.gate" in note for note in plan_notes(recipe(GPTQ4), plan, "gptq"))
    named = {"main": "w4a16-g32", "gate": {"scheme": "w8a16", "targets": ["model.layers.0.mlp.shared_expert_gate"]}}
    assert "model.layers.0.mlp.shared_expert_gate" in make_plan(recipe(named), infos).by_name()
    with pytest.raises(RecipeError, match="only linear layers"):
        make_plan(
            recipe({"main": "w4a16-g32", "gate": {"scheme": "w8a16", "targets": ["model.layers.0.mlp.gate"]}}), infos
        )
    with pytest.raises(RecipeError, match="matches no module"):
        make_plan(recipe({"main": "w4a16-g32", "gate": {"scheme": "w8a16", "targets": ["re:.*mlp.gate$"]}}), infos)


def test_a_target_may_use_the_checkpoints_names(tmp_path: Path) -> None:
    infos = linears(families.make_model("mixtral", tmp_path / "model"))
    groups = {
        "main": "w4a16-g32",
        "down": {"scheme": "w8a16", "targets": [r"re:.*block_sparse_moe\.experts\.\d+\.w2"]},
    }
    plan = make_plan(recipe(groups), infos).by_name()
    assert {name.rpartition(".")[2] for name, module in plan.items() if module.group_name == "down"} == {"down_proj"}
    assert sum(module.group_name == "down" for module in plan.values()) == 12


def test_a_matrix_of_an_unknown_class_must_be_ignored_by_name() -> None:
    infos = [
        LinearInfo("layers.0.q", "Linear", 64, 64, 0, False, False),
        LinearInfo("layers.0.conv", "Other", 64, 4, 0, False, False),
    ]
    with pytest.raises(RecipeError, match=r"no linear layer.*add it to ignore"):
        make_plan(recipe({"main": "w4a16-g32"}, []), infos)
    make_plan(recipe({"main": "w4a16-g32"}, ["layers.0.conv"]), infos)


def with_eight_bits(target: str) -> Any:
    return {"a": "w4a16-g32", "b": {"scheme": "w8a16", "targets": [target]}}


@pytest.mark.parametrize(
    ("family", "groups", "ignore", "engine", "said"),
    [
        ("mixtral", with_eight_bits("re:.*experts.*down_proj"), [], "vllm", "experts together"),
        ("mixtral", {"a": "w4a16-g32"}, ["re:.*experts.0.*"], "sglang", "experts together"),
        ("mixtral", {"a": "w4a16-g32-asym"}, [], "vllm", "symmetric experts only"),
        ("mixtral", {"a": "w3a16-g32"}, [], "vllm", "4 or 8 bits"),
        ("deepseek-v3", with_eight_bits("re:.*q_a_proj"), [], "vllm", "kv_a_proj_with_mqa"),
        ("llama", with_eight_bits("re:.*q_proj"), [], "sglang", "q_proj/k_proj/v_proj"),
        ("bloom", with_eight_bits("re:.*query_key_value"), [], "vllm", None),
    ],
)
def test_engines_refuse_what_they_fuse_unlike(  # noqa: PLR0917
    family: str, groups: Any, ignore: list[str], engine: str, said: str | None, tmp_path: Path
) -> None:
    asked = recipe(groups, ["lm_head", *ignore], engine)
    plan = make_plan(asked, linears(families.make_model(family, tmp_path / "model")))
    if said is None:
        check_engine(asked, plan, "compressed-tensors")
        return
    with pytest.raises(RecipeError, match=said):
        check_engine(asked, plan, "compressed-tensors")


def test_a_quantized_head_is_refused_for_sglang(tmp_path: Path) -> None:
    infos = linears(families.make_model("llama", tmp_path / "model"))
    for engine, refused in (("sglang", True), ("vllm", False)):
        asked = recipe({"a": "w4a16-g32", "b": {"scheme": "w8a16", "targets": ["lm_head"]}}, [], engine)
        if refused:
            with pytest.raises(RecipeError, match="output head"):
                check_engine(asked, make_plan(asked, infos), "compressed-tensors")
        else:
            check_engine(asked, make_plan(asked, infos), "compressed-tensors")


@pytest.mark.parametrize(
    ("rows", "columns", "scheme", "fits"),
    [(64, 128, "w4a16-g64", True), (64, 64, "w4a16-g64", False), (32, 128, "w4a16-g64", False),
     (64, 128, "w4a16-g16", False), (64, 128, "w3a16-g64", True), (32, 64, "w8a8", True)],
)  # fmt: skip
def test_sizes_for_marlin(rows: int, columns: int, scheme: str, fits: bool) -> None:
    (module,) = make_plan(
        recipe({"a": scheme}, []), [LinearInfo("l.0.o_proj", "Linear", rows, columns, 0, False, False)]
    ).quantized
    assert fits_marlin(module) == fits


def test_all_experts_calibration_shows_every_expert_every_token(tmp_path: Path) -> None:
    model = families.make_model("mixtral", tmp_path / "model")
    job = make_job(model, tmp_path / "out", GPTQ4)
    calibration = job.recipe.calibration.model_copy(update={"experts": "all"})
    recipe_of_all = job.recipe.model_copy(update={"calibration": calibration})
    everyone = NativeBackend().quantize(replace(job, recipe=recipe_of_all))
    assert {record.tokens for record in everyone.layers} == {tokens(8, 32).numel()}
    routed = quantize(model, tmp_path / "routed", GPTQ4)
    first = {record.name: record.digest for record in routed.layers}
    same = {record.name for record in everyone.layers if record.digest == first[record.name]}
    assert {name for name in same if ".0." in name} >= {"model.layers.0.self_attn.q_proj"}
    assert not any("experts" in name for name in same)
