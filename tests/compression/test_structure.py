from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import BertForSequenceClassification

from compression.batches import Batch
from compression.bert_graph import build_bert_graph
from compression.compress import compress
from compression.export import check_parity
from compression.recipe import Recipe, StructureRecipe
from compression.statistics import input_moments
from compression.structure import narrow, neurons_kept, set_activation
from compression.student import load_student
from compression.training import classify
from tests.compression.conftest import labelled_texts


def random_batch(model: BertForSequenceClassification, rows: int) -> Batch:
    ids = torch.randint(model.config.vocab_size, (rows, 12), generator=torch.Generator().manual_seed(rows))
    return Batch(ids, torch.ones_like(ids), torch.zeros_like(ids), ids[:, 0])


def test_neurons_are_taken_out_whole_and_the_rest_stand_in_for_them(tiny_bert: BertForSequenceClassification) -> None:
    with torch.no_grad():  # neurons that say the same twice over: half of them can go
        for index in range(2):
            inner = f"bert.encoder.layer.{index}.intermediate.dense"
            for name in ("weight", "bias"):
                tiny_bert.get_parameter(f"{inner}.{name}")[32:] = tiny_bert.get_parameter(f"{inner}.{name}")[:32]
            outer = tiny_bert.get_parameter(f"bert.encoder.layer.{index}.output.dense.weight")
            outer[:, :32] *= 3  # the first of each pair is the one that moves the output more
    batch = random_batch(tiny_bert, 64)
    narrowed = narrow(tiny_bert, StructureRecipe(neurons=0.5), input_moments(tiny_bert, [batch]))
    assert narrowed.config.intermediate_size == 32
    assert narrowed.get_parameter("bert.encoder.layer.0.intermediate.dense.weight").shape == (32, 32)
    with torch.inference_mode():
        expected, actual = classify(tiny_bert, batch), classify(narrowed, batch)
    assert (expected - actual).abs().max() < 0.2 * expected.std()  # what damping takes
    assert tiny_bert.config.intermediate_size == 64


def test_a_whole_share_leaves_everything_as_it_is(tiny_bert: BertForSequenceClassification) -> None:
    same = narrow(tiny_bert, StructureRecipe(), {})
    for name, parameter in tiny_bert.named_parameters():
        assert torch.equal(parameter, same.get_parameter(name))


@pytest.mark.parametrize(("size", "share", "kept"), [(1536, 0.25, 384), (1536, 0.3, 464), (64, 0.25, 16), (6, 0.5, 3)])
def test_neurons_come_in_sixteens_where_there_are_as_many(size: int, share: float, kept: int) -> None:
    assert neurons_kept(size, StructureRecipe(neurons=share)) == kept


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_graph_has_the_students_activation(tiny_bert: BertForSequenceClassification, activation: str) -> None:
    set_activation(tiny_bert, StructureRecipe(activation=activation))  # type: ignore[arg-type]
    assert check_parity(tiny_bert, build_bert_graph(tiny_bert, "single"), 40) < 1e-4


def test_a_narrow_student_reaches_its_ratio_and_is_loaded_as_it_was(
    teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    structure = StructureRecipe(neurons=0.5, activation="relu")
    budget = replace(tiny_recipe.budget, ratio=3.0, objective="latency", p_svd=1.0, p_embedding_svd=1.0)
    recipe = replace(tiny_recipe, structure=structure, budget=budget)
    result = compress(teacher_folder, recipe, labelled_texts(64), labelled_texts(40), tmp_path / "run")
    assert result.student.ratio() == pytest.approx(3.0, rel=0.1)  # a tiny model's ranks are coarse
    loaded, batch = load_student(tmp_path / "run"), result.dev_data.batch(range(8))
    with torch.inference_mode():
        assert torch.equal(classify(loaded, batch), classify(result.student.model, batch))
    assert loaded.config.intermediate_size == 32
