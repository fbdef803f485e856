import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ladabert_compress.recipe import PruningRecipe
from ladabert_compress.student.budget import GroupShares
from ladabert_compress.student.factors import FactorisedLinear
from ladabert_compress.student.masks import (
    apply_masks,
    draw_masks,
    keep_largest,
    keep_largest_jointly,
    masks_of,
    set_masks,
    split_kept,
)
from ladabert_compress.student.matrices import Matrix


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


def factors() -> nn.Module:
    return nn.Sequential(FactorisedLinear(torch.ones(3, 2), torch.ones(4, 2), torch.ones(3)))


def test_a_mask_zeroes_its_parameter_and_moves_with_the_model() -> None:
    model = factors()
    set_masks(model, {"0.left": torch.tensor([[True, False]] * 3)})
    apply_masks(model)
    assert model.get_parameter("0.left").tolist() == [[1.0, 0.0]] * 3
    assert model.get_parameter("0.right").all()
    assert [name for name in model.state_dict() if name.endswith("_mask")] == ["0.left_mask"]
    assert masks_of(model.to("meta"))["0.left"].is_meta


def test_a_mask_that_is_taken_away_no_longer_zeroes_anything() -> None:
    model = factors()
    set_masks(model, {"0.left": torch.zeros(3, 2, dtype=torch.bool)})
    set_masks(model, {"0.left": None})
    apply_masks(model)
    assert masks_of(model) == {}
    assert model.get_parameter("0.left").all()
    assert "0.left_mask" not in model.state_dict()


def test_masks_drawn_again_replace_all_that_were_there() -> None:
    model = nn.Sequential(nn.Linear(4, 5))
    matrix, recipe = Matrix("0", "encoder", 5, 4), PruningRecipe(score="fisher")
    draw_masks(model, [matrix], {"encoder": GroupShares(1.0, 0.5)}, recipe, {}, {})
    assert int(masks_of(model)["0.weight"].sum()) == 10
    draw_masks(model, [matrix], {"encoder": GroupShares(1.0, 1.0)}, recipe, {}, {})
    assert masks_of(model) == {}
