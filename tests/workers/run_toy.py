"""A worker as a third party would write one: rounds every weight to 8 bits a row, keeps the result dense.

FAULT in the environment makes it misbehave: refuse, crash, die, babble, sleep, nan or drift.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, os.environ["QUANTRECIPE_WORKERS"])
from worker_io import Channel, Refused, main, witness

FAULT = os.environ.get("FAULT", "")


def quantize(job: dict[str, Any], channel: Channel) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    channel.start("quantize with toy", len(job["modules"]), "layers")
    print("a library's own chatter")
    misbehave(channel)
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"]))
    for name in job["modules"]:
        weight = model.get_submodule(name).weight.data
        scale = weight.abs().amax(1, keepdim=True) / 127
        weight.copy_((weight / scale).round() * scale)
        if FAULT == "nan":
            weight[0, 0] = float("nan")
        channel.advance(layer=name)
    model.save_pretrained(job["output"])
    path = Path(job["output"]) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": {"quant_method": "toy"}}))
    if FAULT == "drift":
        model.get_input_embeddings().weight.data.mul_(3)
    witness(job, model)


def misbehave(channel: Channel) -> None:
    if FAULT == "refuse":
        raise Refused("toys round nothing today", "try tomorrow")
    if FAULT == "crash":
        raise ZeroDivisionError("by nought")
    if FAULT == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if FAULT == "babble":
        channel._out.write("no json\n")
        channel._out.flush()
    if FAULT == "sleep":
        Path(os.environ["PIDFILE"]).write_text(str(os.getpid()))
        time.sleep(60)


def load(job: dict[str, Any]) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(job["model"])
    del config.quantization_config
    return AutoModelForCausalLM.from_pretrained(job["model"], config=config, dtype="auto")


if __name__ == "__main__":
    main(quantize, load)
