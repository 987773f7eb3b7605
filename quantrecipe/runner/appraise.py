"""All that is measured on an original and a checkpoint, and the gates judged by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from quantrecipe.recipe import Recipe
from quantrecipe.runner.continuations import continuations
from quantrecipe.runner.evaluate import Measures, convention_of, summarize
from quantrecipe.runner.gates import Evidence, TaskAnswers
from quantrecipe.runner.judge import GateResult, Unsure
from quantrecipe.runner.looks import Subject, Trial, judge_alone, measure_and_judge
from quantrecipe.runner.profile import by_frequency, by_position
from quantrecipe.runner.scorers import Scorer
from quantrecipe.runner.served import Served
from quantrecipe.runner.speed import speed_ratios
from quantrecipe.runner.tasks import answer_tasks, task_names
from quantrecipe.runner.whole import fits, whole


@dataclass(frozen=True, slots=True)
class Order:
    """What to appraise. serving: loads the checkpoint as an engine would, for timing; None = as it is scored.

    once: finds plain data by a name, or gives back what a run that was stopped had found.
    """

    recipe: Recipe
    tokenizer: Any
    subject: Subject | None
    unsure: Unsure = "extend"
    serving: Served | None = None
    once: Callable[[str, Callable[[], Any]], Any] = lambda what, work: work()
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class Appraisal:
    """What was found. details: generations, speed and profile as results.json holds them."""

    trial: Trial
    measures: Measures | None
    tasks: dict[str, TaskAnswers] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def gates(self) -> tuple[GateResult, ...]:
        """The outcomes."""
        return self.trial.gates


def appraise(order: Order, evidence: Evidence) -> Appraisal:
    """Measure what the recipe asks for; judge its gates, measuring on where they stay unsure."""
    subject, recipe = order.subject, order.recipe
    known = replace(evidence, missing={**_missing(recipe), **evidence.missing}, expected=_expected(recipe))
    if subject is None:
        return Appraisal(judge_alone(recipe.gates, known), None)
    tasks, speed = _tasks(order, subject), _speed(order, subject)
    missing = {} if fits(subject.original) else dict.fromkeys(("tasks", "speed"), _TOO_LARGE)
    known = replace(
        known, tasks=tasks, speed=speed["log_ratios"] if speed else None, missing={**known.missing, **missing}
    )
    trial = measure_and_judge(subject, recipe.gates, known, order.unsure)
    details = {"speed": speed, "generations": _generations(order, subject), "profile": _profile(trial)}
    if order.serving is not None:
        details["runtime"] = order.serving.rows(subject.quantized)
        order.serving.close()
    found = Appraisal(trial, _measures(order, subject, trial), tasks, details)
    subject.original.close()
    subject.quantized.close()
    return found


def with_peak(found: Appraisal, recipe: Recipe, peak_memory: int | None) -> Appraisal:
    """The same, its gates judged once more now that the run's peak memory is known."""
    evidence = replace(found.trial.evidence, peak_memory=peak_memory)
    return replace(found, trial=found.trial.judged_again(recipe.gates, evidence))


_TOO_LARGE = "not measured: the model does not fit the memory whole"


def _expected(recipe: Recipe) -> Any:
    return None if recipe.expected is None else recipe.expected.loss


def _missing(recipe: Recipe) -> dict[str, str]:
    """Why a gate may have nothing to be judged by."""
    found: dict[str, str] = {}
    if recipe.evaluation.perplexity is None:
        why = "not measured: the recipe has evaluation.perplexity: null"
        found |= dict.fromkeys(("perplexity", "divergence", "baseline", "speed", "tasks"), why)
    elif not recipe.evaluation.divergence:
        found["divergence"] = "not measured: the recipe has evaluation.divergence: false"
    return found


def _tasks(order: Order, subject: Subject) -> dict[str, TaskAnswers]:
    names = task_names(order.recipe)
    if not names or not fits(subject.original):
        return {}
    scorers = {"original": subject.original, "quantized": _in_codes(order, subject)}
    given = {side: order.once(f"tasks-{side}", partial(_answers, order, side, one)) for side, one in scorers.items()}
    first, second = given["original"], given["quantized"]
    return {name: TaskAnswers(first[name][0], second[name][0], second[name][1]) for name in first}


def _answers(order: Order, side: str, scorer: Scorer) -> dict[str, tuple[list[bool], str]]:
    """Of each task the questions that a model answers rightly, and by which metric."""
    assert order.subject is not None
    order.subject.progress.start(f"tasks, {side}")
    with whole(scorer) as model:
        answers = answer_tasks(model, order.tokenizer, task_names(order.recipe))
    return {name: (one.right, one.metric) for name, one in answers.items()}


def _speed(order: Order, subject: Subject) -> dict[str, Any] | None:
    if order.recipe.gates.min_tokens_per_second_ratio is None or not fits(subject.original):
        return None
    subject.progress.start("speed")
    serving = None if order.serving is None else order.serving()
    if serving is not None and next(serving.parameters(), None) is None:
        serving.close()
        subject.progress.note("speed is not timed: the backend's model runs in a process of its own")
        return None
    with whole(subject.original) as original:
        if serving is not None:
            return speed_ratios(original, serving, subject.windows.tokens)
        with whole(subject.quantized) as quantized:
            return speed_ratios(original, quantized, subject.windows.tokens)


def _generations(order: Order, subject: Subject) -> list[dict[str, Any]]:
    count = order.recipe.evaluation.generations
    if not count or not fits(subject.original):
        return []
    subject.progress.start("generations")
    return continuations(subject.original, _in_codes(order, subject), subject.windows, order.tokenizer, count)


def _in_codes(order: Order, subject: Subject) -> Scorer:
    """The quantized side for what needs it whole."""
    return subject.quantized if order.serving is None else order.serving.scorer(subject.quantized)


def _profile(trial: Trial) -> dict[str, Any] | None:
    if trial.windows is None or trial.scores is None:
        return None
    return {
        "position": by_position(trial.windows, trial.scores),
        "frequency": by_frequency(trial.windows, trial.scores),
    }


def _measures(order: Order, subject: Subject, trial: Trial) -> Measures | None:
    if trial.windows is None or trial.scores is None:
        return None
    device = str(getattr(subject.original, "device", "cpu"))
    convention = convention_of(subject.part, trial.windows, order.tokenizer, subject.original.dtype, device)
    return summarize(trial.scores, trial.windows, convention)
