"""Claims about what stands beside the students: classifiers of words, ONNX Runtime's tools, and fewer layers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from benchmarks.__main__ import main
from benchmarks.alternatives.layers import layers_alone
from benchmarks.alternatives.texts import StaticEmbeddings, TextClassifier, TextRunner, TfIdf, as_logits, token_vectors
from benchmarks.alternatives.tools import tool_graphs
from benchmarks.harness.results import Results
from ladabert_compress.cli.main import main as compress_main
from ladabert_compress.data.batches import EncodedTexts
from ladabert_compress.data.random_batches import random_batch
from ladabert_compress.graph.session import OnnxSession, onnx_logits
from ladabert_compress.measure.inference import predict_logits
from ladabert_compress.recipe import load_recipe, to_toml
from ladabert_compress.student.factors import Factorised
from ladabert_compress.teacher.folder import Teacher, load_teacher
from ladabert_compress.training.distillation import LadaBertLearner
from ladabert_compress.training.loop import make_optimiser
from tests.compression.conftest import labelled_texts

pytestmark = pytest.mark.slow


@pytest.fixture
def teacher(teacher_folder: Path) -> Teacher:
    return load_teacher(teacher_folder)


@pytest.mark.parametrize("kind", ["tfidf", "static"])
def test_a_classifier_of_words_learns_which_word_decides(kind: str, teacher: Teacher) -> None:
    """With one word a text, its order does not matter."""
    rows, others = labelled_texts(200), labelled_texts(90)
    texts, unseen = ([text.split()[0] for text in part.texts] for part in (rows, others))
    labels, truth = (np.array([label == "positive" for label in part.labels], dtype=int) for part in (rows, others))
    found: TextClassifier = TfIdf(texts, labels) if kind == "tfidf" else StaticEmbeddings(teacher, texts, labels)
    assert (found.logits(unseen).argmax(axis=1) == truth).mean() > 0.95
    assert found.logits([""]).shape == (1, 2)  # nothing to go by is no error
    assert found.stored_bytes > 4 * len({*texts})


def test_a_token_has_one_vector_and_rare_ones_the_longer(teacher: Teacher) -> None:
    vectors = token_vectors(teacher, dimensions=8)
    assert vectors.shape == (len(teacher.tokenizer), 8)
    assert np.array_equal(vectors, token_vectors(teacher, dimensions=8))
    lengths = np.linalg.norm(vectors, axis=1)
    assert lengths[len(lengths) // 2 :].mean() > lengths[: len(lengths) // 2].mean()


def test_decisions_of_two_labels_become_logits_as_those_of_three_are() -> None:
    assert as_logits(np.array([-1.0, 2.0])).argmax(axis=1).tolist() == [0, 1]
    assert as_logits(np.eye(3)).shape == (3, 3)


def test_texts_are_timed_by_as_many_words_as_a_graph_gets_tokens() -> None:
    asked: list[list[str]] = []

    class Listening:
        stored_bytes = 0

        def logits(self, texts: list[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
            asked.append(texts)
            return np.zeros((len(texts), 2), dtype=np.float32)

    runner = TextRunner(Listening(), ["good film, the plot", "dull"])  # type: ignore[arg-type]
    runner.logits(random_batch(2, (3, 16)))
    runner.logits(random_batch(2, (3, 16)))
    assert [len(text.split()) for text in asked[0]] == [14, 14, 14]
    assert asked[0] is asked[1]  # made once, before anything is timed


def test_the_tools_graphs_answer_nearly_as_the_teacher_does(teacher: Teacher, encoded: EncodedTexts) -> None:
    expected = predict_logits(teacher.model, encoded, torch.device("cpu")).numpy()
    graphs = tool_graphs(teacher, "single", [encoded.batch(range(32))])
    assert len(graphs) == 3
    for name, graph in graphs.items():
        found = onnx_logits(OnnxSession(graph.SerializeToString(), fuse=True), encoded)
        apart = np.abs(found - expected).max() / np.ptp(expected)
        assert apart < (1e-4 if "fp32" in name else 0.2), name
        integers = {node.op_type for node in graph.graph.node} & {"MatMulInteger", "DequantizeLinear"}
        assert bool(integers) == ("int8" in name), name


def test_fewer_layers_are_the_teachers_own_and_whole(
    tiny_bert: BertForSequenceClassification, encoded: EncodedTexts
) -> None:
    recipe = layers_alone(tiny_bert, 0.5)
    learner = LadaBertLearner(tiny_bert, recipe, 5, encoded)
    learner.before_step(0, make_optimiser(learner.module, recipe.training))
    assert learner.layers == (1,)
    assert not any(isinstance(module, Factorised) for module in learner.module.modules())
    for name, parameter in learner.module.named_parameters():
        of_teacher = name.replace("encoder.layer.0.", "encoder.layer.1.")
        assert torch.equal(parameter, tiny_bert.get_parameter(of_teacher)), name


def test_the_recipe_of_fewer_layers_is_read_as_it_was_meant(
    folder: Path, teacher_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["layers", "--teacher", "teacher", "--layers", "0.5", "--out", "half.toml"]) == 0
    recipe = layers_alone(load_teacher(teacher_folder).model, 0.5)
    assert load_recipe("half.toml") == recipe
    assert to_toml(load_recipe("half.toml")) == Path("half.toml").read_text(encoding="utf-8")
    assert main(["layers", "--teacher", "teacher", "--layers", "1.5", "--out", "more.toml"]) == 2
    assert "--layers: 1.5 is no share of the layers" in capsys.readouterr().err


def test_the_command_puts_all_of_them_in_one_table(folder: Path, teacher_folder: Path) -> None:
    rows = ["--teacher", "teacher", "--train", "train.tsv", "--dev", "dev.tsv"]
    main(["layers", "--teacher", "teacher", "--out", "half.toml"])
    shorter = ["--min-steps", "0", "--max-length", "32", "--recipe", "half.toml", "--out", "models/half"]
    compress_main(["compress", *rows, *shorter])
    assert main(["alternatives", *rows, "--models", "models/half", "--repeats", "1", "--json", "found.json"]) == 0
    results = Results.load(folder / "found.json")
    found = results.rows("alternatives")
    names = [row["name"] for row in found]
    assert (
        sum("labels" in name for name in names) == sum("teacher" in name for name in names if "logistic" in name) == 2
    )
    assert sum(name.startswith("teacher, ") for name in names) == 3
    assert sum(name.startswith("`half`") for name in names) >= 1
    assert all(len(row["cpu_ms"]) == len(results.settings["shapes"]) for row in found)
    (fused,) = results.rows("alternatives", name="teacher, fp32, usual fusions")
    assert fused["agreement"] == 1
    assert json.loads((folder / "models" / "half" / "manifest.json").read_text())["compression"]["reached_ratio"] > 1
