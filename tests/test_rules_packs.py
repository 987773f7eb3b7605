"""The packs that ship: they check, cite rows that exist, cover the findings, and their generated files are fresh."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quantrecipe.rules.checking import query_fault
from quantrecipe.rules.citations import available
from quantrecipe.rules.compile import read_packs
from quantrecipe.rules.facts import BudgetFacts, CandidateFacts, EngineFacts, HardwareFacts, ModelFacts
from quantrecipe.rules.judgement import Judgement
from quantrecipe.rules.loader import PACKS, builtin_packs, builtin_rules, load_rules
from quantrecipe.rules.pack import Pack, RulePart
from quantrecipe.rules.pack_file import check_file
from quantrecipe.rules.rule import Rule

ROOT = Path(__file__).parent.parent
FILES = sorted(PACKS.glob("*.yaml"))
RULES = [rule for pack in read_packs() for rule in pack.rules]

#: The findings collected from the literature, heading by heading, and the rules that carry them.
FINDINGS = {
    "ZeroQuant-V2: INT8 weight-only, INT4 by size, round-to-nearest wastes a larger model": (
        "zeroquant-v2/int8-weights-lossless",
        "zeroquant-v2/int4-weights-hurt-small-models",
        "zeroquant-v2/rtn4-larger-loses-to-int8-smaller",
    ),
    "ZeroQuant-V2: activations and family": (
        "zeroquant-v2/activations-more-sensitive",
        "zeroquant-v2/bloom-stands-int8-activations",
    ),
    "ZeroQuant-V2: methods": (
        "zeroquant-v2/methods-beat-rtn",
        "zeroquant-v2/gptq-for-weight-only",
        "zeroquant-v2/zq-for-weights-and-activations",
        "zeroquant-v2/per-row-int4-not-lossless",
    ),
    "ZeroQuant-V2: groups of weights": (
        "zeroquant-v2/groups-make-int4-near-lossless",
        "zeroquant-v2/coarse-groups-for-the-largest",
        "zeroquant-v2/fine-groups-for-smaller",
        "zeroquant-v2/more-bits-before-finer-groups",
    ),
    "ZeroQuant-V2: groups of activations": (
        "zeroquant-v2/activation-groups-need-no-zero-point",
        "zeroquant-v2/activation-groups-close-the-gap",
        "zeroquant-v2/activation-groups-of-256-too-coarse",
    ),
    "ZeroQuant-V2: settings by size": (
        "zeroquant-v2/setting-above-10b",
        "zeroquant-v2/setting-1b-to-10b",
        "zeroquant-v2/setting-below-1b",
    ),
    "ZeroQuant-V2: LoRC": ("zeroquant-v2/lorc-repairs-low-bits", "zeroquant-v2/lorc-little-at-8-bits"),
    "ZeroQuant-V2: larger INT4 against smaller INT8 depends on the method": (
        "zeroquant-v2/gptq4-larger-beats-int8-smaller",
    ),
    "Survey": (
        "survey/int8-weights-good",
        "survey/low-bits-need-a-method",
        "survey/larger-at-lower-bits",
        "survey/four-bits-keep-abilities",
        "survey/two-bits-hurt-abilities",
    ),
    "Overview of families": (
        "overview/training-aware-is-most-accurate",
        "overview/dynamic-or-static-activations",
        "overview/weight-only-smoothquant-fp8",
        "overview/int4-fastest-at-batch-1",
        "overview/low-precision-training",
    ),
    "k-bit scaling laws": (
        "kbit-scaling/four-bits-optimal",
        "kbit-scaling/bloom-176b-three-bits-tie",
        "kbit-scaling/opt-and-pythia-unstable-at-3-bits",
        "kbit-scaling/groups-of-64-to-128",
        "kbit-scaling/group-64-nearly-a-bit",
        "kbit-scaling/nothing-helps-at-6-to-8-bits",
        "kbit-scaling/float-types-beat-integers-at-4-bits",
        "kbit-scaling/more-bits-when-no-larger-model-fits",
    ),
    "GPTQ": (
        "gptq/published-asymmetric",
        "gptq/larger-models-are-easier",
        "gptq/opt-66b-dead-units",
        "gptq/rtn4-undoes-the-largest-opt",
        "gptq/rtn-collapses-at-3-bits",
        "gptq/groups-at-3-bits",
        "gptq/two-bits-need-small-groups",
        "gptq/opt-175b-on-one-80gb-card",
        "gptq/act-order",
    ),
    "Conflict about BLOOM-176B at 3 bits": ("gptq/bloom-176b-three-bit-sources-conflict",),
    "LLM.int8()": ("llm-int8/outliers-from-6.7b", "llm-int8/threshold", "llm-int8/slower-than-16-bit"),
    "SmoothQuant": (
        "smoothquant/naive-int8-breaks-opt",
        "smoothquant/bloom-is-easier",
        "smoothquant/naive-int8-breaks-glm-130b",
        "smoothquant/alpha-opt-bloom",
        "smoothquant/alpha-glm",
        "smoothquant/llama-has-milder-outliers",
    ),
    "Outlier Suppression+": ("os-plus/smoothquant-collapses-at-6-bits", "os-plus/six-bit-activations-need-os-plus"),
    "RPTQ": ("rptq/kv4-costs-little", "rptq/full-w4a4-costs-1-to-3"),
    "AWQ": (
        "awq/int4-groups-rtn-decent",
        "awq/at-least-gptq-below-13b",
        "awq/level-with-gptq-above-13b",
        "awq/int3-needs-groups",
        "awq/int2-needs-gptq-too",
        "awq/int2-awq-then-gptq",
    ),
    "QLoRA": ("qlora/nf4-best-uncalibrated-type", "qlora/nf4-recovers-with-adapters"),
    "GLM-130B": ("glm130b/int4-rounding-suffices",),
    "ZeroQuant-FP": ("zeroquant-fp/fp8-activations-on-opt",),
    "OliVe": ("olive/outlier-victim-pairs",),
    "FastGEMM": ("fastgemm/w4a8-can-be-fast",),
    "Modern families": ("modern/llama-3-is-sensitive", "modern/under-3-bits-warning"),
    "Pooling traps": ("pooling/compare-within-one-source",),
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_pack_checks_and_is_named_after_its_file(path: Path) -> None:
    found = check_file(path)
    assert isinstance(found, Pack), found
    assert found.pack == path.stem
    assert all(rule.id.startswith(f"{found.pack}/") for rule in found.rules)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_evidence_selects_rows(rule: RulePart) -> None:
    queries = [part.query() for part in rule.evidence]
    if not all(available(query) for query in queries):
        pytest.skip("the evidence tables are not in this checkout")
    assert [query_fault(query) for query in queries] == [None] * len(queries)


def test_every_finding_is_a_rule() -> None:
    known = {rule.id for rule in RULES}
    wanted = {ident for idents in FINDINGS.values() for ident in idents}
    assert wanted <= known, wanted - known


def test_ids_are_unique_across_packs() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)


def test_rules_from_tables_say_when_they_were_read() -> None:
    cites_guidance = {rule.id.split("/")[0] for rule in RULES if any("guidance/" in q.file for q in rule.evidence)}
    packs = builtin_packs()
    tables = cites_guidance - {"overview", "modern"}
    assert tables and all(packs[name]["read"] for name in tables | {"interop"})


def test_rules_that_reject_do_not_stand_on_an_abstract_alone() -> None:
    assert not [rule.id for rule in RULES if rule.effect in ("forbid", "require") and rule.stands_on == ["abstract"]]


#: Decimals that rules print though no cited row has them, and why they may.
_DECIMALS: dict[str, tuple[set[float], str]] = {
    "zeroquant-v2/per-row-int4-not-lossless": ({0.1, 0.08}, "the study's criterion; 10.78 less 10.70"),
    "zeroquant-v2/groups-make-int4-near-lossless": ({0.1}, "the study's criterion"),
    "zeroquant-v2/zq-for-weights-and-activations": ({5.99}, "16.32 less 10.33"),
    "zeroquant-v2/more-bits-before-finer-groups": ({4.5, 4.6}, "stated in the digest"),
    "zeroquant-v2/setting-below-1b": ({2.9, 1.5}, "measured, stated in the findings"),
    "kbit-scaling/group-64-nearly-a-bit": ({0.25}, "16 bits over 64"),
    "gptq/larger-models-are-easier": ({0.03, 0.18}, "8.37 less 8.34; 10.31 less 10.13"),
    "gptq/groups-at-3-bits": ({0.02, 0.2, 0.15, 0.1}, "stated in the findings"),
    "llm-int8/threshold": ({0.1}, "stated in the findings"),
    "llm-int8/slower-than-16-bit": ({0.3, 0.5}, "stated in the findings"),
    "rptq/kv4-costs-little": ({0.06, 0.46}, "8.40 less 8.34; 10.59 less 10.13"),
    "qlora/nf4-recovers-with-adapters": ({0.8}, "53.0 less 52.2"),
    "fastgemm/w4a8-can-be-fast": ({2.23, 1.45}, "stated in the abstract"),
    "interop/bitsandbytes-saved-after-cpu-forward": ({1.3, 30.9}, "measured, stated in the interop notes"),
    "llamacpp/importance-matrix": ({0.154, 0.196, 0.531, 0.690, 2.71, 3.88}, "rounded"),
    "llamacpp/names-understate-bits": ({4.89, 3.16}, "rounded"),
}
_NUMBER = re.compile(r"(?<![\w.-])\d+\.\d+(?![\w.]*[a-zA-Z])")


@pytest.mark.parametrize("rule", builtin_rules(), ids=lambda rule: rule.id)
def test_decimals_in_findings_come_from_cited_rows(rule: Rule) -> None:
    lines = " ".join([*rule.rows, *(line.text for line in rule.when)])
    known = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", lines)}
    known |= {float(value) for value in rule.value.values()} | _DECIMALS.get(rule.id, (set(), ""))[0]
    printed = {float(number) for number in _NUMBER.findall(f"{rule.finding} {rule.limits}")}
    assert printed <= known, printed - known


def test_no_page_is_left_from_a_pack_that_is_gone() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "rules").glob("*.md")}
    assert pages == {path.stem for path in FILES} | {"index", "facts", "writing-rules"}


def test_the_example_of_the_guide_works(tmp_path: Path) -> None:
    """docs/rules/writing-rules.md: its pack checks, and does what the text says."""
    text = (ROOT / "docs" / "rules" / "writing-rules.md").read_text(encoding="utf-8")
    example = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert example
    path = tmp_path / "house.yaml"
    path.write_text(example[1], encoding="utf-8")
    rules = load_rules([path])
    small = ModelFacts("llama-3.2-3b", "llama-3", 3_200_000_000)
    judge = rules.for_query(small, hardware=HardwareFacts(vendor="nvidia"))
    three = CandidateFacts("w3a16-g128", "gptq", 3, group_size=128)
    assert judge.judge(three).rejected_because == "we do not serve under 4 bits (house/no-3-bits-for-customers)"
    assert not judge.judge(CandidateFacts("w4a16-g128", "gptq", 4, group_size=128)).allowed
    assert judge.judge(CandidateFacts("w4a16-g64", "gptq", 4, group_size=64)).allowed
    assert "gptq/published-asymmetric" not in [rule.id for rule in judge.judge(three).notes]


BLOOM = ModelFacts("bloom-176b", "bloom", 176_247_271_424)
OPT = ModelFacts("opt-66b", "opt", 65_718_030_336)
LLAMA = ModelFacts("llama-3.1-8b", "llama-3", 8_030_261_248)
A100 = HardwareFacts("a100-80gb", "nvidia", "ampere", 8.0, 85_100_000_000, False)
H100 = HardwareFacts("h100-80gb", "nvidia", "hopper", 9.0, 85_100_000_000, True)
W8A8 = CandidateFacts("w8a8", "smoothquant", 8, 8, act_type="int", format="compressed-tensors")
W4A8 = CandidateFacts("w4a8-g128", "gptq", 4, 8, 128, act_type="int", format="compressed-tensors")
FP8 = CandidateFacts("fp8", "rtn", 8, 8, type="float", act_type="float", format="compressed-tensors")
W3 = CandidateFacts(
    "w3a16-g1024", "gptq", 3, group_size=1024, act_order=True, format="gptq", kv_bits=8, kv_type="int"
)
W3ASYM = W3._replace(symmetric=False, format="gptq_v2")
AG = CandidateFacts("w4a8-g128-ag128", "zq-local", 4, 8, 128, 128, act_type="int", format="compressed-tensors")


def ask(
    model: ModelFacts, candidate: CandidateFacts, hardware: HardwareFacts, engine: str | None = "vllm"
) -> Judgement:
    return load_rules().for_query(model, BudgetFacts(), hardware, EngineFacts(engine)).judge(candidate)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "candidate", "hardware", "engine", "rejected_by"),
    [
        (BLOOM, W3, A100, "vllm", None),
        (BLOOM, W3._replace(method="rtn"), A100, "vllm", "gptq/rtn-collapses-at-3-bits"),
        (OPT, W8A8, A100, "vllm", None),
        (OPT, W8A8._replace(method="rtn"), A100, "vllm", "smoothquant/naive-int8-breaks-opt"),
        (BLOOM, W8A8._replace(method="rtn"), A100, "vllm", None),
        (LLAMA, W8A8._replace(symmetric=False), A100, "vllm", "vllm/integer-activations-need-symmetric-weights"),
        (LLAMA, W4A8, A100, "vllm", "vllm/int4-int8-only-on-arm"),
        (LLAMA, W4A8, HardwareFacts(), "vllm", "vllm/int4-int8-hardware-unknown"),
        (LLAMA, W4A8, HardwareFacts("arm-cpu", "arm", "arm_cpu"), "vllm", None),
        (LLAMA, FP8, H100, "vllm", None),
        (LLAMA, FP8, A100, "vllm", None),
        (LLAMA, FP8, A100, "tensorrt-llm", "tensorrt-llm/fp8-not-before-ada"),
        (LLAMA, FP8, HardwareFacts("v100", "nvidia", "volta", 7.0), "vllm", "vllm/fp8-not-on-this-hardware"),
        (BLOOM, AG, H100, "vllm", "interop/no-engine-loads-activation-groups"),
        (BLOOM, AG, H100, None, None),
        (LLAMA, W3._replace(kv_bits=4), A100, "vllm", "vllm/no-kv-under-8-bits"),
        (LLAMA, W3ASYM._replace(format="compressed-tensors"), A100, None, "interop/three-bit-asymmetric-as-gptq"),
        (LLAMA, W3ASYM, A100, "vllm", None),
        (LLAMA, W3, A100, "llama.cpp", "llamacpp/gguf-only"),
        (LLAMA, W3, HardwareFacts("mi300x", "amd", "cdna3"), "vllm", "vllm/gptq-not-on-this-hardware"),
        (LLAMA._replace(family="gpt-2"), W8A8, A100, "vllm", "interop/gpt2-not-in-compressed-tensors"),
    ],
)  # fmt: skip
def test_what_the_papers_and_the_tables_reject(
    model: ModelFacts, candidate: CandidateFacts, hardware: HardwareFacts, engine: str | None, rejected_by: str | None
) -> None:
    result = ask(model, candidate, hardware, engine)
    assert [rule.id for rule in result.rejections][:1] == ([rejected_by] if rejected_by else [])


def test_batch_decides_between_weights_and_activations() -> None:
    w4 = CandidateFacts("w4a16-g128", "gptq", 4, group_size=128, format="gptq")
    small, large = (
        load_rules().for_query(LLAMA, BudgetFacts(batch=batch, objective="throughput"), H100, EngineFacts("vllm"))
        for batch in (1, 32)
    )
    assert small.judge(w4).weight - small.judge(FP8).weight > large.judge(w4).weight - large.judge(FP8).weight
    assert large.judge(FP8).weight > large.judge(w4).weight


def test_published_settings_reach_the_recipe() -> None:
    assert ask(OPT, W8A8, A100).settings["smoothquant_alpha"] == 0.5
    assert ask(OPT._replace(family="glm"), W8A8, A100).settings["smoothquant_alpha"] == 0.75
    assert ask(LLAMA, W8A8, A100).settings["smoothquant_alpha"] == 0.85
    assert ask(BLOOM, W3, A100).settings["act_order"] is True


def test_sources_that_conflict_are_named() -> None:
    notes = [rule.id for rule in ask(BLOOM, W3._replace(group_size=0), A100).notes]
    assert "gptq/bloom-176b-three-bit-sources-conflict" in notes
