import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from transformers import BertForSequenceClassification

from ladabert_compress.data.batches import EncodedTexts
from ladabert_compress.errors import RecipeError
from ladabert_compress.recipe import Recipe
from ladabert_compress.student.masks import masks_of
from ladabert_compress.student.saved import WEIGHTS_FILE, load_student, save_student
from ladabert_compress.student.student import Student
from ladabert_compress.training.distillation import LadaBertLearner
from ladabert_compress.training.loop import make_optimiser


@pytest.fixture
def learner(tiny_bert: BertForSequenceClassification, tiny_recipe: Recipe, encoded: EncodedTexts) -> LadaBertLearner:
    return LadaBertLearner(tiny_bert, tiny_recipe, 4, encoded)


def shrink_fully(learner: LadaBertLearner) -> None:
    optimiser = make_optimiser(learner.module, learner.recipe.training)
    for step in learner.timetable.starts:
        learner.before_step(step, optimiser)


def test_the_ratio_is_reached_within_two_percent(learner: LadaBertLearner) -> None:
    shrink_fully(learner)
    assert learner.student.ratio() == pytest.approx(4.0, rel=0.02)


def test_every_iteration_makes_the_student_smaller(learner: LadaBertLearner) -> None:
    sizes = [learner.student.size().nonzero_parameters]
    optimiser = make_optimiser(learner.module, learner.recipe.training)
    for step in learner.timetable.starts:
        learner.before_step(step, optimiser)
        sizes.append(learner.student.size().nonzero_parameters)
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)


def test_the_student_starts_as_the_teacher_and_leaves_it_and_its_head_alone(
    learner: LadaBertLearner, tiny_bert: BertForSequenceClassification
) -> None:
    before = copy.deepcopy(tiny_bert.state_dict())
    shrink_fully(learner)
    assert all(torch.equal(value, before[name]) for name, value in tiny_bert.state_dict().items())
    assert torch.equal(learner.module.classifier.weight, tiny_bert.classifier.weight)


def test_masked_weights_stay_zero_through_an_optimiser_step(learner: LadaBertLearner, encoded: EncodedTexts) -> None:
    shrink_fully(learner)
    optimiser = make_optimiser(learner.module, learner.recipe.training)
    torch.stack(list(learner.losses(encoded.batch(range(8))).values())).sum().backward()
    optimiser.step()
    learner.after_update()
    for name, mask in masks_of(learner.module).items():
        assert not learner.module.get_parameter(name)[~mask].any()
    assert learner.student.ratio() == pytest.approx(4.0, rel=0.02)


def test_parameters_that_live_on_keep_their_moments(learner: LadaBertLearner, encoded: EncodedTexts) -> None:
    optimiser = make_optimiser(learner.module, learner.recipe.training)
    torch.stack(list(learner.losses(encoded.batch(range(8))).values())).sum().backward()
    optimiser.step()
    assert learner.before_step(0, optimiser)
    renewed = make_optimiser(learner.module, learner.recipe.training, optimiser)
    layer = "bert.encoder.layer.0.output.dense"
    bias, left = learner.module.get_parameter(f"{layer}.bias"), learner.module.get_parameter(f"{layer}.left")
    assert renewed.state[bias] == optimiser.state[bias]
    assert not renewed.state[left]


