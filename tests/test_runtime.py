"""Models in quantized memory: the logits of the plain way, by every format, and in the memory of their codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from quantrecipe.kernels.cuda import select
from quantrecipe.plugins.native.rounding import fake_quantize_inputs
from quantrecipe.runner.cli import cli
from quantrecipe.runner.progress import Quiet
from quantrecipe.runner.quantized import open_dequantized, round_activations
from quantrecipe.runner.scorers import Streamed
from quantrecipe.runner.serving import Service, serve, stream
from quantrecipe.runner.stored_rounding import stored_rounding
from quantrecipe.runtime.embedding import QuantEmbedding
from quantrecipe.runtime.explain import explain
from quantrecipe.runtime.layers import QuantLinear
from quantrecipe.runtime.load import Loaded
from quantrecipe.runtime.pack import Target
from quantrecipe.schemes import QuantizationArgs
from tests import foreign
from tests.families import make_model
from tests.native_jobs import quantize, tokens
from tests.runner_models import add_tokenizer

#: Where inputs are rounded, a sum that ends otherwise in its last bit makes another code of a near tie.
ROUNDED = 8e-3
#: GPTQ's and AWQ's loaders round a weight to fp16 before it is multiplied; kernels do not.
IN_FP16 = 1e-3


def plain_logits(folder: Path, given: torch.Tensor) -> torch.Tensor:
    """Dequantized block by block in fp32, inputs rounded by tensor operations."""
    stored, skeleton = open_dequantized(folder, torch.float32)
    round_activations(stored, skeleton, stored_rounding(stored, skeleton))
    scorer = Streamed(skeleton, dtype=torch.float32)
    scorer.run(given, Quiet())
    return scorer.logits(0, 0, given.shape[1])


def check_logits(folder: Path, limit: float = 1e-4) -> Loaded:
    loaded, given = serve(folder, Service(dtype=torch.float32)), tokens(2, 24, seed=3)
    with torch.inference_mode():
        found = loaded.model(given).logits
    wanted = plain_logits(folder, given)
    assert float((found - wanted).norm() / wanted.norm()) < limit
    scorer = stream(folder, Service(dtype=torch.float32))
    scorer.run(given, Quiet())
    torch.testing.assert_close(scorer.logits(0, 0, given.shape[1]), found, rtol=1e-4, atol=1e-4)
    scorer.close()
    return loaded


def paths(loaded: Loaded) -> set[str]:
    return {row["path"] for row in loaded.to_json()}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model("llama-tied", tmp_path_factory.mktemp("runtime") / "model")


@pytest.mark.parametrize(
    ("scheme", "form", "path"),
    [
        ("w4a16-g32", "compressed-tensors", "weight-only"),
        ("w3a16-g32-asym", "compressed-tensors", "weight-only"),
        ("w8a16", "compressed-tensors", "weight-only"),
        ("w5a16", "quantrecipe", "weight-only"),
        ("w8a8", "compressed-tensors", "w8a8"),
        ("fp8", "compressed-tensors", "fp8"),
        ("w4a8-g32", "compressed-tensors", "weight-only"),
        ("w4a16-g32-asym", "gptq", "weight-only"),
        ("w2a16-g32", "gptq_v2", "weight-only"),
        ("nf4", "bitsandbytes", "dequantized"),
    ],
)
def test_logits_of_what_the_native_backend_writes(
    model: Path, tmp_path: Path, scheme: str, form: str, path: str
) -> None:
    quantize(model, tmp_path, {"main": {"scheme": scheme, "method": "rtn"}}, form)
    limit = ROUNDED if "a16" not in scheme and scheme != "nf4" else IN_FP16 if "gptq" in form else 1e-4
    assert paths(check_logits(tmp_path, limit)) == {path}


STATIC = {"num_bits": 8, "strategy": "tensor", "dynamic": False}


@pytest.mark.parametrize(
    ("inputs", "kind", "path"),
    [
        (STATIC, "int", "w8a8"),
        (STATIC | {"symmetric": False}, "int", "w8a8"),
        (STATIC | {"type": "float"}, "float", "fp8"),
        ({"num_bits": 8, "strategy": "token", "dynamic": True, "symmetric": False}, "int", "weight-only"),
        ({"num_bits": 4, "strategy": "token", "dynamic": True}, "int", "weight-only"),
    ],
)
def test_inputs_are_rounded_as_the_config_says(
    model: Path, tmp_path: Path, inputs: dict[str, Any], kind: str, path: str
) -> None:
    group = {"weights": {"num_bits": 8, "type": kind, "strategy": "channel"}, "input_activations": inputs}
    quantize(model, tmp_path, {"main": group | {"method": "rtn"}})
    assert paths(check_logits(tmp_path, ROUNDED if inputs["num_bits"] == 8 else 0.1)) == {path}


def test_one_layer_gives_what_its_inputs_rounding_says(model: Path, tmp_path: Path) -> None:
    quantize(model, tmp_path, {"main": {"scheme": "w8a8", "method": "rtn"}})
    layer = serve(tmp_path, Service(dtype=torch.float32)).model.get_submodule("model.layers.0.mlp.up_proj")
    weight = open_dequantized(tmp_path, torch.float32)[0].tensor("model.layers.0.mlp.up_proj.weight")
    for rows in (1, 5, 70):
        x = torch.randn(rows, 64)
        wanted = fake_quantize_inputs(x, QuantizationArgs(num_bits=8, strategy="token", dynamic=True)) @ weight.t()
        torch.testing.assert_close(layer(x), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "opt", "mixtral", "falcon"])
def test_other_families(tmp_path: Path, family: str) -> None:
    source = make_model(family, tmp_path / "model")
    form = "quantrecipe" if family in ("gpt2", "falcon") else "compressed-tensors"
    quantize(source, tmp_path / "out", {"main": {"scheme": "w4a16-g32", "method": "rtn"}}, form)
    loaded = check_logits(tmp_path / "out")
    assert paths(loaded) == ({"dequantized"} if family == "falcon" else {"weight-only"})


@pytest.mark.parametrize("kind", ["awq", "gptq", "int8"])
def test_what_other_tools_write(model: Path, tmp_path: Path, kind: str) -> None:
    name = next(one for one in foreign.KINDS if one.startswith(kind))
    foreign.convert(name, model, tmp_path / "out")
    if kind != "int8":
        assert paths(check_logits(tmp_path / "out", IN_FP16)) == {"weight-only"}
        return
    loaded = serve(tmp_path / "out", Service(dtype=torch.float32))
    assert paths(loaded) == {"llm-int8"}


def test_act_order_is_undone_at_load(model: Path, tmp_path: Path) -> None:
    def shuffled(weight: np.ndarray) -> tuple[foreign.Tensors, np.ndarray]:
        order = np.random.default_rng(0).permutation(weight.shape[1])
        tensors, values = foreign.gptq(weight[:, order], 8, True, 2)
        words = tensors["qweight"].T.contiguous().view(torch.uint8)[:, np.argsort(order)]
        tensors["qweight"] = words.contiguous().view(torch.int32).T.contiguous()
        tensors["g_idx"] = tensors["g_idx"][np.argsort(order)]
        return tensors, values[:, np.argsort(order)]

    foreign.convert("gptq_v2", model, tmp_path / "out", shuffled)
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    foreign.change_config(tmp_path / "out", quantization_config=config | {"bits": 8, "desc_act": True})
    loaded = check_logits(tmp_path / "out", IN_FP16)
    assert any(isinstance(one, QuantLinear) and one.order is not None for one in loaded.model.modules())


def test_a_model_in_16_bits_decodes_with_a_cache(model: Path, tmp_path: Path) -> None:
    quantize(model, tmp_path, {"main": {"scheme": "w4a16-g32", "method": "rtn"}})
    loaded, given = serve(tmp_path, Service(dtype=torch.bfloat16)), tokens(1, 12, seed=4)
    with torch.inference_mode():
        whole = loaded.model(given).logits
        first = loaded.model(given[:, :-1], use_cache=True)
        last = loaded.model(given[:, -1:], past_key_values=first.past_key_values).logits
    assert float((last[0, -1] - whole[0, -1]).float().norm() / whole[0, -1].float().norm()) < 0.02


@pytest.fixture(scope="module")
def written(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    quantize(model, folder, {"main": {"scheme": "w4a16-g32", "method": "rtn"}})
    add_tokenizer(folder)
    return folder


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["generate", *arguments])


def test_generate_says_the_same_again(written: Path) -> None:
    words = [str(written), "--prompt", "the sea", "--max-new-tokens", "5", "--temperature", "1.5", "--format", "json"]
    texts = []
    for seed in ("7", "7", "8", "9"):
        result = run(*words, "--seed", seed)
        assert result.exit_code == 0, result.output
        found = json.loads(result.output)["models"][0]
        assert found["rate"] is None or found["rate"] > 0
        texts.append(found["text"])
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


def test_generate_beside_the_original(model: Path, written: Path) -> None:
    add_tokenizer(model)
    result = run(str(written), "--prompt", "the sea", "--max-new-tokens", "4", "--against", str(model))
    assert result.exit_code == 0, result.output
    assert "weight-only: 4-bit integer weights" in result.output
    assert "not quantized" in result.output


def test_errors_are_one_line(written: Path) -> None:
    words = ["generate", str(written), "--prompt", "the", "--max-new-tokens", "500"]
    process = subprocess.run(
        [sys.executable, "-m", "quantrecipe.runner.cli", *words], capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stdout) == (2, "")
    assert "the model has 128 positions" in process.stderr
    assert len(process.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "fault"),
    [(["--prompt", "the", "--max-new-tokens", "0"], "Invalid value"), ([], "Missing option '--prompt'")],
)
def test_wrong_options_are_refused(written: Path, words: list[str], fault: str) -> None:
    result = run(str(written), *words)
    assert result.exit_code == 2
    assert fault in result.output


PROBE = """
import sys, threading, time
from pathlib import Path
from quantrecipe.runner.meter import anonymous_memory
from quantrecipe.runner.serving import Service, serve
peak = [0]
def watch():
    while True:
        peak[0] = max(peak[0], anonymous_memory()); time.sleep(0.002)
