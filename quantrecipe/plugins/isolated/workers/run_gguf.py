"""llama.cpp's legacy types (q8_0, q4_0, q4_1, q5_0, q5_1) through the gguf package, for Llama-like models.

Rounding is gguf's own (gguf.quants), block by block of 32; names and metadata are those that llama.cpp reads.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from worker_io import Channel, Refused, main, the_one_scheme

TYPES = {(8, True): "Q8_0", (4, True): "Q4_0", (4, False): "Q4_1", (5, True): "Q5_0", (5, False): "Q5_1"}
#: config.json's model_type -> GGUF's architecture; others name or permute their tensors otherwise.
ARCHITECTURES = {"llama": "llama", "mistral": "llama"}
FILE = "model.gguf"


def quantize(job: dict[str, Any], channel: Channel) -> None:
    """Convert and quantize tensor by tensor, then read the file back with gguf's own reader."""
    source = Path(job["model"])
    config = json.loads((source / "config.json").read_text())
    if config["model_type"] not in ARCHITECTURES:
        raise Refused(f"the gguf backend writes no {config['model_type']} models", "use a Llama-like model")
    weights = the_one_scheme(job)["weights"]
    kind = gguf.GGMLQuantizationType[TYPES[weights["num_bits"], weights["symmetric"]]]
    writer = gguf.GGUFWriter(Path(job["output"]) / FILE, ARCHITECTURES[config["model_type"]])
    describe(writer, config, kind)
    tokenizer(writer, source, config)
    channel.start("quantize with gguf", len(job["modules"]), "layers")
    for name, tensor in tensors(source, config):
        module = name.removesuffix(".weight")
        if module in job["modules"]:
            add(writer, config, name, tensor, kind)
            channel.advance(layer=module)
        else:
            add(writer, config, name, tensor, plain_type(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    kept = {**config, "quantization_config": {"quant_method": "gguf", "type": kind.name}}
    (Path(job["output"]) / "config.json").write_text(json.dumps(kept, indent=2, sort_keys=True))
    check(Path(job["output"]) / FILE, len(job["modules"]), kind)


def describe(writer: Any, config: dict[str, Any], kind: Any) -> None:
    """The model's dimensions under GGUF's keys."""
    heads = config["num_attention_heads"]
    theta = config.get("rope_theta") or config.get("rope_parameters", {}).get("rope_theta", 10000.0)
    writer.add_name(config.get("_name_or_path") or "model")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", heads))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_rope_freq_base(theta)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind.name}"])


def tokenizer(writer: Any, folder: Path, config: dict[str, Any]) -> None:
    """A byte-level BPE vocabulary, as GPT-2's. Raises Refused for another kind."""
    data = json.loads((folder / "tokenizer.json").read_text())
    if data["model"]["type"] != "BPE":
        raise Refused(f"the gguf backend writes BPE tokenizers, not {data['model']['type']}")
    words = {number: word for word, number in data["model"]["vocab"].items()}
    special = {token["id"]: token["content"] for token in data.get("added_tokens", ())}
    words |= special
    size = config["vocab_size"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([words.get(number, f"[PAD{number}]") for number in range(size)])
    normal, control, unused = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL, gguf.TokenType.UNUSED
    writer.add_token_types(
        [control if number in special else normal if number in words else unused for number in range(size)]
    )
    writer.add_token_merges(
        [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]
    )
    for key, add_id in (("bos_token_id", writer.add_bos_token_id), ("eos_token_id", writer.add_eos_token_id)):
        if isinstance(config.get(key), int):
            add_id(config[key])


def tensors(folder: Path, config: dict[str, Any]) -> Any:
    """(name, fp32 tensor) of every stored tensor; a tied head is left out, as llama.cpp has it."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as shard:
            for name in sorted(shard.keys()):
                if name != "lm_head.weight" or not config.get("tie_word_embeddings"):
                    yield name, shard.get_tensor(name).float().numpy()


def plain_type(tensor: np.ndarray) -> Any:
    """What is not quantized: matrices in bf16, vectors in fp32."""
    return gguf.GGMLQuantizationType.BF16 if tensor.ndim > 1 else gguf.GGMLQuantizationType.F32


def add(writer: Any, config: dict[str, Any], name: str, tensor: np.ndarray, kind: Any) -> None:
    """One tensor under GGUF's name; rows of q and k in GGUF's order."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    target = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if target is None:
        raise Refused(f"GGUF has no name for {name}", "use a plain Llama-like model")
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config.get("num_key_value_heads")}
    part = name.split(".")[-2]
    if part in heads:
        tensor = permute(tensor, heads[part] or config["num_attention_heads"])
    if kind == gguf.GGMLQuantizationType.F32:
        writer.add_tensor(target, tensor)
    else:
        writer.add_tensor(target, gguf.quants.quantize(tensor, kind), raw_dtype=kind)


def permute(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Rotary halves of each head interleaved, as llama.cpp's rotary embedding takes them."""
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def check(path: Path, quantized: int, kind: Any) -> None:
    """The file read by gguf's own reader: as many tensors of the type, every one finite."""
    reader = gguf.GGUFReader(path)
    found = [tensor for tensor in reader.tensors if tensor.tensor_type == kind]
    if len(found) != quantized:
        raise Refused(f"the file holds {len(found)} tensors of type {kind.name}, not {quantized}")
    for tensor in found:
        if not np.isfinite(gguf.quants.dequantize(tensor.data, kind)).all():
            raise Refused(f"{tensor.name} is not finite in the file")


def load(job: dict[str, Any]) -> Any:
    """The file by transformers' GGUF loader, dequantized to bf16."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        job["model"], gguf_file=FILE, dtype=torch.bfloat16, local_files_only=True
    ).to(job["device"])


if __name__ == "__main__":
    main(quantize, load)
