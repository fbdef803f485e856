from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import BertForSequenceClassification

from compression.errors import RecipeError
from compression.factorise import FactorisedLinear
from compression.latency import largest_within, onnx_timer, recall, remember
from compression.recipe import Recipe, StructureRecipe


def size(model: BertForSequenceClassification) -> float:
    """A stand-in for a clock: a thousandth of a millisecond for each parameter."""
    return sum(parameter.numel() for parameter in model.parameters()) / 1000


@pytest.fixture
def latency_recipe(tiny_recipe: Recipe) -> Recipe:
    budget = replace(tiny_recipe.budget, objective="latency", p_svd=1.0, p_embedding_svd=1.0)
    return replace(tiny_recipe, budget=budget)


def test_the_largest_student_within_the_time_is_found(
    tiny_bert: BertForSequenceClassification, latency_recipe: Recipe
) -> None:
    timed: list[float] = []

    def timer(model: BertForSequenceClassification) -> float:
        timed.append(size(model))
        return timed[-1]

    found = largest_within(10.0, tiny_bert, latency_recipe, timer)
    assert found.budget.ratio == pytest.approx(size(tiny_bert) / 10.0, rel=0.1)
    assert max(taken for taken in timed if taken <= 10.0) > 9.0  # a student near the limit was tried and met it
    assert len(timed) < 12


@pytest.mark.parametrize("structure", [StructureRecipe(rank_multiple=2), StructureRecipe(heads=0.5)], ids=str)
def test_the_students_that_are_timed_have_the_recipes_structure(
    tiny_bert: BertForSequenceClassification, latency_recipe: Recipe, structure: StructureRecipe
) -> None:
    def timer(model: BertForSequenceClassification) -> float:
        query = model.get_submodule("bert.encoder.layer.0.attention.self.query")
        assert isinstance(query, FactorisedLinear)
        assert len(query.left) == 32 * structure.heads
        assert query.left.shape[1] % structure.rank_multiple == 0
        return size(model)

    largest_within(10.0, tiny_bert, replace(latency_recipe, structure=structure), timer)
    with pytest.raises(RecipeError, match="the smallest student takes"):
        largest_within(0.1, tiny_bert, replace(latency_recipe, structure=structure), timer)


def test_a_looser_time_gives_a_student_that_is_not_smaller(
    tiny_bert: BertForSequenceClassification, latency_recipe: Recipe
) -> None:
    ratios = [largest_within(ms, tiny_bert, latency_recipe, size).budget.ratio for ms in (5.0, 8.0, 12.0, 1000.0)]
    assert ratios == sorted(ratios, reverse=True)


def test_a_time_that_no_student_meets_is_refused_with_the_fastest_one(
    tiny_bert: BertForSequenceClassification, latency_recipe: Recipe
) -> None:
    with pytest.raises(RecipeError, match=r"--target-latency-ms: 0\.1 cannot be met: the smallest student takes \d"):
        largest_within(0.1, tiny_bert, latency_recipe, size)


def test_a_recipe_for_size_has_no_latency_to_meet(
    tiny_bert: BertForSequenceClassification, tiny_recipe: Recipe
) -> None:
    with pytest.raises(RecipeError, match="objective = latency"):
        largest_within(10.0, tiny_bert, tiny_recipe, size)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_untrained_student_can_be_timed(tiny_bert: BertForSequenceClassification, precision: str) -> None:
    before = torch.get_rng_state()
    assert onnx_timer("single", 32, precision)(tiny_bert) > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_a_ratio_once_found_is_remembered(latency_recipe: Recipe, tmp_path: Path) -> None:
    found = replace(latency_recipe, budget=replace(latency_recipe.budget, ratio=3.14159265358979))
    remember(found, tmp_path / "run" / "ratio.json")
    assert recall(latency_recipe, tmp_path / "run" / "ratio.json") == found
    (tmp_path / "run" / "ratio.json").write_text("{}")
    with pytest.raises(RecipeError, match="delete it to measure anew"):
        recall(latency_recipe, tmp_path / "run" / "ratio.json")
