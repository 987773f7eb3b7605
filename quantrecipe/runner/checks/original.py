"""Against the original: each dequantized weight lies about as far from it as rounding puts it, the rest equals it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from quantrecipe.errors import ModelError, QuantRecipeError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats import Decoded, Reader
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.recipe_file import load_recipe
from quantrecipe.runner.checks.diagnose import diagnose
from quantrecipe.runner.checks.nearest import Rounding, rounding_of
from quantrecipe.runner.checks.provenance import Provenance
from quantrecipe.runner.checks.report import Integrity

#: Error allowed, in units of what rounding to the nearest code of the module's own scales gives (s / sqrt(12)).
#: GPTQ on SmolLM2-135M reaches 1.8 of it; zero points off by one give 3.6.
STRAY = 3.0
#: Relative error that no quantization explains: a weight that has nothing to do with the original has 1.4.
UNRELATED = 0.9
#: Transforms that mix or reorder channels, where others scale them.
MOVING = ("hadamard", "rptq")
RECIPE = "recipe.yaml"
TRANSFORMED = "as a transform or training leaves them; whether they belong together, only perplexity tells"


@dataclass(slots=True)
class _Compared:
    """What comparing found. scaled: modules that equal the original but for a scale a row or column."""

    count: int = 0
    strays: list[str] = field(default_factory=list)
    flips: list[str] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    scaled: list[str] = field(default_factory=list)
    loose: int = 0
    alone: int = 0


def check_original(
    stored: ModelFolder, reader: Reader, original: ModelFolder, names: dict[str, str], report: Integrity
) -> None:
    """names: see ``counterparts``."""
    moved = moving_parts(stored)
    if moved:
        report.unchecked.append(f"weights turned, reordered or learned by {' and '.join(moved)}, {TRANSFORMED}")
        return
    found = _Compared()
    for module in reader.modules(stored):
        try:
            decoded, weight = reader.decode(stored, module), original.tensor(names[f"{module}.weight"]).float()
        except (ModelError, KeyError):
            found.alone += f"{module}.weight" not in names
            continue
        if weight.shape != decoded.shape:
            weight = weight.t()
        if weight.shape == decoded.shape:
            _compare(stored, reader, original, module, decoded, weight.contiguous(), names, found)
    _tell(found, report)


def moving_parts(stored: ModelFolder) -> list[str]:
    """The parts of the checkpoint's recipe after which weights no longer lie where the original's do."""
    file = stored.path / RECIPE
    try:
        recipe = load_recipe(file).quantization if file.is_file() else None
    except QuantRecipeError:
        return []
    if recipe is None:
        return []
    learned = recipe.training is not None and (recipe.training.name == "qat" or recipe.training.adapter == "merged")
    moved = [part.name for part in recipe.transforms if part.name in MOVING]
    return [*moved, recipe.training.name] if learned and recipe.training else moved


def _compare(  # noqa: PLR0913, PLR0917 - a module with all that explains it
    stored: ModelFolder, reader: Reader, original: ModelFolder, module: str, decoded: Decoded,
    weight: torch.Tensor, names: dict[str, str], found: _Compared,
) -> None:  # fmt: skip
    found.count += 1
    served = decoded.weight(torch.float32)
    error, limit = relative(weight, served), _limit(weight, decoded)
    if error > limit and relative(*_unscaled(weight, served)) <= limit:
        found.scaled.append(module)
    elif not error <= limit:
        why = diagnose(stored, reader, original, module, error, names)
        found.strays.append(f"{module} is not the original's weight (error {error:.2f}, at most {limit:.2f}){why}")
    else:
        rounding = rounding_of(decoded, weight)
        if rounding is Rounding.LOOSE:
            found.loose += 1
        elif rounding.flipped:
            found.flips.append(
                f"{module}: {rounding.flipped} of {weight.numel()} codes are not the nearest, all others are"
            )
    found.channels += _dead(module, weight, served)


def relative(weight: torch.Tensor, served: torch.Tensor) -> float:
    """||W - W_q|| / ||W||."""
    return float((weight - served).norm() / weight.norm().clamp_min(1e-30))


def _limit(weight: torch.Tensor, decoded: Decoded) -> float:
    """The largest error that rounding explains, from the module's own scales; never near an unrelated weight's."""
    if decoded.book is not None or decoded.codes.is_floating_point():
        return 0.35
    noise = float(decoded.scale_of_each().float().square().mean().sqrt()) / 12**0.5
    return min(max(STRAY * noise / max(float(weight.square().mean().sqrt()), 1e-30), 0.02), UNRELATED)


def _unscaled(weight: torch.Tensor, served: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both with the scale a column, then a row, taken out that fits best (SmoothQuant, AWQ fold such scales in)."""
    for dim in (0, 1):
        fit = (weight * served).sum(dim, keepdim=True) / served.square().sum(dim, keepdim=True).clamp_min(1e-30)
        served = served * fit
    return weight, served


