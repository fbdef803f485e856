import copy
from pathlib import Path

import pytest
import torch
from transformers import BertForSequenceClassification

from compression.batches import EncodedTexts
from compression.ladabert import LadaBertLearner
from compression.recipe import Recipe
from compression.student import Student, load_student
from compression.training import make_optimiser


@pytest.fixture
def learner(tiny_bert: BertForSequenceClassification, tiny_recipe: Recipe) -> LadaBertLearner:
    return LadaBertLearner(tiny_bert, tiny_recipe, epoch_steps=4)


def shrink_fully(learner: LadaBertLearner) -> None:
    for step in learner.timetable.starts:
        learner.before_step(step)


def test_the_ratio_is_reached_within_two_percent(learner: LadaBertLearner) -> None:
    shrink_fully(learner)
    assert learner.student.ratio() == pytest.approx(4.0, rel=0.02)


def test_every_iteration_makes_the_student_smaller(learner: LadaBertLearner) -> None:
    sizes = [learner.student.size().nonzero_parameters]
    for step in learner.timetable.starts:
        learner.before_step(step)
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
    for name, mask in learner.student.masks.items():
        assert not learner.module.get_parameter(name)[~mask].any()
    assert learner.student.ratio() == pytest.approx(4.0, rel=0.02)


def test_parameters_that_live_on_keep_their_moments(learner: LadaBertLearner, encoded: EncodedTexts) -> None:
    optimiser = make_optimiser(learner.module, learner.recipe.training)
    torch.stack(list(learner.losses(encoded.batch(range(8))).values())).sum().backward()
    optimiser.step()
    assert learner.before_step(0)
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
    learner.student.save(tmp_path)
    batch = encoded.batch(range(5))
    with torch.inference_mode():
        expected = learner.module(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        loaded = load_student(tmp_path)(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    assert torch.equal(loaded, expected)


def test_a_restored_structure_takes_the_weights(
    learner: LadaBertLearner, tiny_bert: BertForSequenceClassification
) -> None:
    shrink_fully(learner)
    restored = Student(copy.deepcopy(tiny_bert))
    restored.restore_structure(learner.student.structure())
    restored.model.load_state_dict(learner.module.state_dict())
    assert restored.size() == learner.student.size()


def test_without_factorisation_the_matrix_itself_is_pruned(
    tiny_bert: BertForSequenceClassification, tiny_recipe: Recipe
) -> None:
    values = tiny_recipe.to_dict()
    values["budget"] |= {"p_svd": 1.0, "p_embedding_svd": 1.0}
    from pydantic import TypeAdapter

    learner = LadaBertLearner(tiny_bert, TypeAdapter(Recipe).validate_python(values), epoch_steps=4)
    shrink_fully(learner)
    assert not learner.student.ranks
    assert learner.student.ratio() == pytest.approx(4.0, rel=0.02)
