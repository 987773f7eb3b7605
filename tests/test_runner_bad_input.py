"""Each kind of bad input: one clear line, exit 2, nothing left behind that looks whole, no traceback."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from runner_models import make_workplace, qrun, recipe_data, write_recipe
from safetensors.torch import load_file, save_file

from tests import faults

Change = Callable[[Path, dict[str, Any]], None]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make_workplace(tmp_path)


def _weights(root: Path) -> Path:
    return root / "model" / "model.safetensors"


def _misspelt(_: Path, data: dict[str, Any]) -> None:
    data["quantisation"] = data.pop("quantization")


def _preset(_: Path, data: dict[str, Any]) -> None:
    data["quantization"]["config_groups"]["main"]["scheme"] = "w4a16-g12x8"


def _group_size(_: Path, data: dict[str, Any]) -> None:
    data["quantization"]["config_groups"]["main"]["scheme"] = "w4a16-g48"


def _missing(root: Path, _: dict[str, Any]) -> None:
    tensors = load_file(_weights(root))
    _weights(root).unlink()
    names = sorted(tensors)
    index = dict.fromkeys(names[:3], "model-00001-of-00002.safetensors")
    index |= dict.fromkeys(names[3:], "model-00002-of-00002.safetensors")
    save_file({n: tensors[n] for n in names[:3]}, root / "model" / "model-00001-of-00002.safetensors")
    (root / "model" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def _truncated(root: Path, _: dict[str, Any]) -> None:
    _weights(root).write_bytes(_weights(root).read_bytes()[:-1000])


def _no_weights(root: Path, _: dict[str, Any]) -> None:
    _weights(root).unlink()


def _poison(root: Path, value: float) -> None:
    tensors = load_file(_weights(root))
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    save_file(tensors, _weights(root), metadata={"format": "pt"})


def _nan(root: Path, _: dict[str, Any]) -> None:
    _poison(root, float("nan"))


def _infinite(root: Path, _: dict[str, Any]) -> None:
    _poison(root, float("inf"))


def _short(root: Path, data: dict[str, Any]) -> None:
    data["quantization"]["config_groups"]["main"]["method"] = "gptq"
    (root / "calibration.txt").write_text("the sea")


def _memory(_: Path, data: dict[str, Any]) -> None:
    data["target"] = {"memory": "80 gigs"}


def _model(_: Path, data: dict[str, Any]) -> None:
    data["model"]["id"] = "blom-7b1"


def _backend(_: Path, data: dict[str, Any]) -> None:
    data["quantization"]["backend"] = "nativ"


def _format(_: Path, data: dict[str, Any]) -> None:
    data["quantization"]["format"] = "awq"


def _combination(_: Path, data: dict[str, Any]) -> None:
    data["quantization"]["config_groups"]["main"] = {"scheme": "nf4", "method": "gptq"}


def _method(_: Path, data: dict[str, Any]) -> None:
    data["quantization"]["config_groups"]["main"]["method"] = "magic"


def _dataset(root: Path, data: dict[str, Any]) -> None:
    data["evaluation"]["perplexity"]["dataset"] = str(root / "nowhere.txt")


def _engine(_: Path, data: dict[str, Any]) -> None:
    data["target"] = {"engine": "vllm"}
    data["quantization"]["config_groups"]["main"]["scheme"] = "w3a16-g32-asym"
    data["quantization"]["format"] = "compressed-tensors"


def _fused(_: Path, data: dict[str, Any]) -> None:
    data["target"] = {"engine": "vllm"}
    data["quantization"]["config_groups"]["other"] = {"targets": ["re:.*q_proj"], "scheme": "w8a16"}


def _tokenizer(root: Path, _: dict[str, Any]) -> None:
    (root / "model" / "tokenizer.json").unlink()


def _config(root: Path, **changes: Any) -> None:
    path = root / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _shapes(root: Path, _: dict[str, Any]) -> None:
    _config(root, intermediate_size=256)


def _architecture(root: Path, _: dict[str, Any]) -> None:
    _config(root, model_type="llamma")


def _bomb(root: Path, _: dict[str, Any]) -> None:
    _config(root, num_hidden_layers=2**31)


def _no_number(root: Path, _: dict[str, Any]) -> None:
    _config(root, rms_norm_eps=float("nan"))


def _nested(root: Path, _: dict[str, Any]) -> None:
    (root / "model" / "config.json").write_text('{"a":' * 5000 + "1" + "}" * 5000)


def _digits(root: Path, _: dict[str, Any]) -> None:
    (root / "model" / "config.json").write_text('{"vocab_size": ' + "9" * 5000 + "}")


def _key_twice(root: Path, _: dict[str, Any]) -> None:
    (root / "model" / "config.json").write_text('{"model_type": "llama", "model_type": "gpt2"}')


def _not_utf8(root: Path, _: dict[str, Any]) -> None:
    (root / "model" / "config.json").write_bytes(b'{"model_type": "\xff\xfe"}')


def _index(root: Path, shards: dict[str, list[str]], weight_map: dict[str, str]) -> None:
    tensors = load_file(_weights(root))
    _weights(root).unlink()
    for file, names in shards.items():
        save_file({name: tensors[name] for name in names}, root / "model" / file)
    index = json.dumps({"weight_map": weight_map})
    (root / "model" / "model.safetensors.index.json").write_text(index)


def _twice(root: Path, _: dict[str, Any]) -> None:
    names = sorted(load_file(_weights(root)))
    shards = {"a.safetensors": names, "b.safetensors": names[:1]}
    _index(root, shards, dict.fromkeys(names, "a.safetensors") | {names[0]: "b.safetensors"})


def _outside(root: Path, _: dict[str, Any]) -> None:
    names = sorted(load_file(_weights(root)))
    _index(root, {"../a.safetensors": names}, dict.fromkeys(names, "../a.safetensors"))


def _absolute(root: Path, _: dict[str, Any]) -> None:
    names = sorted(load_file(_weights(root)))
    _index(root, {"../a.safetensors": names}, dict.fromkeys(names, str(root / "a.safetensors")))


def _link(root: Path, _: dict[str, Any]) -> None:
    _weights(root).rename(root / "elsewhere.safetensors")
    _weights(root).symlink_to(root / "elsewhere.safetensors")


def _linked_companion(root: Path, _: dict[str, Any]) -> None:
    (root / "secret").write_text("{}")
    (root / "model" / "notes.json").symlink_to(root / "secret")


def _pipe(root: Path, _: dict[str, Any]) -> None:
    _weights(root).unlink()
    os.mkfifo(_weights(root))


def _lying_header(root: Path, _: dict[str, Any]) -> None:
    data = _weights(root).read_bytes()
    _weights(root).write_bytes((2**62).to_bytes(8, "little") + data[8:])


def _huge_tensor(root: Path, _: dict[str, Any]) -> None:
    header = b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}'
    _weights(root).write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0\0")


def _pickle(root: Path, _: dict[str, Any]) -> None:
    _weights(root).rename(root / "model" / "pytorch_model.bin")


def _quantized(root: Path, _: dict[str, Any]) -> None:
    config = json.loads((root / "model" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (root / "model" / "config.json").write_text(json.dumps(config))


def _nothing(_: Path, data: dict[str, Any]) -> None:
    data["quantization"]["config_groups"]["main"]["targets"] = ["re:.*no_such_layer"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_misspelt, ["quantisation", "did you mean 'quantization'"]),
        (_preset, ["w4a16-g12x8", "did you mean"]),
        (_group_size, ["48", "does not divide", "64"]),
        (_missing, ["shard missing", "model-00002-of-00002.safetensors"]),
        (_truncated, ["truncated or damaged", "model.safetensors"]),
        (_no_weights, ["config but no weights"]),
        (_nan, ["model.layers.1.mlp.up_proj"]),
        (_infinite, ["model.layers.1.mlp.up_proj"]),
        (_short, ["calibration text is too short", "need"]),
        (_memory, ["80 gigs", "80GB"]),
        (_model, ["unknown model", "bloom-7b1"]),
        (_backend, ["unknown backend", "did you mean 'native'"]),
        (_format, ["awq"]),
        (_combination, ["nf4", "rtn"]),
        (_method, ["magic", "gptq"]),
        (_dataset, ["no such evaluation text", "nowhere.txt"]),
        (_engine, ["zero points", "3"]),
        (_fused, ["q_proj", "share a scheme"]),
        (_tokenizer, ["no tokenizer"]),
        (_quantized, ["quantized already"]),
        (_shapes, ["gate_proj.weight has the wrong shape", "[128, 64]", "[256, 64]"]),
        (_architecture, ["llamma"]),
        (_bomb, ["num_hidden_layers", "2147483648", "10000"]),
        (_no_number, ["config.json", "NaN"]),
        (_nested, ["config.json", "nested deeper"]),
        (_digits, ["config.json", "5000 digits"]),
        (_key_twice, ["'model_type' stands twice"]),
        (_not_utf8, ["config.json", "not UTF-8"]),
        (_twice, ["tensor in two shards", "a.safetensors and b.safetensors"]),
        (_outside, ["outside the model folder", "../a.safetensors"]),
        (_absolute, ["outside the model folder"]),
        (_link, ["a link leads out of the model folder", "model.safetensors"]),
        (_linked_companion, ["a link leads out of the model folder", "notes.json"]),
        (_pipe, ["not a regular file", "model.safetensors"]),
        (_lying_header, ["truncated or damaged"]),
        (_huge_tensor, ["truncated or damaged"]),
        (_pickle, ["pickles", "pytorch_model.bin"]),
        (_nothing, ["no_such_layer", "matches no module"]),
    ],
)
def test_one_clear_line(change: Change, words: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = recipe_data(place)
    change(place, data)
    path = write_recipe(place, data)
    before = {one.name for one in place.iterdir()}
    assert qrun(path) == 2
    _expect_line(capsys.readouterr().err, words)
    assert {one.name for one in place.iterdir()} == before


def _expect_line(said: str, words: list[str]) -> None:
    assert "Traceback" not in said
    errors = [line for line in said.splitlines() if line.startswith("qrun: ")]
    assert len(errors) == 1, said
    for word in words:
        assert word in errors[0]


def test_an_output_that_holds_a_checkpoint(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "out").mkdir()
    (place / "out" / "config.json").write_text("{}")
    assert qrun(write_recipe(place)) == 2
    _expect_line(capsys.readouterr().err, ["already holds a checkpoint", "--overwrite"])
    assert (place / "out" / "config.json").read_text() == "{}"


def test_no_space_is_seen_before_the_work(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("quantrecipe.runner.needs.shutil.disk_usage", lambda _: usage)
    assert qrun(write_recipe(place)) == 2
    _expect_line(capsys.readouterr().err, ["no space", "1.00 kB", "MB"])
    assert not (place / "out").exists()


@pytest.mark.parametrize(("code", "at"), [(errno.ENOSPC, 9), (errno.EACCES, 60), (errno.EIO, 110)])
def test_a_write_that_fails_half_way(code: int, at: int, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with faults.Disk(at, faults.fail(code)):
        assert qrun(write_recipe(place)) == 2
    _expect_line(capsys.readouterr().err, ["cannot write", os.strerror(code)])
    assert not (place / "out").exists()
    assert {path.name for path in place.glob(".out*")} <= {".out.quantrecipe-part"}


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB; skipped where it cannot be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("a small tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_no_space_left_while_writing(
    tiny_disk: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("quantrecipe.runner.preflight.check_disk", lambda *_: None)
    assert qrun(write_recipe(place), "--output", tiny_disk / "out") == 2
    _expect_line(capsys.readouterr().err, ["cannot write", "No space left"])
    assert {path.name for path in tiny_disk.iterdir()} <= {".out.quantrecipe-part"}


def test_no_permission(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    locked = place / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):  # root may write anywhere

        def refuse(*_: Any, **__: Any) -> str:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr("quantrecipe.modeling.files.os.makedirs", refuse)
    assert qrun(write_recipe(place), "--output", locked / "out") == 2
    _expect_line(capsys.readouterr().err, ["cannot write", "ermission denied"])
    assert list(locked.iterdir()) == []


def test_an_interrupt_says_how_to_go_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    recipe = write_recipe(place)
    with monkeypatch.context() as early:
        early.setattr("quantrecipe.runner.pipeline.Job", interrupt)
        assert qrun(recipe) == 130
    _expect_line(capsys.readouterr().err, ["interrupted", "nothing half-written"])
    assert not list(place.glob(".out*"))
    with monkeypatch.context() as late:
        late.setattr("quantrecipe.runner.pipeline.finish", interrupt)
        assert qrun(recipe) == 130
    _expect_line(
        capsys.readouterr().err,
        ["interrupted", "work done so far (parts: 1) is kept", "goes on from there"],
    )
    assert not (place / "out").exists()
    assert [path.name for path in place.glob(".out*")] == [".out.quantrecipe-part"]
    assert qrun(recipe, "--preflight-only") == 0
    data = recipe_data(place) | {"evaluation": {"perplexity": None}}
    assert qrun(write_recipe(place, data)) == 2
    _expect_line(capsys.readouterr().err, ["differs from this one in recipe, evaluation", "--overwrite"])


def test_a_surprise_is_one_line_and_a_traceback_with_debug(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def break_down(*_: Any) -> None:
        raise ZeroDivisionError("what\nis this")

    monkeypatch.setattr("quantrecipe.runner.pipeline.finish", break_down)
    path = write_recipe(place)
    assert qrun(path) == 2
    _expect_line(capsys.readouterr().err, ["ZeroDivisionError", "what is this", "--debug"])
    assert qrun(path, "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_no_recipe_and_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert qrun("verfy") == 2
    _expect_line(capsys.readouterr().err, ["cannot read the recipe", "verfy", "did you mean 'verify'"])
    assert qrun("--device", "tpu", "r.yaml") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_device_that_is_not_here(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert qrun(write_recipe(place), "--device", "cuda") == 2
    _expect_line(capsys.readouterr().err, ["no CUDA device", "--device cpu"])


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from quantrecipe.runner.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as e: assert e.code == 0\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pydantic', 'rich'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--dry-run" in done.stdout
