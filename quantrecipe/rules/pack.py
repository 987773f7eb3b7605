"""The envelope of a rule pack: what a YAML file may say, checked by pydantic when a pack is made or checked."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, model_validator

from quantrecipe.errors import QuantRecipeError, did_you_mean
from quantrecipe.rules.expression import parse
from quantrecipe.rules.line import line
from quantrecipe.rules.rule import Effect, Query, Rule, Setting, StandsOn, Status

#: Settings that a rule may recommend, with their ranges.
SETTINGS: dict[str, tuple[float, float]] = {
    "smoothquant_alpha": (0, 1),
    "outlier_threshold": (0, 1000),
    "lorc_rank": (1, 1024),
    "act_order": (False, True),
}
MAX_WEIGHT = 10.0


def _checked(text: str) -> str:
    try:
        parse(text)
    except QuantRecipeError as error:
        raise ValueError(str(error)) from error
    return text


Text = Annotated[str, Field(min_length=3, max_length=2000)]
Expression = Annotated[str, AfterValidator(_checked)]
Scalar = StrictBool | StrictInt | StrictFloat | str


class Part(BaseModel):
    """A part of a pack: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class QueryPart(Part):
    """Rows of a CSV: ``where`` gives a value, or several, for each column; ``show`` names columns to print."""

    file: str = Field(pattern=r"^(guidance/)?[a-z0-9_]+\.csv$")
    where: dict[str, Scalar | list[Scalar]] = Field(min_length=1)
    show: list[str] = []

    def query(self) -> Query:
        """As the engine keeps it: every value as a list of texts."""
        where = {
            column: [str(item) for item in (value if isinstance(value, list) else [value])]
            for column, value in self.where.items()
        }
        return Query(self.file, where, tuple(self.show))


class RulePart(Part):
    """One rule as a person writes it; DESIGN.md "Rules" has the meaning of the fields."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,40}/[a-z0-9][a-z0-9.-]{0,60}$")
    title: Text
    status: Status = "stable"
    when: list[Expression] = Field([], max_length=20)
    effect: Effect
    require: list[Expression] = Field([], max_length=20)
    weight: float | None = Field(None, ge=-MAX_WEIGHT, le=MAX_WEIGHT, allow_inf_nan=False)
    value: dict[str, Scalar] = {}
    finding: Text
    advice: Text
    source: Text
    stands_on: list[StandsOn] = Field(min_length=1)
    evidence: list[QueryPart] = []
    limits: Text

    @model_validator(mode="after")
    def _consistent(self) -> RulePart:
        fault = _effect_fault(self) or _value_fault(self.value)
        if fault:
            raise ValueError(fault)
        return self

    def rule(self, origin: str) -> Rule:
        """The rule with its lines parsed."""
        data: dict[str, Any] = {name: getattr(self, name) for name in self.__class__.model_fields}
        for name in ("when", "require"):
            data[name] = tuple(line(text, parse(text)) for text in data[name])
        evidence = tuple(part.query() for part in self.evidence)
        data |= {"weight": self.weight or 0.0, "stands_on": tuple(self.stands_on), "evidence": evidence}
        return Rule(**data, origin=origin)


class Pack(Part):
    """A file of rules. ``read`` says when, and at which version, a table of another project was read."""

    pack: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,40}$")
    title: Text
    about: Text
    read: str | None = None
    rules: list[RulePart] = Field(min_length=1, max_length=500)

    @model_validator(mode="after")
    def _ids_once(self) -> Pack:
        ids = [rule.id for rule in self.rules]
        twice = next((one for index, one in enumerate(ids) if one in ids[:index]), None)
        if twice:
            raise ValueError(f"rule id {twice!r} stands twice in this file")
        return self


def _effect_fault(rule: RulePart) -> str | None:
    """What does not go with the effect, with the remedy; None where all does."""
    if (rule.effect == "require") != bool(rule.require):
        return "effect 'require' and the lines under require: go together"
    if (rule.effect == "prefer") != bool(rule.weight):
        return "effect 'prefer' and a weight other than 0 go together"
    if rule.effect == "forbid" and not rule.when:
        return "effect 'forbid' needs lines under when:, or nothing could ever be recommended"
    if rule.status == "preview" and rule.effect in ("forbid", "require"):
        return "a preview rule cannot reject; use effect 'prefer' or 'note'"
    return None


def _value_fault(value: dict[str, Setting]) -> str | None:
    for name, setting in value.items():
        if name not in SETTINGS:
            near = did_you_mean(name, SETTINGS)
            return f"unknown setting {name!r}; allowed: {', '.join(SETTINGS)}" + (f"; {near}" if near else "")
        low, high = SETTINGS[name]
        if (
            isinstance(setting, str)
            or isinstance(setting, bool) != isinstance(low, bool)
            or not low <= setting <= high
        ):
            return f"setting {name} is {setting!r}; allowed: {low} to {high}"
    return None
