"""One name for each family, method and data set, however a paper or a user spells it.

Method names are the published pipelines (DESIGN.md): rtn, gptq, awq, smoothquant, zq-local, ...
"""

from __future__ import annotations

import re
from functools import lru_cache

METHODS = {
    "fp16": "none", "bf16": "none", "none": "none", "32-bit float": "none", "gguf-f16": "none",
    "gguf-fp16": "none",
    "rtn": "rtn", "rtn vector-wise": "rtn", "w8a8 naive": "rtn", "zeroquant": "rtn", "absmax": "rtn",
    "minmax (per-token)": "rtn", "int8 absmax": "rtn", "int8 zeropoint": "rtn", "naive": "rtn",
    "int8 absmax row-wise": "rtn", "int8 absmax vector-wise": "rtn", "int8 zeropoint vector-wise": "rtn",
    "round-to-nearest": "rtn", "minmax": "rtn", "dynamic": "rtn",
    "int8 absmax row-wise + decomposition": "llm-int8", "absmax llm.int8()": "llm-int8",
    "zeropoint llm.int8()": "llm-int8", "llm.int8()": "llm-int8", "llm.int8": "llm-int8",
    "llmint8": "llm-int8", "bitsandbytes-int8": "llm-int8",
    "gptq": "gptq", "gptq+act-order": "gptq", "gptq-r": "gptq", "gptq-int8": "gptq", "gptq-int4": "gptq",
    "awq": "awq", "awq+gptq": "awq+gptq", "rtn with 1% weight channels kept fp16": "rtn+1%-fp16",
    "smoothquant": "smoothquant", "smoothquant-o1": "smoothquant", "smoothquant-o2": "smoothquant",
    "smoothquant-o3": "smoothquant", "smoothquant (per-token)": "smoothquant",
    "sq": "smoothquant", "smoothquant+rtn": "smoothquant", "sq+gptq": "smoothquant+gptq",
    "outlier suppression": "outlier-suppression", "os+": "os+", "os+ (per-token)": "os+",
    "zq-local*": "zq-local", "zq-global*": "zq-global", "zq-local": "zq-local", "zq-global": "zq-global",
    "ptq without lorc": "ptq-unnamed", "w8a16 reference": "rtn",  # at 8 bits the method does not matter
    "ptq+lorc(rank8)": "lorc",
    "zeroquant-fp int-int": "zeroquant-fp", "zeroquant-fp int-fp": "zeroquant-fp",
    "zeroquant-fp fp-fp": "zeroquant-fp",
    "qserve": "qoq", "qoq": "qoq", "olive": "olive", "bnb-nf4": "nf4", "qlora": "nf4",
    "kv int8 per-head per-token asym": "kv-only", "kv int4 per-head per-token asym": "kv-only",
    "zero-shot float with blocking": "float-blocks",
}  # fmt: skip

_FAMILIES = (  # the first pattern found in "family model" wins
    (r"codellama|code-llama", "codellama"), (r"falcon-?3", "falcon3"),
    (r"opt-iml", "opt-iml"), (r"\bopt\b", "opt"), (r"bloomz", "bloomz"), (r"bloom", "bloom"),
    (r"llama-?3(?!\d*\s?b)", "llama-3"), (r"llama-?2.*chat", "llama-2-chat"), (r"llama-?2|llama2", "llama-2"),
    (r"tinyllama", "tinyllama"), (r"llama(?!-?\d\.?\d?-?vision)", "llama-1"),
    (r"mixtral", "mixtral"), (r"mistral", "mistral"), (r"falcon", "falcon"), (r"chatglm|glm-4", "chatglm"),
    (r"\bglm", "glm"), (r"internlm", "internlm2"), (r"qwen-?3", "qwen3"), (r"qwen-?2\.5", "qwen2.5"),
    (r"qwen-?2", "qwen2"), (r"qwen-?1\.5", "qwen1.5"), (r"fairseq", "fairseq"), (r"gpt-?2", "gpt-2"),
    (r"pythia|neox", "pythia"), (r"gpt-?j", "gpt-j"), (r"gemma-?3", "gemma-3"), (r"gemma-?2", "gemma-2"),
    (r"gemma", "gemma"), (r"phi-?\d?", "phi"), (r"mpt", "mpt"), (r"deepseek", "deepseek"),
    (r"gpt-?oss", "gpt-oss"), (r"smollm", "smollm"), (r"roberta", "roberta"), (r"\bt5", "t5"),
)  # fmt: skip

# Tokens a family was trained on, in billions, by its own paper or card: OPT arXiv:2205.01068, BLOOM 2211.05100,
# LLaMA 2302.13971, Llama-2 2307.09288, Llama-3 2407.21783, Falcon 2311.16867, GLM-130B 2210.02414, Qwen2 2407.10671,
# Qwen2.5 2412.15115, Qwen3 2505.09388, Gemma 2403.08295, Gemma-2 2408.00118, Gemma-3 2503.19786, fairseq 2112.10684,
# Pythia 2304.01373, GPT-J (the Pile), MPT (MosaicML's post), SmolLM2 2502.02737, TinyLlama 2401.02385.
TRAINING_TOKENS_B = {
    "opt": 180.0, "opt-iml": 180.0, "bloom": 366.0, "bloomz": 366.0, "llama-1": 1200.0, "llama-2": 2000.0,
    "llama-2-chat": 2000.0, "llama-3": 15000.0, "falcon": 1250.0, "glm": 400.0, "qwen2": 7000.0,
    "qwen2.5": 18000.0, "qwen3": 36000.0, "gemma": 6000.0, "gemma-2": 8000.0, "gemma-3": 12000.0,
    "fairseq": 300.0, "pythia": 300.0, "gpt-j": 402.0, "mpt": 1000.0, "smollm": 11000.0, "tinyllama": 3000.0,
}  # fmt: skip


@lru_cache(maxsize=1024)
def normalise_method(method: str) -> str:
    """The pipeline's own name: "ZQ-Local*" -> "zq-local"; an unknown one comes back in lower case."""
    name = method.strip().lower().replace("_", "-")
    if name.startswith("gguf") and name != "gguf-legacy":
        return "gguf-imatrix" if "imatrix" in name or "-iq" in name else "gguf"
    if name.startswith("rptq"):
        return "rptq"
    if name.startswith(("qlora", "lora")):
        return "finetuned"
    return METHODS.get(name, name)


@lru_cache(maxsize=1024)
def normalise_family(family: str, model: str = "") -> str:
    """The evidence's name of a family: ("LLaMA", "Llama-2-7B") -> "llama-2"; unknown: lower case.

    A model's name says more than its family's ("llama" stands for four families), so it is read first.
    """
    for text in (model, family):
        name = text.strip().lower().replace("_", "-")
        for pattern, canonical in _FAMILIES:
            if name and re.search(pattern, name):
                return canonical
    return family.strip().lower()


def normalise_metric(metric: str) -> str:
    """wikitext2_ppl -> ppl_wiki2, so that one data set has one name; other metrics are kept."""
    known = {"wikitext2_ppl": "ppl_wiki2", "c4_ppl": "ppl_c4", "ptb_ppl": "ppl_ptb",
             "wikitext2_ppl_llamacpp": "ppl_wiki2_llamacpp"}  # fmt: skip
    return known.get(metric, metric)
