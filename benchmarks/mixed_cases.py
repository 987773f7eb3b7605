"""The models of benchmarks/mixed.py, and what all its rows share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import AutoTokenizer

from quantrecipe.mixed.measure import make_order, measure_losses
from quantrecipe.mixed.measures.survey import Order
from quantrecipe.mixed.mix import MixMeter
from quantrecipe.mixed.options import Option, candidates, divides
from quantrecipe.mixed.sizes import Sizes
from quantrecipe.mixed.slopes import Space
from quantrecipe.mixed.table import LossTable
from quantrecipe.mixed.units import Unit, units_of
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton, local_path
from quantrecipe.recipe import Calibration, Perplexity
from quantrecipe.runner.calibration import calibration_tokens
from quantrecipe.runner.evaluate import evaluation_windows
from quantrecipe.runner.progress import Quiet

FORMAT = "compressed-tensors"
DEFAULT_ROWS = {
    "demo": ["time", "w2a16-g64", "w3a16", "w3a16-g64", "w4a16-g128", "exhaustive", "autoround-3.3", "autoround-4.3"],
    "": ["w3a16-g64", "w4a16-g64", "w3a16", "w2a16-g64", "time", "autoround-3.3"],
}


@dataclass(frozen=True, slots=True)
class Amounts:
    """Sequences of ``length`` tokens: to calibrate, to choose between measured mixes, and for the table; rounds."""

    length: int
    samples: int
    choosing: int
    windows: int
    rounds: int


AMOUNTS = {"demo": Amounts(256, 32, 8, 48, 1), "": Amounts(512, 16, 4, 24, 0)}
#: The weights of SmolLM2-135M lie on a Q4_1 grid, which asymmetric groups of 32 would hit exactly.
SYMMETRIC_ONLY = ("SmolLM2-135M",)


@dataclass(frozen=True)
class Case:
    """One model. out: where its results go."""

    name: str
    folder: Path
    out: Path

    @classmethod
    def of(cls, model: str, out: Path) -> Case:
        """A model's folder, or ``demo``."""
        return cls(Path(model).name, local_path(model), out / Path(model).name)

    @cached_property
    def amounts(self) -> Amounts:
        """Of text."""
        return AMOUNTS.get(self.name, AMOUNTS[""])

    @cached_property
    def skeleton(self) -> Skeleton:
        """The architecture."""
        return Skeleton(ModelFolder.open(self.folder))

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """As engines fuse them."""
        return units_of(self.skeleton.linears())

    @cached_property
    def sizes(self) -> Sizes:
        """Bytes to the byte."""
        return Sizes(self.skeleton, self.units, FORMAT)

    @cached_property
    def options(self) -> dict[str, tuple[Option, ...]]:
        """All candidates that the layers can take, by unit."""
        tried = [one for one in candidates() if one.facts.symmetric or self.name not in SYMMETRIC_ONLY]
        return {unit.name: tuple(one for one in tried if divides(unit, one)) for unit in self.units}

    @cached_property
    def texts(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """To calibrate, to choose (both of the calibration text, without a shared token), and for the table."""
        part, tokenizer = self.amounts, AutoTokenizer.from_pretrained(self.folder)
        asked = Calibration(samples=part.samples + part.choosing, sequence_length=part.length)
        tokens = calibration_tokens(asked, tokenizer, None).tokens
        held = torch.zeros(len(tokens), dtype=torch.bool)
        held[:: len(tokens) // part.choosing] = True
        held[held.nonzero()[part.choosing :].flatten()] = False
        given = evaluation_windows(Perplexity(sequence_length=part.length, windows=part.windows), tokenizer, None)
        return tokens[~held], tokens[held], given.tokens

    @cached_property
    def meter(self) -> MixMeter:
        """Over the windows to choose by, then those of the table, so that a mix is quantized once."""
        calibration, choosing, given = self.texts
        home = self.out / "cache"
        return MixMeter(self.folder, self.units, calibration, torch.cat([choosing, given]), home, Quiet(), FORMAT)

    def measured(self, effort: str = "default", home: str = "cache") -> LossTable:
        """The losses."""
        return measure_losses(self.folder, self.units, self.options, self.texts[0], effort, self.out / home, Quiet())

    def order(self) -> Order:
        """Model and texts of a survey."""
        return make_order(self.folder, self.units, self.options, self.texts[0], "default")

    def space(self, losses: dict[tuple[str, str], float]) -> Space:
        """What mixes are chosen from, by bytes of the files."""
        pairs = ((unit, one) for unit in self.units for one in self.options[unit.name])
        sizes = {(unit.name, str(one)): self.sizes.option_bytes(unit, one, True) for unit, one in pairs}
        return Space(self.units, self.options, losses, sizes)

    def uniform(self, scheme: str) -> dict[str, Option]:
        """GPTQ with one scheme."""
        return {unit.name: Option(scheme, "gptq") for unit in self.units}
