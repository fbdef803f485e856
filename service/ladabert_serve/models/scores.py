"""Logits to labels with scores."""

from collections.abc import Sequence
from heapq import nlargest
from math import exp, fsum
from operator import itemgetter
from typing import Any, Literal

ProblemType = Literal["single_label", "multi_label", "regression"]
FunctionToApply = Literal["softmax", "sigmoid", "none"]


def default_function(problem_type: ProblemType) -> FunctionToApply:
    """Return softmax where labels exclude each other, sigmoid where they do not, and none for a regression's score."""
    functions: dict[ProblemType, FunctionToApply] = {"multi_label": "sigmoid", "regression": "none"}
    return functions.get(problem_type, "softmax")


def apply_function(logits: Sequence[float], function: FunctionToApply, temperature: float) -> list[float]:
    """Return scores in the order of the logits, which must be finite.

    Softmax and sigmoid divide the logits by the calibration's temperature; `none` returns them unchanged.
    """
    if function == "none":
        return list(logits)
    if function == "sigmoid":
        return [_sigmoid(logit / temperature) for logit in logits]
    highest = max(logits)
    exponentials = [exp((logit - highest) / temperature) for logit in logits]
    total = fsum(exponentials)
    return [value / total for value in exponentials]


def rank(labels: Sequence[str], scores: Sequence[float], top_k: int | None) -> list[dict[str, Any]]:
    """Return label and score of the `top_k` best (all when None), best first; equal scores keep the labels' order."""
    pairs = zip(labels, scores, strict=True)
    if top_k is None or top_k >= len(scores):
        best_first = sorted(pairs, key=itemgetter(1), reverse=True)
    else:  # of thousands of labels, the few best are found without sorting the others
        best_first = nlargest(top_k, pairs, key=itemgetter(1))
    return [{"label": label, "score": score} for label, score in best_first]


def scores_in_order(labels: Sequence[str], ranked: Sequence[dict[str, Any]]) -> list[float]:
    """Return the scores of all labels, which `rank` has sorted, in the order of the labels."""
    score_of = {each["label"]: each["score"] for each in ranked}
    return [score_of[label] for label in labels]


def _sigmoid(value: float) -> float:
    if value >= 0:
        return 1 / (1 + exp(-value))
    exponential = exp(value)
    return exponential / (1 + exponential)