def _dead(module: str, weight: torch.Tensor, served: torch.Tensor) -> Iterator[str]:
    """Output channels that are constant now and were not before."""
    if weight.shape[1] < 2:
        return
    now = served.amin(1) == served.amax(1)
    was = weight.amin(1) == weight.amax(1)
    if bool((now & ~was).any()):
        yield f"{module}: {int((now & ~was).sum())} output channels are constant that were not in the original"


def _tell(found: _Compared, report: Integrity) -> None:
    fine = not report.damaged(found.strays, "more modules that are not the original's")
    fine &= not report.damaged(found.flips)
    fine &= not report.damaged(found.channels)
    if fine and found.count > len(found.scaled):
        report.checked.append(
            f"{found.count - len(found.scaled)} modules lie as near the original as rounding puts them"
        )
    if found.scaled:
        report.unchecked.append(
            f"{len(found.scaled)} modules equal the original only up to a scale a row or column, {TRANSFORMED}"
        )
    if found.loose and any(line.startswith("hashes:") for line in report.unchecked):
        report.unchecked.append(
            f"single flipped codes in {found.loose} modules: not rounded to nearest, so only hashes tell"
        )
    if found.alone:
        report.unchecked.append(f"{found.alone} modules have no counterpart of their own in the original")


def check_kept(
    stored: ModelFolder, reader: Reader, original: ModelFolder, names: dict[str, str], report: Integrity
) -> None:
    """Tensors that are not quantized equal the original's, bit for bit in the type stored."""
    parts = {part for module in reader.modules(stored) for part in reader.parts(stored, module)}
    kept = [name for name in stored.names if name in names and name not in parts]
    changed = [name for name in kept if not _equal(stored.tensor(name), original.tensor(names[name]))]
    if len(changed) < len(kept):
        report.checked.append(f"{len(kept) - len(changed)} tensors that are not quantized equal the original's")
    if changed and any(TRANSFORMED in line for line in report.unchecked):
        report.unchecked.append(f"{len(changed)} tensors that a transform may have rewritten")
    else:
        report.damaged(f"{name} is not quantized, yet differs from the original" for name in changed)


def counterparts(stored: ModelFolder, skeleton: Skeleton | None, original: ModelFolder) -> dict[str, str]:
    """Tensor, or dequantized ``<module>.weight``, -> the original's tensor: by the architecture, else by name."""
    same = {name: name for name in original.names}
    if skeleton is None:
        return same
    try:
        other = Skeleton(original)
    except ModelError:
        return same
    single = [name for name, _, _ in other.parameters_of("") if other.written_name(name) == other.stored_name(name)]
    pairs = {name: other.stored_name(name) for name in single}  # experts stored together have none
    return same | {
        skeleton.stored_name(name): pairs[name] for name, _, _ in skeleton.parameters_of("") if name in pairs
    }


def rewritten(record: Provenance | None, skeleton: Skeleton | None) -> set[str]:
    """Stored tensors that a transform has rewritten, as the provenance says; their hashes are checked there."""
    if record is None or skeleton is None:
        return set()
    return {skeleton.stored_name(name) for name, _, _ in skeleton.parameters_of("") if name in record.changed}


def _equal(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    """Also where one of the two was rounded from the other."""
    if tensor.shape != other.shape:
        return False
    return torch.equal(tensor, other.to(tensor.dtype)) or torch.equal(tensor.to(other.dtype), other)
