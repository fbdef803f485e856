"""Claims about scores."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladabert_serve.models.scores import apply_function, default_function, rank

logits = st.lists(st.floats(-3e38, 3e38), min_size=2, max_size=6)


@given(values=logits, temperature=st.floats(0.01, 100))
def test_softmax_is_a_distribution_for_any_finite_logits(values: list[float], temperature: float) -> None:
    scores = apply_function(values, "softmax", temperature)
    assert math.fsum(scores) == pytest.approx(1)
    assert all(0 <= score <= 1 for score in scores)


@given(values=logits, temperature=st.floats(0.01, 100))
def test_sigmoid_stays_between_zero_and_one(values: list[float], temperature: float) -> None:
    assert all(0 <= score <= 1 for score in apply_function(values, "sigmoid", temperature))


def test_temperature_divides_the_logits_of_softmax_and_leaves_raw_ones() -> None:
    assert apply_function([2.0, 0.0], "softmax", 2.0) == apply_function([1.0, 0.0], "softmax", 1.0)
    assert apply_function([2.0, 0.0], "none", 2.0) == [2.0, 0.0]


def test_scores_are_ranked_high_to_low_and_ties_keep_label_order() -> None:
    ranked = rank(["a", "b", "c"], [0.2, 0.4, 0.4], None)
    assert [entry["label"] for entry in ranked] == ["b", "c", "a"]
    assert [entry["label"] for entry in rank(["a", "b", "c"], [0.2, 0.4, 0.4], 1)] == ["b"]


@given(values=st.lists(st.integers(0, 9), min_size=1, max_size=40), top_k=st.integers(1, 50))
def test_the_best_are_the_first_of_all_in_order(values: list[int], top_k: int) -> None:
    labels = [f"label {index}" for index in range(len(values))]
    assert rank(labels, values, top_k) == rank(labels, values, None)[:top_k]


@pytest.mark.parametrize("top_k", [1, 5])
def test_the_best_of_thousands_of_labels_are_found_without_sorting_all(top_k: int) -> None:
    compared = 0

    class Counted(float):
        def __lt__(self, other: float) -> bool:
            nonlocal compared
            compared += 1
            return super().__lt__(other)

        def __gt__(self, other: float) -> bool:
            nonlocal compared
            compared += 1
            return super().__gt__(other)

    values = [Counted((index * 7919) % 4099) for index in range(4000)]
    best = rank([str(index) for index in range(4000)], values, top_k)
    assert best[0]["score"] == max(map(float, values))
    assert compared < 2 * 4000  # sorting takes over ten for each


def test_labels_that_exclude_each_other_get_softmax_and_others_sigmoid() -> None:
    assert default_function("single_label") == "softmax"
    assert default_function("multi_label") == "sigmoid"
    assert default_function("regression") == "none"
