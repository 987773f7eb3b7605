"""Every damage of docs/reliability.md, on whole checkpoints: with provenance, with the original, with neither."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quantrecipe.errors import ModelError
from quantrecipe.runner.integrity import verify_folder
from tests import families, foreign
from tests.foreign import Tensors, change_config, change_tensors

Damage = Callable[[Path], None]
Q = "model.layers.1.self_attn.q_proj"


@pytest.fixture(autouse=True)
def no_other_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other loaders see has its own tests; without it each case takes milliseconds."""
    monkeypatch.setattr("quantrecipe.runner.integrity.check_loading", lambda *_: None)


@dataclass(frozen=True)
class Place:
    model: Path
    sound: dict[str, Path]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("verify")
    model = families.make_model("llama", root / "model")
    sound = {}
    for kind in foreign.KINDS:
        meant = foreign.convert(kind, model, root / kind)
        _provenance(root / kind, meant)
        sound[kind] = root / kind
    return Place(model, sound)


def _provenance(folder: Path, meant: dict[str, np.ndarray]) -> None:
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    weights = {
        name: hashlib.sha256(weight.astype(np.float32).tobytes()).hexdigest() for name, weight in meant.items()
    }
    record = {"outputs": files, "weights": weights, "weights_dtype": "float32"}
    (folder / "provenance.json").write_text(json.dumps(record))


def _safetensors(folder: Path) -> tuple[Path, bytearray, int]:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    return path, data, int.from_bytes(data[:8], "little")


def header_bit(folder: Path) -> None:
    path, data, _ = _safetensors(folder)
    data[data.index(b"q_proj")] ^= 1  # a tensor now has another name
    path.write_bytes(data)


def body_bit(folder: Path) -> None:
    path, data, size = _safetensors(folder)
    found = re.search(
        re.escape(Q.encode()) + rb'\.(qweight|weight|weight_packed|codes)".*?"data_offsets":\[(\d+),',
        bytes(data[: 8 + size]),
    )
    assert found is not None
    data[8 + size + int(found[2]) + 100] ^= 0x40
    path.write_bytes(data)


def _tensors(change: Callable[[Tensors], None]) -> Damage:
    return lambda folder: change_tensors(folder, change)


SCALES = ("scales", "weight.absmax", "weight_scale", "SCB", "scale")


def _nan_scale(tensors: Tensors) -> None:
    name = next(name for part in SCALES if (name := f"{Q}.{part}") in tensors)
    if tensors[name].dtype == torch.uint8:  # e8m0
        tensors[name].view(-1)[3] = 255
    else:
        tensors[name].view(-1)[3] = float("nan")


def _zero_scale(tensors: Tensors) -> None:
    name = next(name for part in SCALES if (name := f"{Q}.{part}") in tensors)
    tensors[name].view(-1)[3] = 0


def _drop(tensors: Tensors) -> None:
    del tensors[next(name for name in tensors if name.startswith(Q) and not name.endswith("weight"))]


def _drop_norm(tensors: Tensors) -> None:
    del tensors["model.layers.1.input_layernorm.weight"]


def _swap(first: str, second: str) -> Damage:
    def change(tensors: Tensors) -> None:
        for name in [name for name in tensors if f".1.{first}." in name]:
            other = name.replace(first, second)
            tensors[name], tensors[other] = tensors[other], tensors[name]

    return _tensors(change)


def claims(**changes: Any) -> Damage:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())["quantization_config"]
        change_config(folder, quantization_config=config | changes)

    return change


def claims_layout(layout: str, size: int) -> Damage:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())["quantization_config"]
        config["format"] = layout
        config["config_groups"]["group_0"]["weights"]["group_size"] = size
        change_config(folder, quantization_config=config)

    return change


def claims_of_modules(**changes: Any) -> Damage:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())["quantization_config"]
        config["modules"] = {name: said | changes for name, said in config["modules"].items()}
        change_config(folder, quantization_config=config)

    return change


