"""Claims about the fp16 graph: fused for CUDA, and on the CPU it predicts as fp32 does."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from transformers import BertForSequenceClassification

from ladabert_compress.artefact.export import export_artefact
from ladabert_compress.artefact.reading import read_graph, read_manifest
from ladabert_compress.artefact.verification import check_half
from ladabert_compress.cli.main import main
from ladabert_compress.errors import ExportError
from ladabert_compress.graph.encoder import build_bert_graph
from ladabert_compress.graph.half_precision import half_precision
from ladabert_compress.graph.plan import GraphPlan
from ladabert_compress.recipe import Recipe
from ladabert_compress.report.evaluation import evaluate
from ladabert_compress.training.run import compress
from tests.compression.conftest import labelled_texts, models_folder


@pytest.mark.parametrize("task", ["single", "pair"])
def test_fp16_is_half_as_large_and_predicts_as_fp32(tiny_bert: BertForSequenceClassification, task: str) -> None:
    fp32 = build_bert_graph(tiny_bert, task)
    fp16 = half_precision(fp32)
    for problem_type in ("single_label", "multi_label"):
        assert 0 < check_half(fp32, fp16, 40, problem_type) < 0.02
    weights = {tensor.data_type for tensor in fp16.graph.initializer}
    assert onnx.TensorProto.FLOAT not in weights
    assert onnx.TensorProto.FLOAT16 in weights


def test_attention_and_the_encoders_normalisations_are_fused(tiny_bert: BertForSequenceClassification) -> None:
    operators = [node.op_type for node in half_precision(build_bert_graph(tiny_bert, "single")).graph.node]
    layers = tiny_bert.config.num_hidden_layers
    assert operators.count("MultiHeadAttention") == layers
    assert operators.count("SkipLayerNormalization") == 2 * layers
    assert operators.count("LayerNormalization") == 1  # the embeddings'


def test_a_weight_that_fp16_cannot_hold_is_refused(tiny_bert: BertForSequenceClassification) -> None:
    tiny_bert.classifier.weight.data[0, 0] = 1e6
    with pytest.raises(ExportError, match=r"classifier\.weight has a weight over 65504"):
        half_precision(build_bert_graph(tiny_bert, "single"))


def test_another_graph_is_no_fp16_of_it(tiny_bert: BertForSequenceClassification) -> None:
    fp32 = build_bert_graph(tiny_bert, "single")
    tiny_bert.classifier.weight.data *= -1
    with pytest.raises(ExportError, match="fp16: a score differs"):
        check_half(fp32, half_precision(build_bert_graph(tiny_bert, "single")), 40, "single_label")


def test_multi_label_scores_are_compared_one_by_one(tiny_bert: BertForSequenceClassification) -> None:
    fp32 = build_bert_graph(tiny_bert, "single")
    tiny_bert.classifier.bias.data += 1  # a softmax does not see it
    fp16 = half_precision(build_bert_graph(tiny_bert, "single"))
    assert check_half(fp32, fp16, 40, "single_label") < 0.02
    with pytest.raises(ExportError, match="fp16: a score differs"):
        check_half(fp32, fp16, 40, "multi_label")


def test_attention_that_is_written_for_a_cpu_is_refused(tiny_bert: BertForSequenceClassification) -> None:
    with pytest.raises(ExportError, match=r"attention is written for a CPU; .* --resume --target cuda"):
        half_precision(build_bert_graph(tiny_bert, "single", plan=GraphPlan(attention="plain")))


def test_the_command_adds_a_graph_that_can_be_evaluated(
    teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dev = labelled_texts(40)
    result = compress(teacher_folder, tiny_recipe, labelled_texts(64), dev, tmp_path / "run")
    folder = models_folder(tmp_path) / "tiny"
    candidates = {GraphPlan(): build_bert_graph(result.student.model, "single")}
    monkeypatch.setattr(
        "ladabert_compress.artefact.export.candidate_graphs", lambda *_: candidates
    )  # whichever is fastest here
    before = export_artefact(result, folder, data_set="tiny", precisions=("fp32",))
    main(["fp16", str(folder)])
    after = read_manifest(folder)
    assert after["version"] != before["version"]
    assert after["default_file"] == "model.onnx"
    assert read_graph(folder, after, "model.onnx") == read_graph(folder, before, "model.onnx")
    main(["fp16", str(folder)])
    assert read_manifest(folder) == after
    figures = evaluate(folder, dev)["files"]
    assert np.isclose(figures["model.fp16.onnx"]["accuracy"], figures["model.onnx"]["accuracy"], atol=1 / 40)


def test_fp16_needs_the_fp32_graph(
    teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = compress(teacher_folder, tiny_recipe, labelled_texts(64), labelled_texts(40), tmp_path / "run")
    folder = models_folder(tmp_path) / "tiny"
    if export_artefact(result, folder, data_set="tiny", precisions=("int8",))["default_file"] != "model.int8.onnx":
        pytest.skip("int8 lost too much on these random rows")
    with pytest.raises(SystemExit):
        main(["fp16", str(folder)])
    assert "has no model.onnx to make fp16 of" in capsys.readouterr().err
