"""That a loader which is not ours opens the checkpoint and has the weights, and the logits, that our reader has."""

from __future__ import annotations

import tempfile
from pathlib import Path

from quantrecipe.errors import DamageError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats import Reader, quantization_config
from quantrecipe.modeling.formats.compressed_tensors import CompressedTensorsReader
from quantrecipe.runner.checks.provenance import Provenance
from quantrecipe.runner.checks.report import Integrity
from quantrecipe.runner.verify import Request, ask

_DTYPES = ("float32", "bfloat16", "float16")


def _rounds(stored: ModelFolder, reader: Reader) -> bool:
    """Whether what the model computes with is rounded, inputs of layers or keys and values."""
    inputs = isinstance(reader, CompressedTensorsReader) and any(one.inputs for one in reader.schemes)
    return inputs or quantization_config(stored.config, stored.path).get("kv_cache_scheme") is not None


def check_loading(
    stored: ModelFolder, reader: Reader, record: Provenance | None, report: Integrity, trust_remote_code: bool
) -> None:
    """Load it in a fresh process; compare with our reader, and with provenance where it is at hand."""
    request = Request(
        folder=stored.path,
        dtype=record.dtype if record else _dtype(stored),
        weights=record.weights if record else {},
        changed=record.changed if record else {},
        adapter=record.adapter if record else {},
        parameters=sum(rows * columns for rows, columns in (reader.shape(stored, m) for m in reader.modules(stored))),
        with_reader=True,
        inputs_rounded=_rounds(stored, reader),
        trust_remote_code=trust_remote_code,
    )
    try:
        with tempfile.TemporaryDirectory(prefix="quantrecipe-verify-") as scratch:
            found = ask(request, Path(scratch))
    except DamageError as error:
        report.faults.append(error.line())
        return
    report.damaged(found["faults"])
    if found["independent"]:
        report.checked.append(f"loads with {found['loader']}")
        if not found["faults"]:
            tokens = found["witness"]["tokens"]
            logits = f" and logits over {tokens} tokens" if tokens else ""
            report.checked.append(f"its {found['compared']} weights{logits} are our reader's")
    elif record is not None:
        report.checked.append(f"loads with {found['loader']}")
    else:
        report.unchecked.append(f"an independent loader: {found['why']}")
    if "adapter" in found:
        report.checked.append(f"{found['adapter']} tensors of its low-rank adapter are those that were written")
    if record is not None and not found["faults"]:
        report.checked.append(f"{found['weights']} weights as loaded are those that were chosen")


def _dtype(stored: ModelFolder) -> str:
    """What the config says that the model computes in; fp32 for fp16, which a CPU is slow in."""
    named = str(stored.config.get("dtype") or stored.config.get("torch_dtype") or "float32").removeprefix("torch.")
    return named if named in _DTYPES and named != "float16" else "float32"
