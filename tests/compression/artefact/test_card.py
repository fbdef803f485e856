"""Claims about the model card that every artefact has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ladabert_compress.artefact.card import CARD_FILE, model_card
from ladabert_compress.artefact.export import export_artefact
from ladabert_compress.artefact.packing import pack
from ladabert_compress.training.run import CompressionResult
from ladabert_serve.models.artefact import read_artefact
from tests.compression.conftest import REPOSITORY, models_folder


@pytest.fixture
def manifest() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((REPOSITORY / "models/mrpc-x5/manifest.json").read_text(encoding="utf-8"))
    return read


def front_matter(card: str) -> dict[str, Any]:
    """What the hub reads of a card."""
    before, between, _ = card.split("---\n", 2)
    assert not before
    read: dict[str, Any] = yaml.safe_load(between)
    return read


def test_the_front_matter_says_licence_base_and_results_as_the_hub_reads_them(manifest: dict[str, Any]) -> None:
    told = front_matter(model_card(manifest))
    assert told["license"] == "apache-2.0"
    assert told["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert told["pipeline_tag"] == "text-classification"
    (result,) = told["model-index"][0]["results"]
    assert result["dataset"] == {"name": "mrpc/dev.tsv", "type": "file", "split": "dev"}
    assert result["metrics"] == [{"type": "accuracy", "value": 0.8088}]


def test_a_data_set_of_the_hub_is_linked_by_its_name(manifest: dict[str, Any]) -> None:
    manifest["evaluation"]["data_set"] = "hub:glue/mrpc:validation"
    (result,) = front_matter(model_card(manifest))["model-index"][0]["results"]
    assert result["dataset"]["type"] == "glue"


def test_accuracy_is_left_out_where_the_teacher_labelled_the_rows(manifest: dict[str, Any]) -> None:
    manifest["evaluation"]["labels"] = "teacher"
    card = model_card(manifest)
    assert "model-index" not in front_matter(card)
    assert "| `model.int8.onnx` | 6,837,121 | – | 0.9069 |" in card


def test_names_from_elsewhere_change_neither_front_matter_nor_page(manifest: dict[str, Any]) -> None:
    manifest["teacher"] |= {"name": "a`|b\n# c", "source": "one\nlicense: mit", "licence": "My own: {licence}"}
    manifest["labels"] = ["<b>", "`|`"]
    manifest["evaluation"]["data_set"] = 'x", type: "y'
    told, card = front_matter(model_card(manifest)), model_card(manifest)
    assert (told["license"], told["license_name"]) == ("other", "My own: {licence}")
    assert "base_model" not in told
    assert told["model-index"][0]["results"][0]["dataset"]["name"] == 'x", type: "y'
    assert "the teacher `a b # c`" in card
    assert "\n# c" not in card
    assert "<b>" not in card


def test_a_card_says_how_a_pair_is_asked_for_and_what_the_model_does_not_do(manifest: dict[str, Any]) -> None:
    card = model_card(manifest)
    assert '"inputs": {"text": "a text of yours", "text_pair": "and a second one"}}' in card
    assert "It reads 128 tokens of an input" in card
    assert "calibrated on 366 held-out rows" in card
    manifest["calibration"] = {"temperature": 1.0}
    assert "not calibrated" in model_card(manifest)


def test_an_artefact_has_a_card_which_follows_its_files_and_keeps_what_people_wrote(
    result: CompressionResult, tmp_path: Path
) -> None:
    folder = models_folder(tmp_path) / "tiny"
    manifest = export_artefact(result, folder, data_set="tiny", precisions=("fp32",))
    assert (folder / CARD_FILE).read_text(encoding="utf-8") == model_card(manifest)
    read_artefact(folder)
    packed = pack(folder)
    assert (folder / CARD_FILE).read_text(encoding="utf-8") == model_card(packed)
    (folder / CARD_FILE).write_text("ours", encoding="utf-8")
    pack(folder, plain=True)
    assert (folder / CARD_FILE).read_text(encoding="utf-8") == "ours"
    read_artefact(folder)
