import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import BertForSequenceClassification

from ladabert_compress.artefact.export import export_artefact
from ladabert_compress.artefact.reading import read_graph
from ladabert_compress.artefact.verification import check_parity
from ladabert_compress.data.batches import Batch, EncodedTexts
from ladabert_compress.graph.encoder import build_bert_graph
from ladabert_compress.graph.session import OnnxSession
from ladabert_compress.measure.inference import classify
from ladabert_compress.recipe import Recipe, StructureRecipe
from ladabert_compress.student.factors import InputMoments, damped_covariance
from ladabert_compress.student.moments import input_moments
from ladabert_compress.student.saved import load_student
from ladabert_compress.student.structure import (
    choose_heads,
    heads_kept,
    layers_kept,
    narrow,
    neurons_kept,
    set_activation,
)
from ladabert_compress.training.distillation import LadaBertLearner
from ladabert_compress.training.run import compress
from tests.compression.conftest import labelled_texts, models_folder


def random_batch(model: BertForSequenceClassification, rows: int) -> Batch:
    ids = torch.randint(model.config.vocab_size, (rows, 12), generator=torch.Generator().manual_seed(rows))
    return Batch(ids, torch.ones_like(ids), torch.zeros_like(ids), ids[:, 0])


def logits_of(model: BertForSequenceClassification, batch: Batch) -> torch.Tensor:
    with torch.inference_mode():
        return classify(model, batch)


def test_neurons_are_taken_out_whole_and_the_rest_stand_in_for_them(tiny_bert: BertForSequenceClassification) -> None:
    with torch.no_grad():  # neurons that say the same twice over: half of them can go
        for index in range(2):
            inner = f"bert.encoder.layer.{index}.intermediate.dense"
            for name in ("weight", "bias"):
                tiny_bert.get_parameter(f"{inner}.{name}")[32:] = tiny_bert.get_parameter(f"{inner}.{name}")[:32]
            outer = tiny_bert.get_parameter(f"bert.encoder.layer.{index}.output.dense.weight")
            outer[:, :32] *= 3  # the first of each pair is the one that moves the output more
    batch = random_batch(tiny_bert, 64)
    narrowed = narrow(tiny_bert, StructureRecipe(neurons=0.5), lambda model: input_moments(model, [batch])).model
    assert narrowed.config.intermediate_size == 32
    assert narrowed.get_parameter("bert.encoder.layer.0.intermediate.dense.weight").shape == (32, 32)
    expected, actual = logits_of(tiny_bert, batch), logits_of(narrowed, batch)
    assert (expected - actual).abs().max() < 0.2 * expected.std()  # what damping takes
    assert tiny_bert.config.intermediate_size == 64


def test_heads_are_taken_out_whole_and_the_rest_stand_in_for_them(tiny_bert: BertForSequenceClassification) -> None:
    with torch.no_grad():  # heads 2 and 3 say what heads 0 and 1 say
        for index, part in itertools.product(range(2), ("query", "key", "value")):
            for name in ("weight", "bias"):
                parameter = tiny_bert.get_parameter(f"bert.encoder.layer.{index}.attention.self.{part}.{name}")
                parameter[16:] = parameter[:16]
    batch = random_batch(tiny_bert, 64)
    narrowed = narrow(tiny_bert, StructureRecipe(heads=0.5), lambda model: input_moments(model, [batch]))
    assert [{head % 2 for head in heads} for heads in narrowed.heads] == [{0, 1}, {0, 1}]
    for part, shape in (("self.query", (16, 32)), ("self.value", (16, 32)), ("output.dense", (32, 16))):
        assert narrowed.model.get_parameter(f"bert.encoder.layer.1.attention.{part}.weight").shape == shape
    expected, actual = logits_of(tiny_bert, batch), logits_of(narrowed.model, batch)
    assert (expected - actual).abs().max() < 0.2 * expected.std()  # what damping takes
    assert tiny_bert.get_parameter("bert.encoder.layer.0.attention.self.query.weight").shape == (32, 32)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(2, 5), size=st.integers(1, 3))
