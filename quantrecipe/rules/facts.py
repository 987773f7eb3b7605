"""What rules may speak of: five groups of typed facts. A fact that is None is unknown.

Each annotation carries the fact's type, its allowed words where it is a choice, and one line of explanation;
``fields.py`` reads them when a pack is checked or documented, never while judging.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

Attention = Literal["mha", "gqa", "mqa", "mla"]
Norm = Literal["layernorm", "rmsnorm"]
Objective = Literal["quality", "memory", "latency", "throughput"]
Vendor = Literal["nvidia", "amd", "intel", "apple", "arm", "google", "unknown"]
Architecture = Literal[
    "pascal", "volta", "turing", "ampere", "ada", "hopper", "blackwell", "cdna2", "cdna3", "rdna3",
    "intel_gpu", "apple_gpu", "cpu", "arm_cpu", "unknown",
]  # fmt: skip
Engine = Literal["vllm", "sglang", "transformers", "tensorrt-llm", "llama.cpp"]
WeightType = Literal["int", "float", "nf4", "fp4"]
CodeType = Literal["none", "int", "float"]


class ModelFacts(NamedTuple):
    """The model that is to be quantized."""

    id: Annotated[str, "catalogue name, hub id or path"]
    family: Annotated[str, "family as the evidence names it: opt, bloom, llama-1, llama-2, llama-3, qwen2.5, …"]
    parameters: Annotated[int, "count of parameters, tied tensors once"]
    layers: Annotated[int | None, "decoder blocks"] = None
    hidden_size: Annotated[int | None, "width of the residual stream"] = None
    tied_embeddings: Annotated[bool | None, "is the head the embedding?"] = None
    is_moe: Annotated[bool, "has it routed experts?"] = False
    attention: Annotated[Attention | None, "kind of attention"] = None
    norm: Annotated[Norm | None, "kind of normalization"] = None
    activation: Annotated[str | None, "activation of the MLP: relu, gelu, silu, …"] = None
    training_tokens_per_parameter: Annotated[float | None, "how long it was trained for its size"] = None

    @property
    def billions(self) -> Annotated[float, "parameters / 1e9"]:
        """Parameters in units of 1e9."""
        return self.parameters / 1e9


class BudgetFacts(NamedTuple):
    """What the user has and wants."""

    memory_bytes: Annotated[int | None, "memory that all of it must fit, in bytes"] = None
    context: Annotated[int, "tokens of context, prompt and answer together"] = 2048
    batch: Annotated[int, "sequences decoded at once"] = 1
    gpus: Annotated[int, "devices that share the model"] = 1
    objective: Annotated[Objective, "what decides between candidates that fit"] = "quality"


class HardwareFacts(NamedTuple):
    """The device; all unknown where none was named or found."""

    name: Annotated[str | None, "device name, such as a100-80gb"] = None
    vendor: Annotated[Vendor | None, "who makes it"] = None
    architecture: Annotated[Architecture | None, "its generation; cpu is x86"] = None
    compute_capability: Annotated[float | None, "CUDA compute capability, such as 8.9"] = None
    memory_bytes: Annotated[int | None, "bytes of one device"] = None
    fp8: Annotated[bool | None, "does it multiply FP8 in hardware?"] = None


class EngineFacts(NamedTuple):
    """The program that will serve the model; all unknown where none was named."""

    name: Annotated[Engine | None, "the serving engine"] = None
    version: Annotated[str | None, "its version as it prints it"] = None
    release: Annotated[int | None, "its version as 1000 * major + minor: 0.11.2 is 11"] = None


class CandidateFacts(NamedTuple):
    """One way to quantize the model: what is stored, and how it is made."""

    scheme: Annotated[str, "scheme name, such as w4a16-g128"]
    method: Annotated[str, "published pipeline: rtn, gptq, awq, smoothquant, zq-local, …; none if not quantized"]
    weight_bits: Annotated[int, "bits of a weight code; 16 if not quantized"]
    act_bits: Annotated[int, "bits of an activation; 16 if not quantized"] = 16
    group_size: Annotated[int, "weights that share a scale; 0 is one scale a channel"] = 0
    act_group_size: Annotated[int, "activations that share a scale; 0 is one scale a token"] = 0
    symmetric: Annotated[bool, "have weights no zero point?"] = True
    type: Annotated[WeightType, "number type of the weight codes"] = "int"
    act_type: Annotated[CodeType, "number type of quantized activations"] = "none"
    kv_bits: Annotated[int, "bits of a cached key or value; 16 if not quantized"] = 16
    kv_type: Annotated[CodeType, "number type of a quantized KV cache"] = "none"
    act_order: Annotated[bool, "does GPTQ take columns by falling Hessian diagonal?"] = False
    bits_per_weight: Annotated[float | None, "true bits a weight, scales and zero points included"] = None
    format: Annotated[str | None, "checkpoint format: compressed-tensors, gptq, gptq_v2, awq, bitsandbytes, gguf"] = (
        None
    )
    double_quantized: Annotated[bool, "are the scales quantized too?"] = False
    compensation: Annotated[Literal["none", "lorc"], "what is added after rounding"] = "none"


class Facts(NamedTuple):
    """All that a rule can see at once."""

    model: ModelFacts
    candidate: CandidateFacts
    budget: BudgetFacts = BudgetFacts()
    hardware: HardwareFacts = HardwareFacts()
    engine: EngineFacts = EngineFacts()


def release_number(version: str | None) -> int | None:
    """A version as 1000 * major + minor, for comparisons; None where it is unknown or not numeric."""
    parts = (version or "").lstrip("v").split(".")
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts[:2]):
        return None
    return 1000 * int(parts[0]) + int(parts[1])
