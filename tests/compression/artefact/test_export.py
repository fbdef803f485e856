import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from ladabert_compress.artefact.export import export_artefact
from ladabert_compress.artefact.manifest import format_manifest, validate_manifest
from ladabert_compress.artefact.reading import read_graph, read_manifest
from ladabert_compress.artefact.verification import Invariance
from ladabert_compress.errors import ExportError, OptionError
from ladabert_compress.graph.encoder import build_bert_graph
from ladabert_compress.graph.int8_guard import Guarded
from ladabert_compress.graph.int8_scales import Range, measure_activation_ranges
from ladabert_compress.graph.session import OnnxSession
from ladabert_compress.measure.inference import predict_logits
from ladabert_compress.measure.scores import score
from ladabert_compress.recipe import Recipe
from ladabert_compress.student.saved import load_student
from ladabert_compress.training.rows import HeldOut
from ladabert_compress.training.run import CompressionResult, compress
from tests.compression.conftest import labelled_texts, models_folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return models_folder(tmp_path)


def test_an_artefact_predicts_as_the_pytorch_student(result: CompressionResult, models: Path, tmp_path: Path) -> None:
    manifest = export_artefact(result, models / "tiny", data_set="tiny")
    assert read_manifest(models / "tiny") == manifest
    assert manifest["compression"]["reached_ratio"] == pytest.approx(4.0, rel=0.02)
    assert manifest["compression"]["nonzero_parameters"] < manifest["compression"]["parameters"]
    expected = predict_logits(load_student(tmp_path / "run"), result.dev_data, torch.device("cpu")).numpy()
    figures = manifest["evaluation"]
    assert figures["student_accuracy"] == score(expected, result.dev_data.labels).accuracy
    assert figures["files"]["model.onnx"]["accuracy"] == figures["student_accuracy"]
    for entry in figures["files"].values():
        found = entry["batch_invariance"]
        assert (found["rows"], found["changed_labels"]) == (40, 0)
        assert found["largest_score_change"] < 1e-3
    counted = figures["distributions"]
    best = expected.argmax(axis=1)
    assert counted["labels"] == np.bincount(best, minlength=expected.shape[1]).tolist()
    assert sum(counted["scores"]) == sum(counted["lengths"]) == len(expected)
    assert "target" not in manifest["latency"]
    session = OnnxSession(read_graph(models / "tiny", manifest, "model.onnx"))
    actual = np.concatenate([session.logits(result.dev_data.batch([row])) for row in range(len(expected))])
    assert np.abs(actual - expected).max() < 1e-4


@pytest.mark.parametrize("precisions", [("int8", "fp32"), ("int8",)], ids=",".join)
@pytest.mark.parametrize("dev_label", [0, 1])
def test_int8_that_loses_too_much_on_held_out_rows_is_refused_for_the_fastest_fp32_graph_whatever_dev_says(
    dev_label: int,
    result: CompressionResult,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    precisions: tuple[str, ...],
) -> None:
    # A student that answers half of the rows either way, rows labelled as it answers, and scales so coarse
    # that nothing of an input is left, which the guard would see.
    logits = predict_logits(result.student.model, result.dev_data, torch.device("cpu"))
    with torch.no_grad():
        result.student.model.classifier.bias[0] += (logits[:, 1] - logits[:, 0]).median()
    truth = predict_logits(result.student.model, result.dev_data, torch.device("cpu")).argmax(dim=1).tolist()
    assert 0.2 < np.mean(truth) < 0.8
    held_out = replace(result.dev_data, labels=np.array(truth))
    result.dev_data.labels[:] = dev_label  # which the useless graph always or never answers
    result = replace(result, held_out=HeldOut(held_out, labelled=True))

    def useless(*_: object) -> dict[str, Range]:
        ranges = measure_activation_ranges(result.student.model, [result.train_data.batch(range(8))])
        return {name: Range(-1e9, 1e9) for name in ranges}

    monkeypatch.setattr("ladabert_compress.artefact.export.measure_activation_ranges", useless)
    monkeypatch.setattr("ladabert_compress.artefact.export.guard_int8", lambda *_: Guarded(frozenset(), 1.0, 1.0))
    manifest = export_artefact(result, models / "tiny", data_set="tiny", precisions=precisions)
    assert "int8 refused" in capsys.readouterr().out
    assert manifest["default_file"] == "model.onnx"
    assert sorted(manifest["files"]) == ["model.onnx", "tokenizer.json"]
    candidates = manifest["export"]["files"]["model.onnx"]["candidates"]
    assert len(candidates) > 1
    assert all(candidate["median_ms"] for candidate in candidates)


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

    monkeypatch.setattr("ladabert_compress.artefact.export.measure_activation_ranges", never)
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


def test_weights_of_7_bits_are_written_where_the_recipe_asks_for_them(result: CompressionResult, models: Path) -> None:
    export = replace(result.recipe.export, int8_weight_bits=7)
    manifest = export_artefact(
        replace(result, recipe=replace(result.recipe, export=export)), models / "tiny", data_set="tiny"
    )
    assert manifest["export"]["files"]["model.int8.onnx"]["weight_bits"] == 7
    assert "weight_bits" not in manifest["export"]["files"]["model.onnx"]
    model = onnx.load_from_string(read_graph(models / "tiny", manifest, "model.int8.onnx"))
    weights = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    assert {int(np.abs(onnx.numpy_helper.to_array(tensor).astype(int)).max()) for tensor in weights} == {63}


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
    monkeypatch.setattr(
        "ladabert_compress.artefact.verification.measure_invariance", lambda *_: Invariance(40, 0.02, 0)
    )
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


@pytest.mark.parametrize("ranges", [False, True])
def test_a_graph_holds_the_positions_that_it_reads_and_no_more(result: CompressionResult, ranges: bool) -> None:
    model, batch = result.student.model, result.train_data.batch(range(32))
    numbers = measure_activation_ranges(model, [batch]) if ranges else None
    whole, cut = (build_bert_graph(model, "single", numbers, max_length=length) for length in (None, 12))
    tables = [entry for entry in cut.graph.initializer if "position" in entry.name]
    assert [list(table.dims) for table in tables] == [[12, model.config.hidden_size]]
    expected, found = (OnnxSession(graph.SerializeToString()).logits(batch) for graph in (whole, cut))
    assert (found == expected).all()


def test_a_figure_that_json_cannot_hold_is_refused_before_it_is_written() -> None:
    with pytest.raises(ExportError, match="manifest: Out of range float"):
        validate_manifest({"evaluation": {"teacher_accuracy": float("nan")}})
