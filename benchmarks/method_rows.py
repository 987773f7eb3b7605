"""The recipes of benchmarks/methods.py, as data, the most asked-for first."""

from __future__ import annotations

from typing import Any

from rows import group


def _group(weights: dict[str, Any], inputs: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    main = {"weights": weights} | ({"input_activations": inputs} if inputs else {})
    return {"config_groups": {"main": main}, **more}


def _method(scheme: str, name: str, **options: Any) -> dict[str, Any]:
    return {"config_groups": {"main": {"scheme": scheme, "method": {"name": name, **options}}}}


INT8: dict[str, Any] = {"num_bits": 8, "strategy": "channel"}
FP8: dict[str, Any] = {"num_bits": 8, "type": "float"}
OWN = {"format": "quantrecipe"}
LORC = {"compensation": {"name": "lorc", "rank": 8}}


def _static(**args: Any) -> dict[str, Any]:
    return {"num_bits": 8, "strategy": "tensor", **args}


def _kv(**args: Any) -> dict[str, Any]:
    return group("w8a16", kv_cache_scheme=args)


METHODS: dict[str, dict[str, Any]] = {
    "rtn w8a16": group("w8a16"),
    "rtn w4a16-g64": group("w4a16-g64"),
    "gptq w4a16-g64": group("w4a16-g64", "gptq"),
    "rtn w8a8": group("w8a8"),
    "hqq w4a16-g64-asym": group("w4a16-g64-asym", "hqq", **OWN),
    "awq-clip w4a16-g64": group("w4a16-g64", "awq-clip"),
    "zq-local w4a16-g64": group("w4a16-g64", "zq-local"),
    "zq-global w4a16-g64": group("w4a16-g64", "zq-global"),
    "zq-global w4a8-g64": group("w4a8-g64", "zq-global"),
    "glm-int4 w4a16": group("w4a16", "glm-int4"),
    "llm-int8": {"config_groups": {"main": {"scheme": "w8a8", "method": "llm-int8"}}, "format": "bitsandbytes"},
    "nf4": group("nf4"),
    "nf4, double quantization": group("nf4-dq"),
    "fp4": _group({"num_bits": 4, "type": "fp4", "group_size": 64}),
    "fp8, inputs a token": group("fp8"),
    "mxfp4": group("mxfp4"),
    "nvfp4": group("nvfp4"),
    "gptq w3a16-g64": group("w3a16-g64", "gptq"),
    "gptq w4a16-g64, group-aware": _method("w4a16-g64", "gptq", actorder="group_aware"),
    "gptq w4a8-g64": group("w4a8-g64", "gptq"),
    "olive w4a16": group("w4a16", "olive"),
    "odyssey w4a8": group("w4a8", "odyssey"),
}
TRANSFORMS: dict[str, dict[str, Any]] = {
    "w8a8, smoothquant": group("w8a8", transforms=["smoothquant"]),
    "w8a8, smoothquant searched": group("w8a8", transforms=[{"name": "smoothquant", "alpha": "search"}]),
    "w8a8, outlier-suppression-plus": group("w8a8", transforms=["outlier-suppression-plus"]),
    "w4a16-g64, awq": group("w4a16-g64", transforms=["awq"]),
    "w4a16-g64, hadamard": group("w4a16-g64", transforms=["hadamard"]),
    "w4a8-g64, hadamard and gptq": group("w4a8-g64", "gptq", transforms=["hadamard"]),
    "w8, static inputs, rptq": _group(INT8, _static(symmetric=False), transforms=["rptq"], **OWN),
    "w3a16-g64, lorc": group("w3a16-g64", **LORC),
    "w4a8-g64, smoothquant, gptq and lorc": group("w4a8-g64", "gptq", transforms=["smoothquant"], **LORC),
}
GRANULARITY: dict[str, dict[str, Any]] = {
    "rtn w8, one scale a matrix": _group({"num_bits": 8, "strategy": "tensor"}),
    "rtn w4a16-g16": group("w4a16-g16"),
    "gptq w4a16-g64, columns in order": _method("w4a16-g64", "gptq", actorder=None),
    "w8a8, inputs asymmetric": _group(
        INT8, {"num_bits": 8, "strategy": "token", "dynamic": True, "symmetric": False}
    ),
    "w8, inputs by groups of 64, asymmetric": _group(
        INT8, {"num_bits": 8, "group_size": 64, "dynamic": True, "symmetric": False}
    ),
    "fp8, one scale a matrix, static inputs": _group({**FP8, "strategy": "tensor"}, _static(type="float")),
    "kv int8 a head": _kv(num_bits=8, strategy="attn_head"),
}
INPUTS: dict[str, dict[str, Any]] = {
    "w8, static inputs, percentile": _group(INT8, _static(symmetric=False, observer="percentile", percentile=99.9)),
    "w8, static inputs, min-max": _group(INT8, _static(symmetric=False)),
    "w8, static inputs, mse": _group(INT8, _static(symmetric=False, observer="mse")),
    "w8, inputs by groups of 64": group("w8a8-ag64"),
    "fp8, static inputs": _group({**FP8, "strategy": "channel"}, _static(type="float")),
    "fp8 blocks of 64 x 64": _group(
        {**FP8, "strategy": "block", "block_structure": [64, 64]}, {**FP8, "group_size": 64, "dynamic": True}
    ),
    "e5m2 weights": _group({"num_bits": 8, "type": "e5m2", "strategy": "channel"}, **OWN),
    "kv int8 a token": _kv(num_bits=8, strategy="token", dynamic=True),
    "kv int4 a token and head": _kv(num_bits=4, group_size=64, dynamic=True),
    "kv fp8 a layer": _kv(num_bits=8, type="float", strategy="tensor"),
}


def _trained(scheme: str, form: str, **training: Any) -> dict[str, Any]:
    """Sixty steps of four calibration windows."""
    return group(scheme, backend="training", format=form, training={"precision": "mixed", "steps": 60, **training})


TRAINING: dict[str, dict[str, Any]] = {
    "qat w4a8-g64": _trained("w4a8-g64", "compressed-tensors", name="qat", learning_rate=1e-4),
    "qlora on nf4, adapter kept": _trained("nf4-dq", "bitsandbytes", name="qlora", rank=8),
    "qlora on nf4, merged": _trained("nf4-dq", "bitsandbytes", name="qlora", rank=8, adapter="merged"),
}
TORCHAO: dict[str, dict[str, Any]] = {
    "torchao int8, inputs on the fly": group("w8a8", backend="torchao", format="torchao"),
    "torchao int8, weights alone": group("w8a16", backend="torchao", format="torchao"),
    "torchao PT2E, static inputs": _group(INT8, _static(symmetric=False), backend="torchao", format="torchao"),
}
ROWS = {**METHODS, **TRANSFORMS, **INPUTS, **GRANULARITY, **TRAINING, **TORCHAO}
#: What takes the place of a row on a model of which a step costs forty times the demo's: fewer steps.
LARGE_ROWS: dict[str, dict[str, Any]] = {
    "zq-local w4a16-g64": _method("w4a16-g64", "zq-local", steps=40),
    "zq-global w4a16-g64": _method("w4a16-g64", "zq-global", steps=40),
    "zq-global w4a8-g64": _method("w4a8-g64", "zq-global", steps=40),
    "qlora on nf4, adapter kept": _trained("nf4-dq", "bitsandbytes", name="qlora", rank=8, steps=20),
    "qlora on nf4, merged": _trained("nf4-dq", "bitsandbytes", name="qlora", rank=8, adapter="merged", steps=20),
}