def test_a_saved_student_computes_the_same_when_loaded(
    learner: LadaBertLearner, encoded: EncodedTexts, tmp_path: Path
) -> None:
    shrink_fully(learner)
    learner.module.eval()
    save_student(learner.module, tmp_path)
    batch = encoded.batch(range(5))
    with torch.inference_mode():
        expected = learner.module(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        loaded = load_student(tmp_path)(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    assert torch.equal(loaded, expected)
    assert masks_of(learner.module)
    assert not [name for name in load_file(tmp_path / WEIGHTS_FILE) if "mask" in name]  # zeros say it already


def test_a_restored_structure_takes_the_weights(
    learner: LadaBertLearner, tiny_bert: BertForSequenceClassification
) -> None:
    shrink_fully(learner)
    restored = Student(copy.deepcopy(tiny_bert))
    restored.restore_structure(learner.student.structure())
    restored.model.load_state_dict(learner.module.state_dict())
    assert restored.size() == learner.student.size()


def changed(recipe: Recipe, **sections: dict[str, Any]) -> Recipe:
    values = recipe.to_dict()
    for section, fields in sections.items():
        values[section] |= fields
    return TypeAdapter(Recipe).validate_python(values)


def test_without_factorisation_the_matrix_itself_is_pruned(
    tiny_bert: BertForSequenceClassification, tiny_recipe: Recipe, encoded: EncodedTexts
) -> None:
    recipe = changed(tiny_recipe, budget={"p_svd": 1.0, "p_embedding_svd": 1.0})
    learner = LadaBertLearner(tiny_bert, recipe, 4, encoded)
    shrink_fully(learner)
    assert not learner.student.ranks
    assert learner.student.ratio() == pytest.approx(4.0, rel=0.02)


@pytest.mark.parametrize(
    "sections",
    [
        {"factorisation": {"error": "outputs"}},
        {"factorisation": {"ranks": "sensitivity"}},
        {"factorisation": {"error": "outputs", "ranks": "sensitivity"}},
        {"pruning": {"score": "fisher"}},
        {"pruning": {"embedding_frequency_power": 0.75}},
        {"pruning": {"score": "fisher", "embedding_frequency_power": 1.0}, "budget": {"p_svd": 1.0}},
        {"pruning": {"embedding_frequency_power": 1.0}, "budget": {"p_embedding_svd": 1.0}},
    ],
    ids=str,
)
def test_whatever_chooses_ranks_and_masks_the_ratio_is_reached(
    tiny_bert: BertForSequenceClassification,
    tiny_recipe: Recipe,
    encoded: EncodedTexts,
    sections: dict[str, dict[str, Any]],
) -> None:
    learner = LadaBertLearner(tiny_bert, changed(tiny_recipe, **sections), 4, encoded)
    shrink_fully(learner)
    assert learner.student.ratio() == pytest.approx(4.0, rel=0.02)


@pytest.mark.parametrize("multiple", [1, 2])
@pytest.mark.parametrize("ranks", ["equal", "sensitivity"])
def test_in_latency_mode_every_parameter_is_a_non_zero(
    tiny_bert: BertForSequenceClassification, tiny_recipe: Recipe, encoded: EncodedTexts, ranks: str, multiple: int
) -> None:
    budget = {"objective": "latency", "p_svd": 1.0, "p_embedding_svd": 1.0}
    structure = {"rank_multiple": multiple}
    recipe = changed(tiny_recipe, budget=budget, factorisation={"ranks": ranks}, structure=structure)
    learner = LadaBertLearner(tiny_bert, recipe, 4, encoded)
    shrink_fully(learner)
    size = learner.student.size()
    assert size.parameters == size.nonzero_parameters
    assert learner.student.ratio() == pytest.approx(4.0, rel=0.1)  # so small a model has few ranks to choose from
    assert all(rank % multiple == 0 for rank in learner.student.ranks.values())


@pytest.mark.parametrize("ranks", ["equal", "sensitivity"])
def test_a_budget_that_cannot_give_each_matrix_its_multiple_is_refused(
    tiny_bert: BertForSequenceClassification, tiny_recipe: Recipe, encoded: EncodedTexts, ranks: str
) -> None:
    budget = {"objective": "latency", "p_svd": 1.0, "p_embedding_svd": 1.0, "p_embedding": 0.5}
    structure = {"rank_multiple": 8}
    recipe = changed(tiny_recipe, budget=budget, factorisation={"ranks": ranks}, structure=structure)
    learner = LadaBertLearner(tiny_bert, recipe, 4, encoded)
    with pytest.raises(RecipeError, match=r"structure\.rank_multiple: .* cannot give each of them rank 8"):
        shrink_fully(learner)


def test_the_fisher_score_keeps_small_weights_with_large_gradients(
    tiny_bert: BertForSequenceClassification, tiny_recipe: Recipe, encoded: EncodedTexts
) -> None:
    recipe = changed(tiny_recipe, pruning={"score": "fisher"}, schedule={"iterations": 2, "factorise_iterations": 1})
    learner = LadaBertLearner(tiny_bert, recipe, 4, encoded)
    optimiser = make_optimiser(learner.module, recipe.training)
    learner.before_step(learner.timetable.starts[0], optimiser)
    name = "bert.encoder.layer.0.attention.self.query.left"
    for parameter in learner.module.parameters():
        optimiser.state[parameter] = {"exp_avg_sq": torch.ones_like(parameter)}
    weight = learner.module.get_parameter(name)
    with torch.no_grad():
        weight[0, 0] = 1e-6
    optimiser.state[weight]["exp_avg_sq"][0, 0] = 1e15
    learner.before_step(learner.timetable.starts[1], optimiser)
    assert bool(masks_of(learner.module)[name][0, 0])
    assert not bool(masks_of(learner.module)[name].all())


def test_tokens_that_occur_more_often_keep_more_of_their_embedding(
    tiny_bert: BertForSequenceClassification, tiny_recipe: Recipe, encoded: EncodedTexts
) -> None:
    learner = LadaBertLearner(tiny_bert, changed(tiny_recipe, pruning={"embedding_frequency_power": 1.0}), 4, encoded)
    shrink_fully(learner)
    kept = masks_of(learner.module)["bert.embeddings.word_embeddings.left"].sum(dim=1).float()
    counts = learner.statistics.row_weights["bert.embeddings.word_embeddings"]
    assert kept[counts > 1].mean() > 2 * kept[counts == 1].mean()


def test_the_moments_are_freed_when_the_ranks_are_final_and_not_before(
    tiny_bert: BertForSequenceClassification, tiny_recipe: Recipe, encoded: EncodedTexts
) -> None:
    learner = LadaBertLearner(tiny_bert, changed(tiny_recipe, factorisation={"error": "outputs"}), 4, encoded)
    optimiser = torch.optim.AdamW(learner.module.parameters())
    first, second, third = learner.timetable.starts  # in the first two of them ranks fall
    learner.before_step(first, optimiser)
    assert learner.statistics.moments
    learner.before_step(second, optimiser)
    assert not learner.statistics.moments
    ranks = dict(learner.student.ranks)
    learner.before_step(third, optimiser)
    assert learner.student.ranks == ranks
