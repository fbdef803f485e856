"""Claims about the counts that a server compares its traffic with."""

import numpy as np

from ladabert_compress.artefact.distributions import distributions


def test_each_row_is_counted_by_label_score_and_length() -> None:
    logits = np.log(np.array([[0.88, 0.12], [0.22, 0.78], [0.01, 0.99], [0.5, 0.5]], dtype=np.float32))
    counted = distributions(logits, [4, 5, 8, 70000], np.zeros(4, dtype=np.int64), temperature=1.0)
    assert counted["labels"] == [2, 2]
    assert [place for place, count in enumerate(counted["lengths"]) if count] == [0, 1, 15]
    assert counted["lengths"][1] == 2
    assert [counted["scores"][place] for place in (15, 17, 19)] == [1, 1, 1]  # 0.78, 0.88 and 0.99
    assert sum(counted["scores"]) == 4


def test_scores_are_those_that_are_served() -> None:
    logits = np.array([[4.0, 0.0]], dtype=np.float32)
    softmax = distributions(logits, [3], np.zeros(1, dtype=np.int64), temperature=4.0)
    assert softmax["scores"].index(1) == 14  # 1 / (1 + exp(-1)) = 0.731
    sigmoid = distributions(np.array([[-4.0, -8.0]], np.float32), [3], np.zeros((1, 2), np.int64), temperature=4.0)
    assert sigmoid["scores"].index(1) == 5  # 0.269
