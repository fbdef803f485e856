import numpy as np
import pytest

from ladabert_compress.measure.predictions import macro_f1, matthews
from ladabert_compress.measure.scores import score


def test_macro_f1_is_the_mean_of_the_labels_f1() -> None:
    labels, predictions = np.array([0, 1, 2, 0, 1, 2]), np.array([0, 2, 1, 0, 0, 1])
    assert macro_f1(predictions, labels) == pytest.approx((4 / 5 + 0 + 0) / 3)
    assert macro_f1(labels, labels) == 1.0
    assert macro_f1(np.array([0, 0]), np.array([5, 5])) == 0.0


def test_macro_f1_of_a_multi_label_task_counts_each_label_once() -> None:
    labels, predictions = np.array([[1, 0, 0], [1, 1, 0]]), np.array([[1, 1, 0], [0, 1, 0]])
    assert macro_f1(predictions, labels) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


def test_matthews_is_the_correlation_of_predictions_and_labels() -> None:
    labels, predictions = np.array([1, 1, 1, 0]), np.array([1, 0, 1, 1])
    assert matthews(predictions, labels) == pytest.approx(np.corrcoef(predictions, labels)[0, 1])
    assert matthews(labels, labels) == pytest.approx(1.0)
    assert matthews(np.array([1, 1]), np.array([0, 1])) == 0.0


def test_matthews_of_a_multi_label_task_is_the_mean_over_its_labels() -> None:
    labels, predictions = np.array([[1, 0], [1, 1], [0, 0]]), np.array([[1, 1], [0, 1], [0, 0]])
    each = [matthews(predictions[:, label], labels[:, label]) for label in (0, 1)]
    assert matthews(predictions, labels) == pytest.approx(sum(each) / 2)
    logits = np.array([[2.0, -1.0], [-3.0, 1.0]], dtype=np.float32)
    both = score(logits, [[1, 0], [0, 1]])
    assert (both.accuracy, both.macro_f1, both.matthews) == pytest.approx((1.0, 1.0, 1.0))
