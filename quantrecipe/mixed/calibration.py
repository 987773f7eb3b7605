"""``--calibration``: which text is measured on, and how much of it."""

from __future__ import annotations

import re

from quantrecipe.advisor.draft import calibration_args
from quantrecipe.errors import QuantRecipeError
from quantrecipe.model import ModelSpec
from quantrecipe.recipe import Calibration

_SHAPE = re.compile(r"(?P<dataset>.+):(?P<samples>\d{1,6})x(?P<length>\d{1,6})")


def parse_calibration(text: str | None, spec: ModelSpec) -> Calibration:
    """``builtin``, a path or a hub id, with ``:128x512`` behind it for samples and their length.

    What is not said is as in qadvise's recipes. Raises QuantRecipeError for a shape of nothing.
    """
    usual = Calibration.model_validate(calibration_args(spec))
    if text is None:
        return usual
    match = _SHAPE.fullmatch(text)
    if match is None:
        return usual.model_copy(update={"dataset": text})
    samples, length = int(match["samples"]), int(match["length"])
    if samples < 1 or length < 8:
        raise QuantRecipeError(
            "too little calibration text",
            value=text,
            limit="SAMPLESxTOKENS of at least 1x8",
            remedy="builtin:128x512",
        )
    shape = {"samples": samples, "sequence_length": min(length, spec.context)}
    return usual.model_copy(update={"dataset": match["dataset"], **shape})
