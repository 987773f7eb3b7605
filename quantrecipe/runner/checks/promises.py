"""Against the architecture: every tensor there with its shape, every module quantized that the config promises."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from quantrecipe.errors import ModelError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats import Reader, quantization_config
from quantrecipe.modeling.formats.compressed_config import candidates, matches
from quantrecipe.modeling.formats.compressed_tensors import CompressedTensorsReader
from quantrecipe.modeling.formats.settings import words
from quantrecipe.modeling.skeleton import LinearInfo, Skeleton
from quantrecipe.runner.checks.report import Integrity
from quantrecipe.runner.quantized import open_dequantized


def check_promises(
    stored: ModelFolder, reader: Reader, report: Integrity, trust_remote_code: bool
) -> Skeleton | None:
    """The architecture, where it can be built and every tensor of it is there."""
    try:
        _, skeleton = open_dequantized(stored.path, None, trust_remote_code)
    except ModelError as error:
        if "missing" in error.what or "wrong shape" in error.what:
            report.faults.append(error.line())
        else:
            report.unchecked.append(f"the architecture: {error.line()}")
        return None
    names = _stored_names(skeleton)
    faults = [*_wrong_shapes(skeleton, stored, reader, names), *_unkept(skeleton, stored, reader, names)]
    if not report.damaged(faults):
        report.checked.append(
            "every tensor of the architecture is there with its shape; what the config promises is kept"
        )
    return skeleton


def _stored_names(skeleton: Skeleton) -> dict[str, str]:
    """Module of the model -> its name in the files."""
    return {info.name: skeleton.stored_module(info.name) for info in skeleton.linears()}


def _wrong_shapes(skeleton: Skeleton, stored: ModelFolder, reader: Reader, names: dict[str, str]) -> Iterator[str]:
    quantized = set(reader.modules(stored))
    for info in skeleton.linears():
        module = names[info.name]
        if module in quantized and not any(reader.faults(stored, module)):
            shape = reader.shape(stored, module)
            if shape != (info.rows, info.columns):
                yield f"{module} is {shape[0]} x {shape[1]}, but the architecture has {info.rows} x {info.columns}"
    for name, owner, attribute in skeleton.parameters_of(""):
        found, expected = skeleton.stored_name(name), owner._parameters[attribute]
        if found in stored and expected is not None and found.removesuffix(".weight") not in quantized:
            there, wanted = stored.info(found).shape, tuple(expected.shape)
            if there != wanted:
                yield f"{found} has shape {list(there)}, but the architecture has {list(wanted)}"


def _unkept(skeleton: Skeleton, stored: ModelFolder, reader: Reader, names: dict[str, str]) -> Iterator[str]:
    """Modules that the config says are quantized and are not, or the other way round."""
    quantized = set(reader.modules(stored))
    infos = [info for info in skeleton.linears() if info.kind != "Embedding"]
    if isinstance(reader, CompressedTensorsReader):
        ignored = words(quantization_config(stored.config, stored.path), "ignore")
        for info in infos:
            promised = _promised(reader, ignored, info, names[info.name])
            if promised and names[info.name] not in quantized:
                yield f"{info.name} is not quantized, though the config promises it"
            if not promised and names[info.name] in quantized:
                yield f"{info.name} is quantized, though the config leaves it out"
    else:
        yield from _odd_ones(infos, stored, names, quantized)


def _promised(reader: CompressedTensorsReader, ignored: list[str], info: LinearInfo, stored: str) -> bool:
    left_out = any(matches(entry, name) for entry in ignored for name in (info.name, stored)) or info.kind in ignored
    return not left_out and bool(candidates(reader.schemes, info.name, info.kind))


def _odd_ones(
    infos: list[LinearInfo], stored: ModelFolder, names: dict[str, str], quantized: set[str]
) -> Iterator[str]:
    """GPTQ, AWQ and bitsandbytes name no targets: a plain module whose like are quantized needs a reason."""
    config = quantization_config(stored.config, stored.path)
    dynamic = config.get("dynamic")
    reasons = [
        *words(config, "modules_to_not_convert"),
        *words(config, "llm_int8_skip_modules"),
        *(dynamic if isinstance(dynamic, dict) else ()),
    ]
    roles = defaultdict(list)
    for info in infos:
        if info.block is not None:
            roles[re.sub(r"\d+", "*", info.name)].append(info)
    for alike in roles.values():
        plain = [info for info in alike if names[info.name] not in quantized]
        if len(plain) < len(alike):
            yield from (
                f"{info.name} is not quantized, though its like in other blocks are and the config gives no reason"
                for info in plain
                if not any(_excuses(reason, info.name) for reason in reasons)
            )


def _excuses(reason: str, name: str) -> bool:
    """A part of the name, or GPTQModel's ``-:`` pattern."""
    if not reason.startswith("-:"):
        return reason in name
    try:
        return re.match(reason[2:], name) is not None
    except re.error:
        return False
