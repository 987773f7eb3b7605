"""The catalogue against published counts, and the ways to name a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantrecipe.advisor.candidates import ways
from quantrecipe.catalog import compile as catalog
from quantrecipe.catalog import lookup
from quantrecipe.catalog.resolve import resolve_model
from quantrecipe.errors import ModelError, QuantRecipeError

# Exact counts: from the model cards' safetensors metadata or the authors' own figures.
EXACT = {
    "bloom-176b": 176_247_271_424, "bloom-7b1": 7_069_016_064, "bloom-560m": 559_214_592,
    "opt-125m": 125_239_296, "opt-350m": 331_196_416, "opt-30b": 29_974_540_288,
    "llama-7b": 6_738_415_616, "llama-65b": 65_285_660_672, "llama-2-70b": 68_976_648_192,
    "llama-3.1-8b": 8_030_261_248, "llama-3.1-405b": 405_853_388_800, "llama-3.2-1b": 1_235_814_400,
    "mistral-7b-v0.1": 7_241_732_096, "mixtral-8x7b": 46_702_792_704, "mixtral-8x22b": 140_620_634_112,
    "qwen2.5-7b": 7_615_616_512, "qwen2.5-0.5b": 494_032_768, "qwen3-30b-a3b": 30_532_122_624,
    "qwen1.5-moe-a2.7b": 14_315_784_192, "gemma-2-9b": 9_241_705_984, "gemma-3-1b": 999_885_952,
    "gpt2": 124_439_808, "gpt2-xl": 1_557_611_200, "gpt-j-6b": 6_050_882_784, "gpt-neox-20b": 20_554_567_680,
    "pythia-12b": 11_846_072_320, "phi-2": 2_779_683_840, "phi-4": 14_659_507_200, "falcon-7b": 6_921_720_704,
    "falcon-40b": 41_303_293_952, "mpt-7b": 6_649_286_656, "glm-4-9b": 9_399_951_360,
    "chatglm-6b": 6_173_286_400, "deepseek-v2": 235_741_434_880, "deepseek-v2-lite": 15_706_484_224,
    "gpt-oss-20b": 20_914_757_184, "gpt-oss-120b": 116_829_156_672, "smollm2-135m": 134_515_008,
    "tinyllama-1.1b": 1_100_048_384,
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_parameters_are_exact(name: str) -> None:
    assert lookup.spec(name).parameters == EXACT[name]


@pytest.mark.parametrize("name", lookup.names())
def test_parameters_agree_with_what_the_authors_print(name: str) -> None:
    spec = lookup.spec(name)
    if spec.published is None:
        assert name == "demo"
        return
    rounded = spec.published % 1_000_000 == 0
    assert spec.parameters == pytest.approx(spec.published, rel=0.0125 if rounded else 0)


@pytest.mark.parametrize("name", lookup.names())
def test_every_model_is_whole(name: str) -> None:
    spec = lookup.spec(name)
    assert sum(spec.groups.values()) == spec.parameters
    assert spec.source and spec.context > 0 and spec.kv.width > 0
    assert 0 <= spec.kv.windowed_layers <= spec.layers
    assert list(ways(spec)), "no scheme divides its dimensions"


@pytest.mark.parametrize("name", lookup.names())
def test_no_group_that_does_not_divide(name: str) -> None:
    spec = lookup.spec(name)
    for way in ways(spec):
        assert not way.scheme.group or all(m.columns % way.scheme.group == 0 for m in spec.quantizable())


def test_the_catalogue_covers_what_it_promises() -> None:
    assert len(lookup.names()) >= 150
    wanted = {
        "opt", "bloom", "llama", "llama-2", "llama-3", "llama-3.1", "llama-3.2", "llama-3.3", "mistral", "mixtral",
        "qwen1.5", "qwen2", "qwen2.5", "qwen3", "gemma", "gemma-2", "gemma-3", "phi", "phi-3", "phi-4", "falcon",
        "gpt2", "gptj", "gpt-neox", "pythia", "mpt", "glm-130b", "chatglm", "glm-4", "deepseek-v2", "deepseek-v3",
        "gpt-oss", "smollm2", "tinyllama", "demo",
    }  # fmt: skip
    assert wanted <= set(lookup.families())


@pytest.mark.parametrize(
    ("typed", "model", "hub"),
    [
        ("bloom-176b", "bloom-176b", "bigscience/bloom"),
        ("bloom", "bloom-176b", "bigscience/bloom"),
        ("BLOOM-7B1", "bloom-7b1", "bigscience/bloom-7b1"),
        ("llama-3-8b", "llama-3-8b", "meta-llama/Meta-Llama-3-8B"),
        ("meta-llama/Llama-3.1-8B", "llama-3.1-8b", "meta-llama/Llama-3.1-8B"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b", "meta-llama/Llama-3.1-8B-Instruct"),
        ("qwen2.5-7b-instruct", "qwen2.5-7b", "Qwen/Qwen2.5-7B-Instruct"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3-30b-a3b", "Qwen/Qwen3-30B-A3B-Instruct-2507"),
        ("gemma-3-27b-it", "gemma-3-27b", "google/gemma-3-27b-it"),
        ("mistral-7b-instruct-v0.3", "mistral-7b-v0.3", "mistralai/Mistral-7B-v0.3"),
        ("smollm2_135m", "smollm2-135m", "HuggingFaceTB/SmolLM2-135M"),
        ("deepseek-r1", "deepseek-v3", "deepseek-ai/DeepSeek-V3"),
        ("opt 125m", "opt-125m", "facebook/opt-125m"),
    ],
)
def test_names_that_people_type(typed: str, model: str, hub: str) -> None:
    found = resolve_model(typed)
    assert (found.id, found.hub_id) == (model, hub)


@pytest.mark.parametrize("typed", ["blom-7b1", "lama-3-8b", "qwen2.5-8b"])
def test_unknown_names_get_the_nearest(typed: str) -> None:
    with pytest.raises(ModelError, match="did you mean"):
        resolve_model(typed)


@pytest.mark.parametrize("typed", ["", "  ", "no\0such", "./nowhere", "/nowhere/config.json"])
def test_odd_names_are_one_clear_line(typed: str) -> None:
    with pytest.raises(ModelError) as caught:
        resolve_model(typed)
    assert "\n" not in caught.value.line()


def test_a_family_by_name_or_member() -> None:
    assert [m.id for m in lookup.find_family("bloom")][-1] == "bloom-176b"
    assert {m.family for m in lookup.find_family("qwen2.5-7b")} == {"qwen2.5"}
    with pytest.raises(ModelError, match="did you mean 'bloom'"):
        lookup.find_family("blooom")


def test_siblings_share_a_tokenizer() -> None:
    ids = {m.id for m in lookup.siblings(lookup.spec("llama-3.1-8b"))}
    assert {"llama-3.2-3b", "llama-3-70b"} & ids and "llama-2-7b" not in ids and "llama-3.1-8b" not in ids


def test_a_catalogue_file_of_a_plugin(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    entry = "{architecture: llama, hidden: 64, layers: 2, heads: 4, intermediate: 128, vocab: 100, context: 64}"
    path.write_text(f"source: me\nfamilies:\n  mine:\n    mine-1: {entry}\n")
    assert dict(catalog.entries(path))["mine-1"]["family"] == "mine"
    path.write_text("source: me\nfamilies:\n  mine:\n    mine-1: {hidden: -1}\n")
    with pytest.raises(QuantRecipeError, match="hidden must be a positive whole number"):
        list(catalog.entries(path))
    path.write_text("- no mapping")
    with pytest.raises(QuantRecipeError, match="not a catalogue file"):
        list(catalog.entries(path))


def test_two_models_of_one_name_are_refused() -> None:
    with pytest.raises(ModelError, match="two models of one name"):
        catalog.aliases({"a": {"aliases": ["x"]}, "b": {"aliases": ["x"]}})


def test_the_demo_has_the_shape_of_its_config() -> None:
    config = json.loads((catalog.FOLDER.parent / "demo/model/config.json").read_text())
    demo = lookup.spec("demo")
    assert (demo.layers, demo.hidden, demo.vocab) == (
        config["num_hidden_layers"], config["hidden_size"], config["vocab_size"],
    )  # fmt: skip
