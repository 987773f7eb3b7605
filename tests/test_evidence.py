"""The published tables: numbers checked by hand, names, quotes and misprints."""

import csv

import pytest

from quantrecipe.rules import evidence_table as table
from quantrecipe.rules.evidence_names import normalise_family, normalise_method, normalise_metric
from quantrecipe.rules.evidence_row import EvidenceRow


@pytest.fixture(scope="module")
def rows() -> list[EvidenceRow]:
    return table.load()


def find(rows: list[EvidenceRow], **wanted: object) -> list[EvidenceRow]:
    return [r for r in rows if all(getattr(r, k) == v for k, v in wanted.items())]


def test_every_file_is_described() -> None:
    described = (table.FOLDER / "SOURCES.md").read_text()
    assert all(path.name in described for path in table.FOLDER.glob("*.csv"))


def test_files_have_as_many_rows_as_the_tables() -> None:
    counts = {"gptq.csv": 686, "modern.csv": 926, "zeroquant_v2.csv": 107, "checkpoint_sizes.csv": 12}
    for name, count in counts.items():
        with (table.FOLDER / name).open(newline="") as file:
            assert sum(1 for _ in csv.DictReader(file)) == count, name


@pytest.mark.parametrize(("group", "printed"), [(None, 8.64), (1024, 8.35), (128, 8.26)])
def test_bloom_176b_three_bits(rows: list[EvidenceRow], group: int | None, printed: float) -> None:
    found = find(rows, family="bloom", params_b=176.0, weight_bits=3.0, method="gptq", metric="ppl_wiki2",
                 group_size=group)  # fmt: skip
    assert {r.value for r in found} == {printed}
    assert {r.baseline for r in found} == {8.11}


def test_bloom_176b_three_bit_rounding_collapses(rows: list[EvidenceRow]) -> None:
    found = find(rows, family="bloom", params_b=176.0, weight_bits=3.0, method="rtn", metric="ppl_wiki2")
    assert {r.value for r in found} == {571.0}


def test_act_order_is_read_where_it_is_stated(rows: list[EvidenceRow]) -> None:
    found = find(rows, family="opt", params_b=66.0, method="gptq", act_order=True)
    assert {(r.weight_bits, r.value) for r in found} == {(4.0, 9.34), (3.0, 9.95)}
    paper = find(rows, source="GPTQ (2210.17323) ICLR2023", table="Table 3", method="gptq")
    assert all(r.act_order is False for r in paper)


def test_slip_of_the_slide_is_the_model_whose_baseline_it_prints(rows: list[EvidenceRow]) -> None:
    slips = [r for r in rows if "OPT-3b" in r.model]
    assert slips
    assert {r.params_b for r in slips} == {1.3}


def test_cache_bits_come_from_rptqs_names(rows: list[EvidenceRow]) -> None:
    found = find(rows, method="rptq", kv_bits=3)
    assert found
    assert all(r.act_bits == 16 for r in found)


def test_quoted_row_is_kept_once_from_its_first_source(rows: list[EvidenceRow]) -> None:
    """SpQR's table repeats OmniQuant's and GPTQ's LLaMA-7B 4-bit row, 6.13 on WikiText2 (GPTQ per row)."""
    asked = {"family": "llama-1", "params_b": 7.0, "weight_bits": 4.0, "method": "gptq", "value": 6.13}
    assert len({r.source for r in find(rows, **asked)}) == 2
    kept = find(table.deduplicate(rows), **asked)
    assert [r.source for r in kept] == ["SpQR (arXiv:2306.03078)"]


def test_deduplication_drops_only_repeats(rows: list[EvidenceRow]) -> None:
    kept = table.deduplicate(rows)
    assert {table.number_key(r) for r in kept} == {table.number_key(r) for r in rows}
    assert len(kept) == len({table.number_key(r) for r in kept})


def test_sources_that_quote_each_other_stand_together(rows: list[EvidenceRow]) -> None:
    groups = table.linked_groups(rows)
    assert groups["SpQR (paper PDF)"] == groups["OmniQuant (2308.13137) ICLR2024"] == groups["GPTQ repo README"]
    assert groups["ZeroQuant-FP (2307.09782), author slides"] == groups["ZeroQuant-V2 (2303.08302)"]
    assert groups["AWQ (2306.00978) early arXiv version"] != groups["GPTQ (2210.17323) ICLR2023"]


def test_misprints_are_marked(rows: list[EvidenceRow]) -> None:
    suspects = [r for r in rows if r.suspect]
    assert len(suspects) >= 14
    assert {"OmniQuant (2308.13137) ICLR2024", "llama.cpp perplexity README"} <= {r.source for r in suspects}


def test_loss_is_in_nats() -> None:
    row = EvidenceRow("s", "t", "opt", "m", 1.0, 4, 4, None, 16, 16, "rtn", None, "ppl_wiki2", 11.0, 10.0)
    assert row.loss == pytest.approx(0.0953, abs=1e-4)
    assert "act_scope" not in row.to_json()


@pytest.mark.parametrize(
    ("family", "model", "name"),
    [("Llama", "Llama-2-70B", "llama-2"), ("llama", "meta-llama/Llama-3.1-8B", "llama-3"),
     ("LLaMA", "LLaMa-7B", "llama-1"),
     ("OPT", "", "opt"), ("", "bigscience/bloom-7b1", "bloom"), ("OPT-IML", "OPT-IML-30B", "opt-iml"),
     ("qwen2", "Qwen2.5-7B", "qwen2.5"), ("Mars", "mars-1", "mars"), ("", "", "")],
)  # fmt: skip
def test_family_names(family: str, model: str, name: str) -> None:
    assert normalise_family(family, model) == name


@pytest.mark.parametrize(
    ("printed", "name"),
    [("GPTQ-R", "gptq"), ("W8A8 naive", "rtn"), ("SmoothQuant-O1", "smoothquant"), ("ZQ-Local*", "zq-local"),
     ("GGUF-q4_K_M", "gguf"), ("GGUF-iq2_XS+imatrix(WT 10m)", "gguf-imatrix"), ("LLM.int8()", "llm-int8"),
     ("PTQ+LoRC(rank8)", "lorc"), ("smoothquant+gptq", "smoothquant+gptq"), ("Nonsense 9", "nonsense 9")],
)  # fmt: skip
def test_method_names(printed: str, name: str) -> None:
    assert normalise_method(printed) == name


def test_metric_names() -> None:
    assert normalise_metric("wikitext2_ppl") == "ppl_wiki2"
    assert normalise_metric("acc_piqa") == "acc_piqa"