serve(Path(sys.argv[2]))  # what libraries keep
before = anonymous_memory()
threading.Thread(target=watch, daemon=True).start()
loaded = serve(Path(sys.argv[1]))
print(peak[0] - before, loaded.weight_bytes)
"""


def test_loading_never_holds_the_weights_in_16_bits(tmp_path: Path, written: Path) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=24000, hidden_size=512, intermediate_size=1536, num_hidden_layers=10, num_attention_heads=8,
        tie_word_embeddings=True,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path / "model")
    quantize(tmp_path / "model", tmp_path / "out", {"main": {"scheme": "w4a16-g64", "method": "rtn"}})
    output = subprocess.run(
        [sys.executable, "-c", PROBE, str(tmp_path / "out"), str(written)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    peak, held = map(int, output.split())
    embedding = 2 * 24000 * 512
    blocks = (tmp_path / "model" / "model.safetensors").stat().st_size - embedding
    assert held < 0.3 * blocks + embedding
    assert peak < held + 16 * 512 * 1536  # what is held, and one layer on its way; the embedding once


@pytest.mark.parametrize("scheme", ["w8a16", "w8a16-g32", "w8a16-asym"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_embedding_stays_in_bytes(tmp_path: Path, scheme: str, dtype: torch.dtype) -> None:
    """The rows that a loader dequantizes, to the bit."""
    source, out = make_model("llama", tmp_path / "model"), tmp_path / "out"
    groups = {"main": {"scheme": "w4a16-g32", "method": "rtn"}}
    groups["table"] = {"scheme": scheme, "targets": ["Embedding"], "method": "rtn"}
    quantize(source, out, groups)
    loaded = serve(out, Service(dtype=dtype))
    embedding = loaded.model.get_input_embeddings()
    assert isinstance(embedding, QuantEmbedding)
    ids = torch.tensor([[0, 159, 3], [7, 7, 80]])
    assert torch.equal(embedding(ids), open_dequantized(out, dtype)[0].tensor("model.embed_tokens.weight")[ids])
    assert embedding.codes.nbytes == 160 * 64
    assert "rows as codes" in paths(loaded)
    check_logits(out)


def test_kernels_of_a_gpu_are_explained_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "device_of", lambda device: select.Device("H100", 132))
    layer = QuantLinear("weight-only", "", (4096, 14336), 4, 128)
    half, full = (Target(torch.device("cuda"), dtype) for dtype in (torch.float16, torch.float32))
    assert [explain(layer, m, half).kernel for m in (1, 8, 16, 2048)] == [
        "gemv_wNa16", "gemv_wNa16", "gemm_wNa16", "dequantize",
    ]  # fmt: skip
    assert "eight rows cost as one" in explain(layer, 1, half).why
    assert explain(layer, 1, full).kernel == "torch's product"
    assert explain(QuantLinear("w8a8", "", (4096, 4096), 8), 1, half).kernel == "gemm_w8a8"