def test_no_other_single_head_is_missed_less(seed: int, count: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    width = count * size
    inputs = torch.randn(40, width, generator=generator, dtype=torch.float64)
    inputs = inputs @ torch.randn(width, width, generator=generator, dtype=torch.float64)  # heads say similar things
    output = nn.Linear(width, 4)
    moments = InputMoments(inputs.mean(dim=0), inputs.T @ inputs / len(inputs))
    kept = choose_heads(output, moments, size, count - 1)
    covariance, weight = damped_covariance(moments), output.weight.detach().double()

    def error_without(head: int) -> float:
        rest = [column for column in range(width) if column // size != head]
        fitted = torch.linalg.solve(covariance[rest][:, rest], covariance[rest] @ weight.T)
        return float((weight @ covariance @ weight.T - weight @ covariance[:, rest] @ fitted).trace())

    (gone,) = set(range(count)) - set(kept)
    assert error_without(gone) == pytest.approx(min(error_without(head) for head in range(count)), rel=1e-6)


def test_a_whole_share_leaves_everything_as_it_is(tiny_bert: BertForSequenceClassification) -> None:
    same = narrow(tiny_bert, StructureRecipe())
    for name, parameter in tiny_bert.named_parameters():
        assert torch.equal(parameter, same.model.get_parameter(name))
    assert (same.layers, same.heads) == ((0, 1), ((0, 1, 2, 3),) * 2)


@pytest.mark.parametrize(
    ("layers", "share", "kept"),
    [(6, 0.5, (1, 3, 5)), (6, 0.34, (2, 5)), (12, 0.5, (1, 3, 5, 7, 9, 11)), (6, 0.67, (0, 2, 3, 5)), (2, 0.01, (1,))],
)
def test_layers_that_stay_are_spread_evenly_and_the_last_is_among_them(
    layers: int, share: float, kept: tuple[int, ...]
) -> None:
    assert layers_kept(layers, StructureRecipe(layers=share)) == kept


def test_a_layer_that_stays_is_the_teachers_and_learns_from_it(
    tiny_bert: BertForSequenceClassification, tiny_recipe: Recipe, encoded: EncodedTexts
) -> None:
    with torch.no_grad():  # the first layer hands on what it reads: a network without it computes the same
        for name, parameter in tiny_bert.named_parameters():
            if name.startswith(("bert.embeddings.LayerNorm", "bert.encoder.layer.0.")):
                parameter.fill_(1.0 if name.endswith("LayerNorm.weight") else 0.0)
    recipe = replace(
        tiny_recipe,
        structure=StructureRecipe(layers=0.5),
        budget=replace(tiny_recipe.budget, ratio=5.0),
        distillation=replace(tiny_recipe.distillation, relation_weight=1.0),
    )
    learner = LadaBertLearner(tiny_bert, recipe, 4, encoded)
    assert (learner.layers, learner.module.config.num_hidden_layers) == ((1,), 1)
    losses = learner.losses(encoded.batch(range(8)))
    assert all(losses[name].item() < 1e-8 for name in ("attention", "hidden", "relation")), losses
    assert tiny_bert.config.num_hidden_layers == 2


@pytest.mark.parametrize(("size", "share", "kept"), [(1536, 0.25, 384), (1536, 0.3, 464), (64, 0.25, 16), (6, 0.5, 3)])
def test_neurons_come_in_sixteens_where_there_are_as_many(size: int, share: float, kept: int) -> None:
    assert neurons_kept(size, StructureRecipe(neurons=share)) == kept


@pytest.mark.parametrize(("heads", "share", "kept"), [(12, 0.5, 6), (12, 0.25, 3), (12, 1.0, 12), (4, 0.01, 1)])
def test_one_head_at_least_stays(heads: int, share: float, kept: int) -> None:
    assert heads_kept(heads, StructureRecipe(heads=share)) == kept


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_graph_has_the_students_activation(tiny_bert: BertForSequenceClassification, activation: str) -> None:
    set_activation(tiny_bert, StructureRecipe(activation=activation))  # type: ignore[arg-type]
    assert check_parity(tiny_bert, build_bert_graph(tiny_bert, "single"), 40) < 1e-4


def test_attention_is_compared_head_by_head_with_those_that_stayed(
    tiny_bert: BertForSequenceClassification, tiny_recipe: Recipe, encoded: EncodedTexts
) -> None:
    with torch.no_grad():  # heads 0 and 2 say nothing: 1 and 3 stay, and attend as before
        for layer in tiny_bert.bert.encoder.layer:
            values = layer.get_submodule("attention.self.value")
            for name, head in itertools.product(("weight", "bias"), (0, 2)):
                values.get_parameter(name)[8 * head : 8 * head + 8] = 0
    recipe = replace(tiny_recipe, structure=StructureRecipe(heads=0.5))
    learner = LadaBertLearner(tiny_bert, recipe, 4, encoded)
    assert learner.heads == ((1, 3), (1, 3))
    losses = learner.losses(encoded.batch(range(8)))
    assert losses["attention"].item() < 1e-8
    assert losses["hidden"].item() < 1e-6


def latency_recipe(recipe: Recipe, structure: StructureRecipe) -> Recipe:
    budget = replace(recipe.budget, ratio=3.0, objective="latency", p_svd=1.0, p_embedding_svd=1.0)
    return replace(recipe, structure=structure, budget=budget)


@pytest.mark.parametrize(
    "structure",
    [
        StructureRecipe(neurons=0.5, activation="relu"),
        StructureRecipe(heads=0.25, neurons=0.5, rank_multiple=2),
        StructureRecipe(layers=0.5, neurons=0.5),
    ],
    ids=["neurons", "heads and neurons", "layers and neurons"],
)
def test_a_narrow_student_reaches_its_ratio_and_is_loaded_and_exported_as_it_was(
    teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path, structure: StructureRecipe
) -> None:
    recipe = latency_recipe(tiny_recipe, structure)
    result = compress(teacher_folder, recipe, labelled_texts(64), labelled_texts(40), tmp_path / "run")
    assert result.student.ratio() == pytest.approx(3.0, rel=0.1)  # a tiny model's ranks are coarse
    loaded, batch = load_student(tmp_path / "run"), result.dev_data.batch(range(8))
    assert torch.equal(logits_of(loaded, batch), logits_of(result.student.model, batch))
    assert loaded.config.intermediate_size == 32
    folder = models_folder(tmp_path) / "narrow"
    manifest = export_artefact(result, folder, data_set="tiny")
    session = OnnxSession(read_graph(folder, manifest, "model.onnx"))
    assert np.abs(session.logits(batch) - logits_of(loaded, batch).numpy()).max() < 1e-4


def test_whole_matrices_of_fewer_heads_are_loaded_as_they_were(
    teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    """Without factors, too: in size mode masks alone may do the rest."""
    budget = replace(tiny_recipe.budget, p_svd=1.0, p_embedding_svd=1.0)
    recipe = replace(tiny_recipe, structure=StructureRecipe(heads=0.5), budget=budget)
    result = compress(teacher_folder, recipe, labelled_texts(64), labelled_texts(40), tmp_path / "run")
    loaded, batch = load_student(tmp_path / "run"), result.dev_data.batch(range(8))
    assert torch.equal(logits_of(loaded, batch), logits_of(result.student.model, batch))