def _plain_nibbles(tensors: Tensors) -> None:
    """As though the packer had left AWQ's order out."""
    for name, words in tensors.items():
        if name.endswith(("qweight", "qzeros")):
            shifts = [4 * place for place in (0, 4, 1, 5, 2, 6, 3, 7)]
            found = torch.zeros_like(words)
            for place, shift in enumerate(shifts):
                found |= ((words >> shift) & 15) << (4 * place)
            tensors[name] = found


def _forward_pass(tensors: Tensors) -> None:
    """What bitsandbytes 0.50.2 saves after its first forward pass on a CPU: maxima bf16 [K / B, N]."""
    for name in [name for name in tensors if name.endswith("absmax")]:
        rows = 32 if re.search("[kv]_proj", name) else 128 if re.search("gate|up", name) else 64
        tensors[name] = tensors[name].view(rows, -1).t().to(torch.bfloat16).contiguous()


def _repacked(tensors: Tensors) -> None:
    """functional.py, _convert_weight_packed_for_cpu: blocks of 32 rows, their columns interleaved."""
    for name in [name for name in tensors if name.endswith("proj.weight")]:
        data = tensors[name].flatten()
        codes = torch.stack([data >> 4, data & 15], -1).flatten()
        rows = 32 if re.search("[kv]_proj", name) else 128 if re.search("gate|up", name) else 64
        mixed = codes.view(rows // 32, 32, -1, 2).transpose(1, 2).reshape(-1, 64)
        tensors[name] = (mixed[:, 32:] << 4 | mixed[:, :32]).reshape(-1, 1)


def _dead_row(tensors: Tensors) -> None:
    tensors[f"{Q}.weight"][5] = 0


#: name -> (format, damage, exit code without provenance or original, words of the fault with the original at hand)
DAMAGES: dict[str, tuple[str, Damage, int, str]] = {
    "flipped bit in the header": ("gptq", header_bit, 1, "missing"),
    "flipped bit in the body": ("gptq", body_bit, 0, "1 of 4096 codes are not the nearest"),
    "flipped bit in nf4 codes": ("nf4", body_bit, 0, "1 of 4096 codes are not the nearest"),
    "NaN scale": ("gptq", _tensors(_nan_scale), 1, "1 of 128 scales are NaN"),
    "NaN maximum": ("nf4", _tensors(_nan_scale), 1, "NaN"),
    "NaN fp8 scale": ("fp8", _tensors(_nan_scale), 1, "NaN"),
    "zero scale": ("awq", _tensors(_zero_scale), 1, "not positive"),
    "dropped tensor": ("gptq_v2", _tensors(_drop), 1, "is missing"),
    "dropped nf4 maxima": ("nf4", _tensors(_drop), 1, "missing"),
    "dropped norm": ("awq", _tensors(_drop_norm), 1, "missing"),
    "v1 read as v2": ("gptq", claims(checkpoint_format="gptq_v2"), 1, "those of a gptq (version 1) file"),
    "v2 read as v1": ("gptq_v2", claims(checkpoint_format="gptq"), 1, "those of a gptq_v2 file"),
    "asymmetric v1 read as v2": ("gptq-asym", claims(checkpoint_format="gptq_v2"), 1, "stored as gptq does"),
    "asymmetric v2 read as v1": ("gptq_v2-asym", claims(checkpoint_format="gptq"), 1, "stored as gptq_v2 does"),
    "AWQ nibble order": ("awq", _tensors(_plain_nibbles), 0, "nibbles are in plain order"),
    "swapped q and k": ("gptq", _swap("self_attn.q_proj", "self_attn.k_proj"), 1, "but the architecture has"),
    "swapped gate and up": ("awq", _swap("mlp.gate_proj", "mlp.up_proj"), 0, "it is model.layers.1.mlp.up_proj's"),
    "swapped nf4 gate and up": (
        "nf4",
        _swap("mlp.gate_proj", "mlp.up_proj"),
        0,
        "it is model.layers.1.mlp.up_proj's",
    ),
    "claims awq": ("gptq", claims(quant_method="awq", version="gemm"), 1, "claims awq, but the tensors"),
    "claims gptq": ("awq", claims(quant_method="gptq"), 1, "claims gptq, but the tensors"),
    "claims bitsandbytes": ("gptq", claims(quant_method="bitsandbytes"), 1, "claims bitsandbytes, but the tensors"),
    "claims what nobody knows": ("gptq", claims(quant_method="magic"), 1, "claims magic, but the tensors"),
    "claims 8 bits": ("gptq", claims(bits=8), 1, "for 8 bits"),
    "claims another group size": ("awq", claims(group_size=64), 1, "has shape"),
    "claims int-quantized": ("fp8", claims(format="pack-quantized"), 1, "weight_packed is missing"),
    "saved after a forward pass": ("nf4", _tensors(_forward_pass), 1, "saved after a forward pass on a CPU"),
    "codes repacked in place": ("nf4", _tensors(_repacked), 1, "lack the code of their own maximum"),
    "dead channel": ("int8", _tensors(_dead_row), 2, "output channels are constant that were not"),
}


def _dead_codes(tensors: Tensors) -> None:
    """Row 5 of codes that stand for 0."""
    name = next(name for part in ("weight_packed", "codes") if (name := f"{Q}.{part}") in tensors)
    if f"{Q}.zero" in tensors:
        tensors[f"{Q}.zero"][5] = 0
        tensors[name][5] = 0
        bits = sum(4 << (3 * place) for place in range(64))  # the code of 0 is 4
        words = [(bits >> (32 * word)) & 0xFFFFFFFF for word in range(6)]
        tensors[name][5] = torch.tensor(words, dtype=torch.int64).to(torch.int32)
    else:
        tensors[name].view(torch.uint8)[5] = 0


#: Damages that every layout may have: exit code with neither provenance nor original; words with the original.
GENERAL: dict[str, tuple[Damage, int, str]] = {
    "flipped bit in the header": (header_bit, 1, "missing"),
    "flipped bit in the body": (body_bit, 0, "1 of 4096 codes are not the nearest"),
    "NaN scale": (_tensors(_nan_scale), 1, "are NaN or infinite"),
    "zero scale": (_tensors(_zero_scale), 1, "are not positive"),
    "dropped part": (_tensors(_drop), 1, "missing"),
    "dropped norm": (_tensors(_drop_norm), 1, "missing"),
    "swapped q and k": (_swap("self_attn.q_proj", "self_attn.k_proj"), 1, " has "),
    "swapped gate and up": (_swap("mlp.gate_proj", "mlp.up_proj"), 0, "it is model.layers.1.mlp.up_proj's"),
    "dead channel": (_tensors(_dead_codes), 2, "output channels are constant that were not"),
    "claims awq": (claims(quant_method="awq", version="gemm", bits=4), 1, "claims awq, but"),
    "claims what nobody knows": (claims(quant_method="magic"), 1, "claims magic, but the tensors"),
}
DAMAGES |= {
    f"{kind}: {name}": (kind, *rest)
    for kind in ("nvfp4", "mxfp4", "own", "own-e5m2")
    for name, rest in GENERAL.items()
    if (kind, name) != ("mxfp4", "zero scale")  # 2^-127 is its least
}
DAMAGES |= {
    "nvfp4 claims mxfp4": ("nvfp4", claims_layout("mxfp4-pack-quantized", 32), 1, "weight_scale is"),
    "mxfp4 claims nvfp4": ("mxfp4", claims_layout("nvfp4-pack-quantized", 16), 1, "weight_scale is"),
    "own: other bits": ("own", claims_of_modules(num_bits=4), 1, "has shape"),
    "own: other shape": ("own", claims_of_modules(shape=[64, 32]), 1, "shape"),
    "own: other layout": ("own", claims_of_modules(layout="pairs"), 1, "is int32"),
}


def _damaged(name: str, place: Place, tmp_path: Path, keep_provenance: bool) -> Path:
    kind, damage, *_ = DAMAGES[name]
    folder = tmp_path / "copy"
    shutil.copytree(place.sound[kind], folder)
    if not keep_provenance:
        (folder / "provenance.json").unlink()
    damage(folder)
    return folder


@pytest.mark.parametrize("name", [name for name in DAMAGES if ":" not in name])  # hashes know no layouts
def test_provenance_tells(name: str, place: Place, tmp_path: Path) -> None:
    report = verify_folder(_damaged(name, place, tmp_path, True))
    assert report.exit_code == 1
    assert any("has changed since it was written" in fault for fault in report.faults)


@pytest.mark.parametrize("name", DAMAGES)
def test_the_original_tells(name: str, place: Place, tmp_path: Path) -> None:
    report = verify_folder(_damaged(name, place, tmp_path, False), str(place.model))
    assert report.exit_code == 1
    assert any(DAMAGES[name][3] in fault for fault in report.faults), list(report.lines())
    assert all("\n" not in line for line in report.lines())


@pytest.mark.parametrize("name", DAMAGES)
def test_structure_tells_what_it_can(name: str, place: Place, tmp_path: Path) -> None:
    folder = _damaged(name, place, tmp_path, False)
    report = verify_folder(folder)
    assert report.exit_code == DAMAGES[name][2], list(report.lines())
    if report.exit_code == 0:
        assert any("hashes" in line for line in report.unchecked)
        assert any("--original" in line for line in report.unchecked)


@pytest.mark.parametrize("kind", foreign.KINDS)
def test_nothing_is_found_where_nothing_is_wrong(kind: str, place: Place, tmp_path: Path) -> None:
    shutil.copytree(place.sound[kind], tmp_path / "copy")
    if kind == "int8":  # its weights come out a last place apart from the plain formula's
        (tmp_path / "copy" / "provenance.json").unlink()
    report = verify_folder(tmp_path / "copy", str(place.model))
    assert report.exit_code == 0, list(report.lines())
    assert report.suspects == []
    said = " ".join(report.checked)
    for words in (
        "really quantized",
        "bits a weight",
        "as near the original as rounding puts them",
        "equal the original's",
    ):
        assert words in said


def test_a_weight_scaled_by_a_transform_is_no_damage(place: Place, tmp_path: Path) -> None:
    """AWQ folds a scale a column into the norm before it."""

    def scaled(weight: np.ndarray) -> tuple[Tensors, np.ndarray]:
        return foreign.awq(weight * np.linspace(0.3, 3, weight.shape[1]))

    foreign.convert("awq", place.model, tmp_path / "awq", scaled)
    report = verify_folder(tmp_path / "awq", str(place.model))
    assert report.exit_code == 0
    assert any("as a transform" in line for line in report.unchecked)


def test_what_cannot_be_judged_is_exit_2(place: Place, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not quantized"):
        verify_folder(place.model)
    with pytest.raises(ModelError, match="no such folder"):
        verify_folder(tmp_path / "nowhere")
    shutil.copytree(place.model, tmp_path / "odd")
    change_config(tmp_path / "odd", quantization_config={"quant_method": "hqq"})
    with pytest.raises(ModelError, match="no reader"):
        verify_folder(tmp_path / "odd")


def test_a_layer_left_out_without_a_reason(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    foreign.convert("gptq", place.model, folder)

    def leave_out(tensors: Tensors) -> None:
        for part in ("qweight", "qzeros", "scales", "g_idx"):
            del tensors[f"{Q}.{part}"]
        tensors[f"{Q}.weight"] = torch.ones(64, 64)

    change_tensors(folder, leave_out)
    assert "gives no reason" in verify_folder(folder).faults[0]
    claims(dynamic={rf"-:{re.escape(Q)}": {}})(folder)
    assert verify_folder(folder).exit_code == 0


def test_two_configs_that_disagree(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    foreign.convert("gptq_v2", place.model, folder)
    (folder / "quantize_config.json").write_text(json.dumps({"checkpoint_format": "gptq", "bits": 4}))
    assert any(
        "quantize_config.json says checkpoint_format 'gptq'" in fault for fault in verify_folder(folder).faults
    )
