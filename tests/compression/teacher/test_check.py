"""What a user can get wrong, and a full disk: one line, exit code 2, and nothing lost that was there."""

from __future__ import annotations

import numpy as np
import pytest

from ladabert_compress.teacher.check import recall_and_chance


@pytest.mark.parametrize(
    ("predictions", "labels", "better"),
    [
        ([0] * 95 + [1] * 5, [0] * 94 + [1] * 6, True),  # as accurate as always saying 0, but it finds the rare label
        ([0] * 100, [0] * 95 + [1] * 5, False),
        ([0, 1] * 50, [0] * 50 + [1] * 50, False),
        ([0, 1, 2] * 20, [0, 1, 2] * 20, True),
        ([1, 2, 0] * 20, [0, 1, 2] * 20, False),
    ],
)
def test_predictions_are_better_than_chance_where_every_labels_rows_stand_out(
    predictions: list[int], labels: list[int], better: bool
) -> None:
    recall, chance, error = recall_and_chance(np.array(predictions), np.array(labels))
    assert (recall > chance + error) == better
