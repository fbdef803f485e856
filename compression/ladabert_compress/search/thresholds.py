"""The thresholds of a cascade: the cheapest with which other rows, too, will meet a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ladabert_compress.errors import OptionError
from ladabert_compress.measure.intervals import ROUNDING, most_failures
from ladabert_compress.measure.routing import NEVER, Outcome, StageAnswers, Thresholds, route

Measure = Literal["agreement", "accuracy", "latency-ms", "escalated"]
MEASURES: tuple[Measure, ...] = ("agreement", "accuracy", "latency-ms", "escalated")
STEPS = 100  # thresholds tried between those at which the risk changes
MOST_PRICES = 200
FOLDS = 5
RELATIVE_ROUNDING = 1e-12
ORDER = 1e-6  # of risk: among rows of one risk, the surer ones stay first

Groups = list[list[int]]  # labels that share a threshold


@dataclass(frozen=True)
class Target:
    """What a cascade has to reach on other rows than those on which its thresholds are chosen."""

    measure: Measure
    value: float

    @property
    def limits_cost(self) -> bool:
        """Whether the target is about what goes on, and not about what the answers are worth."""
        return self.measure in ("latency-ms", "escalated")

    def __str__(self) -> str:
        return f"{self.measure}={self.value:g}"


@dataclass(frozen=True)
class Choice:
    """The thresholds, and those that they were chosen from, from the most that goes on to the least."""

    thresholds: Thresholds
    promised: bool  # whether they meet the target with the confidence; else they are the safest, which do not, either
    path: tuple[Thresholds, ...]


def choose_thresholds(answers: StageAnswers, target: Target, confidence: float = 0.95) -> Choice:
    """The cheapest thresholds with which as many other rows meet the target, with this confidence.

    For a target on cost, those of the best agreement. Candidates have one threshold for all labels, or one for each.
    A threshold stops just before a row that would count against the target, so each but one is charged such a row.
    Several thresholds also fit the rows that they are chosen on better than others. They are therefore judged by what
    thresholds of the same price, chosen on four fifths of the rows, do on the last fifth, each in turn, where it is
    worse.

    Where none will do, everything goes on, or nothing where the target is on cost.

    Raises:
        OptionError: the target needs labels that the rows lack, or fewer milliseconds than the first stage takes.
    """
    _check_target(answers, target)
    allowed = most_failures(len(answers), _needed_share(answers, target), confidence)
    safest = answers.nothing_goes_on() if target.limits_cost else answers.everything_goes_on()
    best, best_key = safest, (math.inf, math.inf)
    # Of the other targets, the safest thresholds meet any on whatever rows: the last stage agrees with itself.
    if target.measure != "accuracy" or _failures(route(answers, safest), target) <= allowed:
        best_key = _preference(route(answers, safest), target)
    path: list[Thresholds] = []
    for groups in _groupings(answers):
        risks = _risks(answers, groups, target)
        prices = _prices(risks, answers.costs_ms)
        candidates = [_at_price(answers, groups, risks, price) for price in prices]
        path = path or candidates
        outcomes = [route(answers, thresholds) for thresholds in candidates]
        failures = [_failures(outcome, target) for outcome in outcomes]
        if (chosen := len(groups) * (len(answers.costs_ms) - 1)) > 1:
            others = _failures_of_others(answers, groups, target, prices)
            failures = [max(own + chosen - 1, other) for own, other in zip(failures, others, strict=True)]
        for thresholds, outcome, failed in zip(candidates, outcomes, failures, strict=True):
            if failed <= allowed and (key := _preference(outcome, target)) < best_key:
                best, best_key, path = thresholds, key, candidates
    return Choice(best, promised=best_key[0] < math.inf, path=tuple(path))


def _failures_of_others(answers: StageAnswers, groups: Groups, target: Target, prices: Sequence[float]) -> list[int]:
    """For each price, the rows that fail under thresholds that were chosen on other rows."""
    fold_of = np.random.default_rng(0).permutation(len(answers)) % FOLDS
    failed = np.zeros(len(prices))
    for fold in range(FOLDS):
        chosen_on, held_out = answers.select(fold_of != fold), answers.select(fold_of == fold)
        risks = _risks(chosen_on, groups, target)
        for place, price in enumerate(prices):
            failed[place] += _failures(route(held_out, _at_price(chosen_on, groups, risks, price)), target)
    return [int(count) for count in failed]


def met_on_other_halves(
    answers: StageAnswers, target: Target, *, halves: int = 20, confidence: float = 0.95, seed: int = 0
) -> list[bool]:
    """For each of so many random halves, whether thresholds chosen on it meet the target on the other one."""
    return [
        meets(
            route(answers.select(other), choose_thresholds(answers.select(one), target, confidence).thresholds), target
        )
        for one, other in (answers.halves(seed + repeat) for repeat in range(halves))
    ]


def meets(outcome: Outcome, target: Target) -> bool:
    """Whether a cascade meets the target on these very rows."""
    if target.measure == "latency-ms":
        return outcome.mean_ms <= target.value + ROUNDING
    share = 1 - _failures(outcome, target) / len(outcome)
    return share >= (1 - target.value if target.limits_cost else target.value) - ROUNDING


def _check_target(answers: StageAnswers, target: Target) -> None:
    """Checks that the target can be about these rows and stages.

    Raises:
        OptionError: it cannot.
    """
    if target.measure == "accuracy" and answers.truth is None:
        raise OptionError("--target accuracy: the rows have no labels; name rows that do, or a target for agreement")
    if target.measure == "latency-ms" and target.value < answers.costs_ms[0]:
        raise OptionError(
            f"--target latency-ms={target.value:g}: the first stage alone takes {answers.costs_ms[0]:.3f} ms here; "
            "allow more, or begin with a faster stage"
        )


def _needed_share(answers: StageAnswers, target: Target) -> float:
    """The share of rows that may not fail."""
    if target.measure == "latency-ms":
        return 1 - (target.value - answers.costs_ms[0]) / sum(answers.costs_ms[1:])
    return 1 - target.value if target.limits_cost else target.value


def _failures(outcome: Outcome, target: Target) -> int:
    """Rows that count against the target; of a mean cost, that share of the rows which would give it alone.

    A cost between the least and the most scatters no more than one that is either.
    """
    if target.measure == "agreement":
        return outcome.disagreements
    if target.measure == "accuracy":
        assert outcome.wrong is not None
        return outcome.wrong
    if target.measure == "escalated":
        return outcome.escalated
    costs = outcome.answers.costs_ms
    return int(np.ceil(len(outcome) * (outcome.mean_ms - costs[0]) / sum(costs[1:]) - 1e-6))


def _preference(outcome: Outcome, target: Target) -> tuple[float, float]:
    """Less is better; what may be spent is spent, as rows that were not seen disagree sooner."""
    if target.limits_cost:
        return (outcome.disagreements, -outcome.mean_ms)
    return (outcome.mean_ms, outcome.disagreements)


def _groupings(answers: StageAnswers) -> list[Groups]:
    """All labels together, and each that occurs by itself."""
    occurring = np.unique(answers.labels[:-1])
    single = [[int(label)] for label in occurring]
    return [[list(range(answers.label_count))], *([single] if len(single) > 1 else [])]


@dataclass(frozen=True)
class _Risk:
    """The rows of one stage and group: what it costs in failures to answer them there, rising as sureness falls."""

    sureness: npt.NDArray[np.float64]  # falling
    risk: npt.NDArray[np.float64]  # rising

    def threshold(self, most: float) -> float:
        """Under which a row's risk is over ``most``: midway between two rows."""
        kept = int(np.searchsorted(self.risk, most * (1 + RELATIVE_ROUNDING), side="right"))
        if kept == 0:
            return NEVER
        return 0.0 if kept == len(self.risk) else float(self.sureness[kept - 1 : kept + 1].mean())


