"""The worker's side of the job protocol (docs/backends/protocol.md): standard library, torch and safetensors only.

A worker runs in its library's own environment, so it imports nothing of quantrecipe.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PROTOCOL = 1


class Refused(Exception):
    """The job cannot be done: one line, with the remedy where there is one."""

    def __init__(self, what: str, remedy: str | None = None) -> None:
        super().__init__(what)
        self.remedy = remedy


class Channel:
    """Lines of JSON to quantrecipe. Whatever a library prints goes to stderr instead."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        os.dup2(2, 1)
        sys.stdout = sys.stderr

    def send(self, event: str, **data: Any) -> None:
        """One event."""
        self._out.write(json.dumps({"event": event, **data}) + "\n")
        self._out.flush()

    def start(self, stage: str, total: int | None = None, unit: str = "blocks") -> None:
        """A stage begins."""
        self.send("start", stage=stage, total=total, unit=unit)

    def advance(self, amount: int = 1, **details: Any) -> None:
        """``amount`` units are done."""
        self.send("advance", amount=amount, details=details)

    def note(self, text: str) -> None:
        """One line for the user."""
        self.send("note", text=text)


def requests() -> Iterator[dict[str, Any]]:
    """What is asked, a line each, until the parent closes the pipe."""
    for line in sys.stdin:
        if line.strip():
            yield json.loads(line)


def die_with_parent() -> None:
    """A job that nobody waits for ends: the parent holds the other end of stdin."""

    def wait() -> None:
        sys.stdin.read()
        os._exit(143)

    threading.Thread(target=wait, daemon=True).start()


def main(quantize: Callable[[dict[str, Any], Channel], None], load: Callable[[dict[str, Any]], Any]) -> None:
    """Carry the job of ``sys.argv[1]`` out: quantize once, or load and answer until the pipe closes."""
    channel = Channel()
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        if job["protocol"] != PROTOCOL:
            raise Refused(f"the worker speaks protocol {PROTOCOL}, not {job['protocol']}")
        import torch

        torch.set_num_threads(int(job["threads"]))
        torch.manual_seed(int(job["seed"]))
        if job["task"] == "quantize":
            die_with_parent()
            quantize(job, channel)
            channel.send("done", peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        else:
            serve(job, channel, load(job))
    except Refused as error:
        channel.send("error", what=str(error), remedy=error.remedy)
    except ImportError as error:
        traceback.print_exc()
        channel.send("error", what=f"its library does not import: {error}"[:400], remedy="qrun backends install NAME")
    except Exception as error:  # the last line is what a user sees; the whole of it is in the log
        traceback.print_exc()
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        channel.send(
            "error", what=f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:400], remedy=None
        )


def serve(job: dict[str, Any], channel: Channel, model: Any) -> None:
    """Answer ``logits`` and ``weight`` requests from the reloaded checkpoint."""
    import torch

    model.eval()
    # no_grad rather than inference_mode, in which quanto's tensors recurse until the stack is spent
    channel.send("ready", dtype=str(dtype_of(model)).removeprefix("torch."))
    with torch.no_grad():
        for request in requests():
            answer = logits if request["want"] == "logits" else weight
            channel.send("answer", **answer(model, request))


def dtype_of(model: Any) -> Any:
    """The dtype that the model computes in: its first floating parameter of two or four bytes."""
    import torch

    floats = (torch.float32, torch.float16, torch.bfloat16)
    return next((p.dtype for p in model.parameters() if p.dtype in floats), torch.float32)


def logits(model: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Logits [batch, tokens, vocabulary] of int64 tokens [batch, tokens], through files."""
    from safetensors.torch import load_file, save_file

    tokens = load_file(request["tokens"])["tokens"].to(device_of(model))
    found = model(input_ids=tokens, use_cache=False).logits
    save_file({"logits": found.cpu().contiguous()}, request["answer"])
    return {}


def witness(job: dict[str, Any], model: Any) -> None:
    """Leave the in-memory model's logits for the witness tokens; call it once the checkpoint is saved."""
    import torch

    with torch.no_grad():
        logits(model.eval(), {"tokens": job["witness"], "answer": job["witness_answer"]})


def weight(model: Any, request: dict[str, Any]) -> dict[str, Any]:
    """The weight [N, K] that a module computes with, read off its outputs for the identity matrix."""
    import torch
    from safetensors.torch import save_file

    module = model.get_submodule(request["module"])
    eye = torch.eye(int(request["columns"]), dtype=dtype_of(model), device=device_of(model))
    zero = module(torch.zeros_like(eye[:1]))
    found = torch.cat([module(part) - zero for part in eye.split(512)])
    save_file({"weight": found.t().cpu().contiguous()}, request["answer"])
    return {}


def device_of(model: Any) -> Any:
    """Where the model's parameters lie."""
    return next(model.parameters()).device


def calibration(job: dict[str, Any]) -> Any:
    """int64 tokens [sequences, length]; None where the job brings none."""
    from safetensors.torch import load_file

    return load_file(job["calibration"])["tokens"] if job["calibration"] else None


def load_quantized(job: dict[str, Any], channel: Channel, library: str, config: Any) -> None:
    """Let transformers quantize while it loads; save before any forward pass, then leave the witness."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    channel.start(f"quantize with {library}")
    model = AutoModelForCausalLM.from_pretrained(
        job["model"],
        quantization_config=config,
        dtype=dtype_named(job),
        device_map={"": job["device"]},
        local_files_only=True,
        trust_remote_code=job["trust_remote_code"],
    )
    model.save_pretrained(job["output"])
    AutoTokenizer.from_pretrained(job["model"], local_files_only=True).save_pretrained(job["output"])
    witness(job, model)


def reload_by_transformers(job: dict[str, Any]) -> Any:
    """The saved checkpoint by transformers, which calls the library that its config names."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(job["model"], device_map={"": job["device"]}, local_files_only=True)


def the_one_scheme(job: dict[str, Any]) -> dict[str, Any]:
    """Scheme and method that all modules share. Raises Refused where they differ."""
    modules = list(job["modules"].values())
    for module in modules[1:]:
        if module != modules[0]:
            raise Refused(
                "this backend gives all layers one scheme and method", "use backend native for mixed recipes"
            )
    return dict(modules[0])


def dtype_named(job: dict[str, Any]) -> Any:
    """The torch dtype that the original is stored in."""
    import torch

    return getattr(torch, job["dtype"])
