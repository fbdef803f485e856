import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from transformers import BertForSequenceClassification

from compression.answers import accuracy
from compression.artefact import format_manifest, read_graph, read_manifest, validate_manifest
from compression.bert_graph import build_bert_graph
from compression.compress import CompressionResult, compress
from compression.errors import ExportError, OptionError
from compression.export import check_batch_invariance, check_parity, export_artefact
from compression.int8_guard import Guarded
from compression.invariance import Invariance
from compression.onnx_session import OnnxSession
from compression.quantise import Range, calibrate, quantise_columns, quantise_rows
from compression.recipe import Recipe
from compression.student import load_student
from compression.training import predict_logits
from tests.compression.conftest import labelled_texts, models_folder


@pytest.fixture
def result(teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> CompressionResult:
    return compress(teacher_folder, tiny_recipe, labelled_texts(64), labelled_texts(40), tmp_path / "run")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return models_folder(tmp_path)


@pytest.mark.parametrize("task", ["single", "pair"])
def test_a_dense_graph_computes_what_pytorch_computes(tiny_bert: BertForSequenceClassification, task: str) -> None:
    assert check_parity(tiny_bert, build_bert_graph(tiny_bert, task), 40) < 1e-4


def test_a_factorised_graph_computes_what_pytorch_computes(result: CompressionResult) -> None:
    assert result.student.ranks
    assert check_parity(result.student.model, build_bert_graph(result.student.model, "single"), 32) < 1e-4


def test_a_graph_of_other_weights_is_refused(tiny_bert: BertForSequenceClassification) -> None:
    graph = build_bert_graph(tiny_bert, "single")
    with torch.no_grad():
        tiny_bert.get_parameter("bert.encoder.layer.1.output.dense.weight")[0, 0] += 1
    with pytest.raises(ExportError, match="differ from PyTorch's"):
        check_parity(tiny_bert, graph, 40)


def test_an_int8_answer_does_not_depend_on_the_batch(result: CompressionResult) -> None:
    batches = [result.train_data.batch(range(32))]
    graph = build_bert_graph(result.student.model, "single", calibrate(result.student.model, batches))
    session = OnnxSession(graph.SerializeToString())
    found = check_batch_invariance(session, "int8", result.dev_data, 32)
    assert found.largest_score_change < 1e-3
    assert found.rows == len(result.dev_data)
    alone, padded = result.dev_data.batch([0]), result.dev_data.batch([0], pad_to=30)
    assert np.abs(session.logits(alone) - session.logits(padded)).max() < 1e-3


def test_an_artefact_answers_as_the_pytorch_student(result: CompressionResult, models: Path, tmp_path: Path) -> None:
    manifest = export_artefact(result, models / "tiny", data_set="tiny")
    assert read_manifest(models / "tiny") == manifest
    assert manifest["compression"]["reached_ratio"] == pytest.approx(4.0, rel=0.02)
    assert manifest["compression"]["nonzero_parameters"] < manifest["compression"]["parameters"]
    expected = predict_logits(load_student(tmp_path / "run"), result.dev_data, torch.device("cpu")).numpy()
    figures = manifest["evaluation"]
    assert figures["student_accuracy"] == accuracy(expected, np.array(result.dev_data.labels))
    assert figures["files"]["model.onnx"]["accuracy"] == figures["student_accuracy"]
    for entry in figures["files"].values():
        found = entry["batch_invariance"]
        assert (found["rows"], found["changed_labels"]) == (40, 0)
        assert found["largest_score_change"] < 1e-3
    assert "target" not in manifest["latency"]
    session = OnnxSession(read_graph(models / "tiny", manifest, "model.onnx"))
    actual = np.concatenate([session.logits(result.dev_data.batch([row])) for row in range(len(expected))])
    assert np.abs(actual - expected).max() < 1e-4


def test_int8_that_loses_too_much_is_refused_and_said_so(
    result: CompressionResult, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A student that answers half of the rows either way, rows labelled as it answers, and scales so coarse
    # that nothing of an input is left, which the guard would see.
    logits = predict_logits(result.student.model, result.dev_data, torch.device("cpu"))
    with torch.no_grad():
        result.student.model.classifier.bias[0] += (logits[:, 1] - logits[:, 0]).median()
    truth = predict_logits(result.student.model, result.dev_data, torch.device("cpu")).argmax(dim=1).tolist()
    assert 0.2 < np.mean(truth) < 0.8
    result.dev_data.labels[:] = truth

    def useless(*_: object) -> dict[str, Range]:
        ranges = calibrate(result.student.model, [result.train_data.batch(range(8))])
        return {name: Range(-1e9, 1e9) for name in ranges}

    monkeypatch.setattr("compression.export.calibrate", useless)
    monkeypatch.setattr("compression.export.guard_int8", lambda *_: Guarded(frozenset(), 1.0, 1.0))
    manifest = export_artefact(result, models / "tiny", data_set="tiny")
    assert "int8 refused" in capsys.readouterr().out
    assert manifest["default_file"] == "model.onnx"
    assert sorted(manifest["files"]) == ["model.onnx", "tokenizer.json"]


def test_a_failed_export_leaves_the_old_artefact_and_nothing_else(
    result: CompressionResult, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_artefact(result, models / "tiny", data_set="tiny")
    before = (models / "tiny" / "manifest.json").read_bytes()
    with pytest.raises(ExportError, match=r"manifest: \$.evaluation.data_set"):
        export_artefact(result, models / "tiny", data_set=3)  # type: ignore[arg-type]
    assert (models / "tiny" / "manifest.json").read_bytes() == before
    assert sorted(path.name for path in models.iterdir()) == ["tiny"]


def test_a_replacement_that_breaks_off_puts_the_old_artefact_back(
    result: CompressionResult, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_artefact(result, models / "tiny", data_set="tiny")
    before = (models / "tiny" / "manifest.json").read_bytes()
    rename = Path.rename

    def break_off(self: Path, target: Path) -> Path:
        if target == models / "tiny" and self.name == "tiny":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", break_off)
    with pytest.raises(KeyboardInterrupt):
        export_artefact(result, models / "tiny", data_set="tiny")
    assert (models / "tiny" / "manifest.json").read_bytes() == before
    assert sorted(path.name for path in models.iterdir()) == ["tiny"]


def test_fp32_alone_neither_builds_nor_judges_int8(
    result: CompressionResult, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("int8 was not asked for")

    monkeypatch.setattr("compression.export.calibrate", never)
    manifest = export_artefact(result, models / "tiny", data_set="tiny", precisions=("fp32",))
    assert sorted(manifest["files"]) == ["model.onnx", "tokenizer.json"]


def test_the_manifest_says_which_graph_was_chosen_from_which(result: CompressionResult, models: Path) -> None:
    export = export_artefact(result, models / "tiny", data_set="tiny")["export"]
    assert export["target"] == "cpu"
    for entry in export["files"].values():
        best = entry["candidates"][0]
        assert {key: entry[key] for key in best if key != "median_ms"} == {k: best[k] for k in best if k != "median_ms"}
        assert len(entry["candidates"]) > 1
        assert all(set(candidate["median_ms"]) == {"1x16", "8x32", "32x16"} for candidate in entry["candidates"])
    assert export["files"]["model.int8.onnx"]["logit_error"] <= result.recipe.export.int8_logit_error


def test_a_target_for_the_latency_chooses_at_its_shape_and_is_compared_with_what_was_reached(
    result: CompressionResult, models: Path
) -> None:
    manifest = export_artefact(result, models / "tiny", data_set="tiny", precisions=("fp32",), target_latency_ms=7.5)
    (entry,) = manifest["export"]["files"].values()
    assert all(set(candidate["median_ms"]) == {"1x32"} for candidate in entry["candidates"])
    target = manifest["latency"]["target"]
    assert (target["file"], target["batch"], target["tokens"], target["target_ms"]) == ("model.onnx", 1, 32, 7.5)
    assert f"{target['median_ms']:.3f} ms on one thread in model.onnx, 7.5 ms asked for" in format_manifest(manifest)
    assert read_manifest(models / "tiny") == manifest


def test_a_graph_whose_answers_depend_on_the_batch_is_refused(
    result: CompressionResult, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compression.export.measure_invariance", lambda *_: Invariance(40, 0.02, 0))
    with pytest.raises(ExportError, match=r"model\.int8\.onnx: a text's scores change by 0\.02 with its batch"):
        export_artefact(result, models / "tiny", data_set="tiny", precisions=("int8",))
    assert [path.name for path in models.iterdir()] == []


def test_for_cuda_a_rule_chooses_and_int8_alone_is_refused(result: CompressionResult, models: Path) -> None:
    with pytest.raises(OptionError, match="--target cuda: int8 graphs are for CPUs"):
        export_artefact(result, models / "tiny", data_set="tiny", precisions=("int8",), target="cuda")
    manifest = export_artefact(result, models / "tiny", data_set="tiny", target="cuda")
    assert manifest["default_file"] == "model.onnx"
    assert sorted(manifest["files"]) == ["model.fp16.onnx", "model.onnx", "tokenizer.json"]
    for entry in manifest["export"]["files"].values():
        (chosen,) = entry["candidates"]
        assert chosen["fused_normalisation"]
        assert chosen["median_ms"] == {}
    half = onnx.load_from_string(read_graph(models / "tiny", manifest, "model.fp16.onnx"))
    operators = [node.op_type for node in half.graph.node]
    assert operators.count("MultiHeadAttention") == result.student.model.config.num_hidden_layers
    figures = manifest["evaluation"]["files"]
    assert figures["model.fp16.onnx"]["accuracy"] == pytest.approx(figures["model.onnx"]["accuracy"], abs=1 / 40)


def test_a_run_can_be_exported_again_with_another_guard(
    result: CompressionResult, teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    export = replace(tiny_recipe.export, int8_logit_error=0.5, int8_accuracy_loss=0.1)
    recipe = replace(tiny_recipe, export=export)
    again = compress(teacher_folder, recipe, labelled_texts(64), labelled_texts(40), tmp_path / "run", resume=True)
    assert again.recipe.export.int8_logit_error == 0.5


def test_a_changed_file_is_refused(result: CompressionResult, models: Path) -> None:
    export_artefact(result, models / "tiny", data_set="tiny")
    with (models / "tiny" / "tokenizer.json").open("a") as file:
        file.write(" ")
    with pytest.raises(ExportError, match=r"tokenizer.json: is not the file"):
        read_manifest(models / "tiny")


def test_the_tokenizer_is_written_without_truncation_and_padding(result: CompressionResult, models: Path) -> None:
    result.teacher.tokenizer.backend_tokenizer.enable_truncation(4)
    result.teacher.tokenizer.backend_tokenizer.enable_padding()
    export_artefact(result, models / "tiny", data_set="tiny")
    written = json.loads((models / "tiny" / "tokenizer.json").read_text())
    assert written["truncation"] is None
    assert written["padding"] is None


def test_quantised_weights_are_within_half_a_step_and_zeros_stay_zero() -> None:
    weight = np.random.default_rng(0).standard_normal((30, 7)).astype(np.float32)
    weight[:, 3] = 0
    quantised, scales = quantise_columns(weight)
    assert np.abs(quantised * scales - weight).max() <= scales.max() / 2 + 1e-6
    assert not quantised[:, 3].any()
    rows, row_scales = quantise_rows(weight)
    assert np.abs((rows.astype(np.float32) - 128) * row_scales - weight).max() <= row_scales.max() / 2 + 1e-6


def test_a_tables_row_scales_are_stored_in_fp16_as_they_are() -> None:
    table = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32) * np.logspace(-8, 2, 50)[:, None]
    rows, scales = quantise_rows(table.astype(np.float32))
    assert (scales.astype(np.float16).astype(np.float32) == scales).all()
    assert (np.abs((rows.astype(np.float32) - 128) * scales - table) <= scales / 2 + 1e-6).all()


@pytest.mark.parametrize("ranges", [False, True])
def test_a_graph_holds_the_positions_that_it_reads_and_no_more(result: CompressionResult, ranges: bool) -> None:
    model, batch = result.student.model, result.train_data.batch(range(32))
    numbers = calibrate(model, [batch]) if ranges else None
    whole, cut = (build_bert_graph(model, "single", numbers, max_length=length) for length in (None, 12))
    tables = [entry for entry in cut.graph.initializer if "position" in entry.name]
    assert [list(table.dims) for table in tables] == [[12, model.config.hidden_size]]
    expected, found = (OnnxSession(graph.SerializeToString()).logits(batch) for graph in (whole, cut))
    assert (found == expected).all()


def test_calibration_does_not_look_at_padding(result: CompressionResult) -> None:
    alone, with_padding = (
        calibrate(result.student.model, [batch])
        for batch in (result.train_data.batch([0]), result.train_data.batch([0], pad_to=30))
    )
    for name, expected in alone.items():
        assert with_padding[name].low == pytest.approx(expected.low, abs=1e-4)
        assert with_padding[name].high == pytest.approx(expected.high, abs=1e-4)


def test_a_figure_that_json_cannot_hold_is_refused_before_it_is_written() -> None:
    with pytest.raises(ExportError, match="manifest: Out of range float"):
        validate_manifest({"evaluation": {"teacher_accuracy": float("nan")}})
