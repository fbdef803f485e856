"""Labels as they stand in a file, and their places in a model's logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ladabert_compress.data.texts import LABEL_SEPARATOR, LabelledTexts
from ladabert_compress.errors import DataError

UNNAMED = "LABEL_0"  # what transformers calls the first label of a model that names none
NO_LABEL = -100  # which the losses of PyTorch leave out


def label_order(labels: Sequence[str]) -> tuple[str, ...]:
    """The distinct labels in logit order: by number where all are integers, else alphabetically."""
    distinct = set(labels) - {""}
    try:
        return tuple(sorted(sorted(distinct), key=int))  # "1" and "01" have one order in every process
    except ValueError:
        return tuple(sorted(distinct))


def labels_of_row(value: str) -> list[str]:
    """The labels of a multi-label row, as it stands in the file; none of an empty field."""
    return [label.strip() for label in value.split(LABEL_SEPARATOR)] if value else []


def label_ids(source: str, data: LabelledTexts, order: Sequence[str]) -> list[int]:
    """Each row's index in ``order``.

    Raises:
        DataError: names the first row whose label is not in ``order``.
    """
    return [ids[0] for ids in _indices(source, data, [[label] for label in data.labels], order)]


def label_ids_of(source: str, data: LabelledTexts, labels: Sequence[str]) -> list[int]:
    """Each row's index in a model's ``labels``: by name, or by number where the data has 0, 1, … instead.

    Raises:
        DataError: a label fits neither.
    """
    return label_ids(source, data, _names_or_numbers(set(data.labels), labels))


def targets_of(
    source: str, data: LabelledTexts, labels: Sequence[str], problem_type: str
) -> list[int] | list[list[int]] | list[float]:
    """Each row's index in a model's ``labels``; in a multi-label task, 1 at each of its labels and 0 at the others.

    A single label is yes or no: its name or 1, and 0 or nothing. In a regression, each row's score.

    Raises:
        DataError: a label is neither one of ``labels`` nor its number, or a score is no number.
    """
    if problem_type == "regression":
        return scores_of(source, data)
    if problem_type != "multi_label":
        return label_ids_of(source, data, labels)
    if len(labels) == 1:
        flags = [["1" if label == labels[0] else label or "0"] for label in data.labels]
        return _indices(source, data, flags, ("0", "1"))
    rows = [labels_of_row(row) for row in data.labels]
    order = _names_or_numbers({label for row in rows for label in row}, labels)
    return [[int(index in ids) for index in range(len(labels))] for ids in _indices(source, data, rows, order)]


def scores_of(source: str, data: LabelledTexts) -> list[float]:
    """Each row's label as a number, for a model with one logit.

    Raises:
        DataError: names the first row whose label is no finite number.
    """
    scores = []
    for row, label in enumerate(data.labels):
        try:
            score = float(label)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise DataError(f"{source}: {data.place(row)}: label {label!r} is no finite number, as a score has to be")
        scores.append(score)
    return scores


def no_targets(rows: int, labels: Sequence[str], problem_type: str) -> npt.NDArray[Any]:
    """What stands in the place of the labels of rows that have none."""
    if problem_type == "regression":
        return np.broadcast_to(np.nan, (rows,))
    return np.broadcast_to(np.int64(NO_LABEL), (rows, len(labels)) if problem_type == "multi_label" else (rows,))


def _names_or_numbers(present: set[str], labels: Sequence[str]) -> Sequence[str]:
    numbers = [str(index) for index in range(len(labels))]
    return numbers if present <= set(numbers) and not present <= set(labels) else labels


def _indices(source: str, data: LabelledTexts, rows: Sequence[Sequence[str]], order: Sequence[str]) -> list[list[int]]:
    index = {label: position for position, label in enumerate(order)}
    for number, row in enumerate(rows):
        for label in row:
            if label not in index:
                message = f"label {label!r} is not one of {', '.join(order)}"
                if order[0] == UNNAMED:
                    message += "; name the teacher's labels with --label-names, in the order of its logits"
                raise DataError(f"{source}: {data.place(number)}: {message}")
    return [[index[label] for label in row] for row in rows]
