"""GPTQ and RTN by GPTQModel (https://github.com/ModelCloud/GPTQModel), written as GPTQ files."""

from __future__ import annotations

import os
import re
from typing import Any

from worker_io import Channel, Refused, calibration, main, the_one_scheme

ORDERS: dict[str | None, dict[str, Any]] = {
    None: {"desc_act": False, "act_group_aware": False},
    "static": {"desc_act": True, "act_group_aware": False, "static_groups": True},
    "group": {"desc_act": False, "act_group_aware": True},
}


def quantize(job: dict[str, Any], channel: Channel) -> None:
    """Load, quantize, save."""
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(max(2, job["threads"])))  # its loader asks for two
    from gptqmodel import GPTQModel, QuantizeConfig

    one = the_one_scheme(job)
    weights, method = one["weights"], one["method"]
    order = method.get("actorder", None)
    if order not in ORDERS:
        raise Refused(f"GPTQModel has no actorder {order!r}", "use null, static or group")
    config = QuantizeConfig(
        bits=weights["num_bits"],
        group_size=weights["group_size"] or -1,
        sym=weights["symmetric"],
        damp_percent=method.get("dampening_frac", 0.01),
        format=job["format"],
        offload_to_disk=False,
        dynamic={f"-:^{re.escape(name)}$": {} for name in job["kept"] if ".layers." in name or ".h." in name} or None,
        **ORDERS[order],
    )
    channel.start("quantize with GPTQModel")
    model = GPTQModel.load(job["model"], config, device=job["device"], trust_remote_code=job["trust_remote_code"])
    tokens = calibration(job)
    model.quantize(
        [{"input_ids": row[None], "attention_mask": row.new_ones(1, len(row))} for row in tokens], batch_size=4
    )
    model.save(job["output"])


def load(job: dict[str, Any]) -> Any:
    """The saved checkpoint by GPTQModel's own loader, with its plain torch kernel."""
    from gptqmodel import BACKEND, GPTQModel

    return GPTQModel.load(job["model"], device=job["device"], backend=BACKEND.TORCH).model


if __name__ == "__main__":
    main(quantize, load)
