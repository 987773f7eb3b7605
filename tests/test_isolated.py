"""Backends in a process of their own, by a toy worker: the protocol, and every way in which a worker goes wrong."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from families import make_model
from native_jobs import make_job, tokens

from quantrecipe.errors import BackendError, DamageError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.plugins.contract import Capabilities, Checkpoint
from quantrecipe.plugins.isolated.backend import IsolatedBackend
from quantrecipe.plugins.isolated.environment import Environment, environments, home
from quantrecipe.plugins.isolated.plugin import isolated_backends
from quantrecipe.plugins.isolated.process import WORKERS, Silent, Worker

TOY = Path(__file__).parent / "workers" / "run_toy.py"
ABLE = Capabilities({"int": (8,)}, (16,), ("channel",), ("rtn",), ("hqq",), ("cpu",), mixed=False)
GROUPS = {"main": {"scheme": "w8a16"}}


os.environ["QUANTRECIPE_WORKERS"] = str(WORKERS)


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return toy().quantize(make_job(model, tmp_path_factory.mktemp("made") / "out", GROUPS, "hqq"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model("llama-tied", tmp_path_factory.mktemp("isolated") / "model", torch.float32)


def toy() -> IsolatedBackend:
    return IsolatedBackend("toy", ABLE, Environment("toy", "torch", "torch", ()), TOY)


def test_a_checkpoint_is_quantized_reloaded_and_recorded(model: Path, made: Checkpoint, tmp_path: Path) -> None:
    job = make_job(model, tmp_path / "out", GROUPS, "hqq")
    assert [layer.name for layer in made.layers] == [module.name for module in job.plan.quantized]
    original, stored = ModelFolder.open(model), ModelFolder.open(made.path)
    for layer in made.layers:
        before, after = (folder.tensor(f"{layer.name}.weight").double() for folder in (original, stored))
        assert layer.relative_error == pytest.approx(float((before - after).norm() / before.norm()), rel=1e-4)
        assert 0 < layer.relative_error < 0.02
    assert made.details["reload_kl"] < 1e-9


def test_the_reloaded_model_gives_transformers_logits(made: Checkpoint) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    remote = toy().load(made.path, "cpu")
    config = AutoConfig.from_pretrained(made.path)
    del config.quantization_config
    local = AutoModelForCausalLM.from_pretrained(made.path, config=config)
    batch = tokens(2, 16)
    with torch.no_grad():
        assert torch.allclose(remote(batch, use_cache=False).logits, local(batch).logits, atol=1e-5)
    remote.close()


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("refuse", "toys round nothing today"),
        ("crash", "ZeroDivisionError: by nought"),
        ("die", "killed by signal 9"),
        ("babble", "said what is no event"),
    ],
)
def test_a_failing_worker_is_one_line(
    fault: str, says: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", fault)
    with pytest.raises(BackendError) as caught:
        toy().quantize(make_job(model, tmp_path / "out", GROUPS, "hqq"))
    assert says in caught.value.line() and "\n" not in caught.value.line()


@pytest.mark.parametrize("fault", ["drift", pytest.param("nan", marks=pytest.mark.slow)])
def test_a_checkpoint_that_reloads_to_another_model_is_refused(
    fault: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", fault)
    with pytest.raises(DamageError):
        toy().quantize(make_job(model, tmp_path / "out", GROUPS, "hqq"))


def test_leaving_kills_the_worker(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantrecipe.plugins.isolated import job_file

    pidfile = tmp_path / "pid"
    monkeypatch.setenv("FAULT", "sleep")
    monkeypatch.setenv("PIDFILE", str(pidfile))
    order = job_file.quantize_job(make_job(model, tmp_path / "out", GROUPS, "hqq"), tmp_path)
    with Worker("toy", Path(sys.executable), TOY, order) as worker:
        events = worker.events(Silent())
        while not pidfile.exists():
            time.sleep(0.05)
        del events
    assert _gone(int(pidfile.read_text()))


def _gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    return False


def test_every_backend_has_an_environment_and_a_worker() -> None:
    for backend in isolated_backends():
        assert backend.worker.is_file()
        assert backend.environment == environments()[backend.name]


def test_a_missing_library_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QUANTRECIPE_HOME", str(tmp_path))
    assert home() == tmp_path / "backends"
    absent = IsolatedBackend("toy", ABLE, Environment("toy", "no-such", "no_such_library", ()), TOY)
    here = absent.availability()
    assert not here.available and here.remedy == "qrun backends install toy"
    with pytest.raises(BackendError, match="cannot run here"):
        absent.load(tmp_path, "cpu")


def test_capabilities_import_no_library() -> None:
    import subprocess

    code = (
        "import sys; from quantrecipe.plugins.manager import backends; "
        "[one.capabilities() for one in backends().values()]; "
        "print([name for name in ('torch', 'transformers', 'bitsandbytes', 'gptqmodel') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
