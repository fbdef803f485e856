import torch
from hypothesis import given
from hypothesis import strategies as st

from ladabert_compress.student.masks import keep_largest, keep_largest_jointly, split_kept


@given(
    values=st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=60),
    data=st.data(),
)
def test_a_mask_keeps_exactly_k_entries_and_none_smaller_than_a_dropped_one(
    values: list[float], data: st.DataObject
) -> None:
    keep = data.draw(st.integers(0, len(values)))
    weight = torch.tensor(values)
    mask = keep_largest(weight.abs(), keep)
    assert int(mask.sum()) == keep
    if 0 < keep < len(values):
        assert weight.abs()[mask].min() >= weight.abs()[~mask].max()


def test_masks_drawn_together_keep_the_largest_of_all() -> None:
    masks = keep_largest_jointly({"a": torch.tensor([[1.0, 5.0]]), "b": torch.tensor([4.0, 3.0, 0.0])}, 3)
    assert masks["a"].tolist() == [[False, True]]
    assert masks["b"].tolist() == [True, True, False]


def test_of_equal_magnitudes_the_first_is_kept() -> None:
    weight = torch.tensor([[1.0, -1.0], [2.0, 1.0]])
    assert keep_largest(weight.abs(), 2).tolist() == [[True, False], [True, False]]


@given(
    left=st.integers(1, 5000),
    right=st.integers(1, 5000),
    total=st.integers(0, 12000),
    ratio=st.floats(0.01, 1000),
)
def test_the_two_factors_together_keep_exactly_the_budget(left: int, right: int, total: int, ratio: float) -> None:
    left_kept, right_kept = split_kept(total, left, right, ratio)
    assert left_kept + right_kept == min(total, left + right)
    assert 0 <= left_kept <= left
    assert 0 <= right_kept <= right


def test_a_ratio_of_one_prunes_both_factors_alike() -> None:
    assert split_kept(150, 200, 100, 1.0) == (100, 50)