def _risks(answers: StageAnswers, groups: Groups, target: Target) -> list[list[_Risk]]:
    """By stage but the last, and by group."""
    labels = answers.labels
    if target.measure == "accuracy":
        wrong = (labels != answers.truth).astype(np.float64)
        harm = wrong[:-1] - wrong[-1]
    else:
        harm = (labels[:-1] != labels[-1]).astype(np.float64)
    return [
        [_risk(sureness[chosen], harms[chosen]) for group in groups for chosen in [np.isin(stage_labels, group)]]
        for stage_labels, sureness, harms in zip(labels[:-1], answers.sureness[:-1], harm, strict=True)
    ]


def _at_price(answers: StageAnswers, groups: Groups, risks: list[list[_Risk]], price: float) -> Thresholds:
    """The thresholds at a price, in failures a millisecond: a row stays where that harms less than going on costs."""
    costs, thresholds, going_on = answers.costs_ms, answers.everything_goes_on(), 0.0
    for stage in reversed(range(len(costs) - 1)):
        unsure = 1.0 if stage == len(costs) - 2 else _unsure(answers, stage + 1, thresholds[stage + 1])
        going_on = costs[stage + 1] + unsure * going_on
        for group, risk in zip(groups, risks[stage], strict=True):
            thresholds[stage, group] = risk.threshold(price * going_on)
    return thresholds


def _unsure(answers: StageAnswers, stage: int, thresholds: npt.NDArray[np.float64]) -> float:
    return float((answers.sureness[stage] < thresholds[answers.labels[stage]]).mean())


def _prices(risks: Sequence[Sequence[_Risk]], costs: Sequence[float]) -> list[float]:
    """Failures a millisecond, rising: where the risk of a group jumps, and evenly between."""
    found = []
    for stage, groups in enumerate(risks):
        for risk in (group.risk for group in groups if len(group.risk)):
            ends = risk[np.append(np.diff(risk) > 2 * ORDER, True)]
            even = risk[np.linspace(0, len(risk) - 1, min(STEPS, len(risk))).astype(int)]
            for rest in {costs[stage + 1], sum(costs[stage + 1 :])}:
                found += [ends / rest, even / rest]
    prices = np.unique(np.concatenate(found))
    places = np.linspace(0, len(prices) - 1, min(MOST_PRICES, len(prices))).astype(int)
    return [float(price) for price in prices[places]]


def _risk(sureness: npt.NDArray[np.float64], harm: npt.NDArray[np.float64]) -> _Risk:
    """The mean harm at each sureness, made to rise as it falls by pooling neighbours (isotonic regression)."""
    order = np.argsort(-sureness, kind="stable")
    pools: list[tuple[float, int]] = []  # sum and rows
    for value in harm[order].tolist():
        total, rows = value, 1
        while pools and pools[-1][0] / pools[-1][1] >= total / rows:
            before, more = pools.pop()
            total, rows = total + before, rows + more
        pools.append((total, rows))
    risk = np.repeat([total / rows for total, rows in pools], [rows for _, rows in pools])
    return _Risk(sureness[order], risk + ORDER * np.arange(len(order)) / max(1, len(order)))
