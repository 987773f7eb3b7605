"""A mix measured: quantized by the native backend, and KL and perplexity over windows of text, paired."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from quantrecipe.mixed.groups import groups_of
from quantrecipe.mixed.options import Option
from quantrecipe.mixed.table import cache_folder
from quantrecipe.mixed.units import Unit
from quantrecipe.modeling import files
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.identity import surroundings
from quantrecipe.modeling.journal import Journal
from quantrecipe.modeling.plan import make_plan
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.contract import Job, Progress
from quantrecipe.plugins.manager import backend
from quantrecipe.recipe import Recipe
from quantrecipe.runner.evaluate import checked
from quantrecipe.runner.intervals import Interval, mean_interval
from quantrecipe.runner.losses import compare
from quantrecipe.runner.quantized import Rounded
from quantrecipe.runner.scorers import Streamed
from quantrecipe.runner.serving import Service, stream

#: Tokens whose logits the backend keeps to prove the checkpoint; not needed here.
WITNESS = 16


@dataclass(frozen=True, slots=True)
class Measured:
    """What a mix loses, by window in the order of the text.

    kl: nats a token. losses, original: cross-entropy in nats a token of the mix and of the model as it was.
    file_bytes: of the weight files. seconds: of quantizing, and of measuring.
    """

    kl: tuple[float, ...]
    losses: tuple[float, ...]
    original: tuple[float, ...]
    file_bytes: int
    seconds: tuple[float, float]

    @property
    def mean_kl(self) -> float:
        """Over the windows."""
        return math.fsum(self.kl) / len(self.kl)

    @property
    def perplexity(self) -> float:
        """Of the mix."""
        return math.exp(math.fsum(self.losses) / len(self.losses))

    @property
    def increase(self) -> Interval:
        """Of perplexity against the original's, as a share."""
        return mean_interval([a - b for a, b in zip(self.losses, self.original, strict=True)]).map(math.expm1)

    def less_kl_than(self, other: Measured) -> Interval:
        """KL of this mix minus that of another over the same windows."""
        return mean_interval([a - b for a, b in zip(self.kl, other.kl, strict=True)])

    def perplexity_against(self, other: Measured) -> Interval:
        """Increase of perplexity against another mix over the same windows."""
        return mean_interval([a - b for a, b in zip(self.losses, other.losses, strict=True)]).map(math.expm1)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measured:
        """From what ``asdict`` gave."""
        kl, losses, original, seconds = (tuple(data[key]) for key in ("kl", "losses", "original", "seconds"))
        return cls(kl, losses, original, int(data["file_bytes"]), (seconds[0], seconds[1]))


class MixMeter:
    """Measures mixes of one model over fixed windows; what was measured before is not measured again.

    calibration: int64 [sequences, tokens] for the methods. windows: int64 [windows, length] to measure on.
    home: folder where results are kept, by the identity of all this.
    """

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        folder: Path,
        units: Sequence[Unit],
        calibration: torch.Tensor,
        windows: torch.Tensor,
        home: Path,
        progress: Progress,
        form: str = "compressed-tensors",
        device: str = "cpu",
    ) -> None:
        self.folder, self.units, self.form, self.device = folder, units, form, device
        self.calibration, self.windows, self.progress = calibration, windows, progress
        tokens = {"calibration tokens": calibration, "windows": windows}
        identity = surroundings(ModelFolder.open(folder), device, tokens) | {"format": form}
        self.home = cache_folder(home, identity)

    def measure(self, chosen: Mapping[str, Option]) -> Measured:
        """Of a mix: the option of each unit by its name."""
        names = {unit.name: str(chosen[unit.name]) for unit in self.units}
        for line in self._lines():
            if line["chosen"] == names:
                return Measured.from_json(line["measured"])
        found = self._measure(chosen)
        journal = Journal(self.home)
        journal.add("mix", chosen=names, measured=asdict(found))
        journal.close()
        return found

    def _lines(self) -> list[dict[str, Any]]:
        journal = Journal(self.home)
        journal.close()
        return journal.of("mix")

    @cached_property
    def _original(self) -> Streamed:
        scorer = Streamed(Skeleton(ModelFolder.open(self.folder)), self.device)
        self.progress.start("original", len(scorer.skeleton.blocks))
        scorer.run(self.windows, self.progress)
        return scorer

    def _measure(self, chosen: Mapping[str, Option]) -> Measured:
        out = self.home / "mix"
        files.remove(out)
        try:
            began = time.perf_counter()
            plan = self._quantize(chosen, out)
            quantized = time.perf_counter()
            scorer = stream(out, Service(self.device, Rounded.of(plan), self._original.dtype))
            self.progress.start("measure the mix", len(scorer.skeleton.blocks))
            scorer.run(self.windows, self.progress)
            scores = checked(compare(self._original, scorer, self.windows, self.progress))
            scorer.close()
            size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
        finally:
            files.remove(out)
        assert scores.kl is not None
        kl, losses, original = (tuple(part.tolist()) for part in (scores.kl, scores.quantized, scores.original))
        return Measured(kl, losses, original, size, (quantized - began, time.perf_counter() - quantized))

    def _quantize(self, chosen: Mapping[str, Option], out: Path) -> Any:
        """Write the mix's checkpoint; its plan."""
        linears = Skeleton(ModelFolder.open(self.folder)).linears()
        groups, ignore = groups_of(linears, self.units, chosen)
        quantization = {"config_groups": groups, "ignore": ignore, "format": self.form}
        recipe = Recipe.model_validate({"model": {"id": str(self.folder)}, "quantization": quantization})
        plan = make_plan(recipe, linears)
        files.make_folder(out)
        witness = self.calibration[:1, :WITNESS]
        backend("native").quantize(
            Job(recipe, self.folder, out, plan, self.calibration, witness, self.form, self.device, self.progress)
        )
        return plan
