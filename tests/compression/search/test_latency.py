import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import BertForSequenceClassification

from ladabert_compress.data.batches import EncodedTexts
from ladabert_compress.data.random_batches import Shape
from ladabert_compress.errors import RecipeError
from ladabert_compress.graph.candidates import candidate_graphs
from ladabert_compress.measure.timing import Runner, Timing, timed_shape
from ladabert_compress.recipe import FactorisationRecipe, Recipe, StructureRecipe
from ladabert_compress.search.latency import find_ratio, largest_within, onnx_timer
from ladabert_compress.student.factors import FactorisedLinear
from ladabert_compress.training.distillation import LadaBertLearner
from ladabert_compress.training.loop import make_optimiser


def size(model: BertForSequenceClassification) -> float:
    """A stand-in for a clock: a thousandth of a millisecond for each parameter."""
    return sum(parameter.numel() for parameter in model.parameters()) / 1000


@pytest.fixture
def latency_recipe(tiny_recipe: Recipe) -> Recipe:
    budget = replace(tiny_recipe.budget, objective="latency", p_svd=1.0, p_embedding_svd=1.0)
    return replace(tiny_recipe, budget=budget)


def test_the_largest_student_within_the_time_is_found(
    tiny_bert: BertForSequenceClassification, latency_recipe: Recipe, encoded: EncodedTexts
) -> None:
    timed: list[float] = []

    def timer(model: BertForSequenceClassification) -> float:
        timed.append(size(model))
        return timed[-1]

    found = largest_within(10.0, tiny_bert, latency_recipe, encoded, timer)
    assert found.budget.ratio == pytest.approx(size(tiny_bert) / 10.0, rel=0.1)
    assert max(taken for taken in timed if taken <= 10.0) > 9.0  # a student near the limit was tried and met it
    assert len(timed) < 12


@pytest.mark.parametrize("structure", [StructureRecipe(rank_multiple=2), StructureRecipe(heads=0.5)], ids=str)
def test_the_students_that_are_timed_have_the_recipes_structure(
    tiny_bert: BertForSequenceClassification, latency_recipe: Recipe, encoded: EncodedTexts, structure: StructureRecipe
) -> None:
    def timer(model: BertForSequenceClassification) -> float:
        query = model.get_submodule("bert.encoder.layer.0.attention.self.query")
        assert isinstance(query, FactorisedLinear)
        assert len(query.left) == 32 * structure.heads
        assert query.left.shape[1] % structure.rank_multiple == 0
        return size(model)

    largest_within(10.0, tiny_bert, replace(latency_recipe, structure=structure), encoded, timer)
    with pytest.raises(RecipeError, match="the smallest student takes"):
        largest_within(0.1, tiny_bert, replace(latency_recipe, structure=structure), encoded, timer)


def test_a_looser_time_gives_a_student_that_is_not_smaller(
    tiny_bert: BertForSequenceClassification, latency_recipe: Recipe, encoded: EncodedTexts
) -> None:
    ratios = [
        largest_within(ms, tiny_bert, latency_recipe, encoded, size).budget.ratio for ms in (5.0, 8.0, 12.0, 1000.0)
    ]
    assert ratios == sorted(ratios, reverse=True)


def test_a_time_that_no_student_meets_is_refused_with_the_fastest_one(
    tiny_bert: BertForSequenceClassification, latency_recipe: Recipe, encoded: EncodedTexts
) -> None:
    with pytest.raises(RecipeError, match=r"--target-latency-ms: 0\.1 cannot be met: the smallest student takes \d"):
        largest_within(0.1, tiny_bert, latency_recipe, encoded, size)


def test_a_recipe_for_size_has_no_latency_to_meet(
    tiny_bert: BertForSequenceClassification, tiny_recipe: Recipe, encoded: EncodedTexts
) -> None:
    with pytest.raises(RecipeError, match="objective = latency"):
        largest_within(10.0, tiny_bert, tiny_recipe, encoded, size)


def test_what_is_timed_has_the_ranks_that_the_recipe_would_give(
    tiny_bert: BertForSequenceClassification, latency_recipe: Recipe, encoded: EncodedTexts
) -> None:
    recipe = replace(latency_recipe, factorisation=FactorisationRecipe(error="outputs", ranks="sensitivity"))
    timed: list[dict[str, int]] = []

    def timer(model: BertForSequenceClassification) -> float:
        timed.append(ranks_of(model))
        return size(model)

    found = largest_within(10.0, tiny_bert, recipe, encoded, timer)
    at_once = replace(found, schedule=replace(found.schedule, iterations=1, factorise_iterations=1))
    learner = LadaBertLearner(tiny_bert, at_once, 5, encoded)
    learner.before_step(0, make_optimiser(learner.module, found.training))
    assert ranks_of(learner.module) in timed
    assert len({rank for name, rank in ranks_of(learner.module).items() if ".self." in name}) > 1


def ranks_of(model: BertForSequenceClassification) -> dict[str, int]:
    return {name: value.shape[1] for name, value in model.named_parameters() if name.endswith(".right")}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_untrained_student_can_be_timed(tiny_bert: BertForSequenceClassification, precision: str) -> None:
    before = torch.get_rng_state()
    assert onnx_timer("single", 32, precision)(tiny_bert) > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_a_students_time_is_that_of_the_fastest_of_the_exports_graphs_by_itself(
    tiny_bert: BertForSequenceClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, list[Shape]]] = []

    def time_in_turns(
        runners: Mapping[str, Runner], shapes: Sequence[Shape], *, repeats: int, clock: Callable[[], float]
    ) -> list[Timing]:
        assert clock is time.thread_time  # which other work on the machine does not change
        seen.append((len(runners), list(shapes)))
        return [Timing(name, shapes[0], (5.0 - int(name) - (len(runners) == 1),) * repeats) for name in runners]

    monkeypatch.setattr("ladabert_compress.search.latency.time_in_turns", time_in_turns)
    candidates = candidate_graphs(tiny_bert, "single", None, "cpu")
    assert len(candidates) > 1
    assert onnx_timer("single", 32, "fp32")(tiny_bert) == 5.0 - (len(candidates) - 1) - 1.0
    assert seen == [(len(candidates), [timed_shape(32)]), (1, [timed_shape(32)])]


def test_a_ratio_once_found_is_remembered(
    tiny_bert: BertForSequenceClassification, latency_recipe: Recipe, encoded: EncodedTexts, tmp_path: Path
) -> None:
    file = tmp_path / "run" / "ratio.json"
    first = find_ratio(10.0, tiny_bert, latency_recipe, encoded, size, file, resume=True)

    def never(_: BertForSequenceClassification) -> float:
        raise AssertionError("a resumed run measures nothing")

    assert find_ratio(10.0, tiny_bert, latency_recipe, encoded, never, file, resume=True) == first
    with pytest.raises(AssertionError, match="measures nothing"):
        find_ratio(10.0, tiny_bert, latency_recipe, encoded, never, file, resume=False)
    file.write_text("{}")
    with pytest.raises(RecipeError, match="delete it to measure anew"):
        find_ratio(10.0, tiny_bert, latency_recipe, encoded, never, file, resume=True)
