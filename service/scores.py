"""Logits to labels with scores."""

import math
from collections.abc import Sequence
from typing import Any, Literal

FunctionToApply = Literal["softmax", "sigmoid", "none"]


def default_function(problem_type: str) -> FunctionToApply:
    """Return softmax where labels exclude each other and sigmoid where they do not."""
    return "sigmoid" if problem_type == "multi_label" else "softmax"


def apply_function(logits: Sequence[float], function: FunctionToApply, temperature: float) -> list[float]:
    """Return scores in the order of the logits, which must be finite.

    Softmax and sigmoid see the logits divided by the calibration's temperature; `none` returns them as they
    are.
    """
    if function == "none":
        return list(logits)
    scaled = [logit / temperature for logit in logits]
    if function == "sigmoid":
        return [_sigmoid(value) for value in scaled]
    highest = max(scaled)
    exponentials = [math.exp(value - highest) for value in scaled]
    total = math.fsum(exponentials)
    return [value / total for value in exponentials]


def rank(labels: Sequence[str], scores: Sequence[float], top_k: int | None) -> list[dict[str, Any]]:
    """Return label and score of the `top_k` best (all when None), high to low; equal scores stay in label order."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    return [{"label": labels[index], "score": scores[index]} for index in order[:top_k]]


def _sigmoid(value: float) -> float:
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    exponential = math.exp(value)
    return exponential / (1 + exponential)
