"""Claims about models whose one output is a number: every dialect gives it as it is, and live figures fit it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladabert_serve.cli import main
from ladabert_serve.errors import ArtefactError
from ladabert_serve.models.artefact import read_artefact
from ladabert_serve.models.loading import load_inference
from ladabert_serve.models.shadow import divergence_nats
from ladabert_serve.models.tokenizer import TextInput
from ladabert_serve.observability.drift import LEAST_ANSWERS, Reference
from tests.service.conftest import Server, serving
from tests.service.test_metrics import scrape, value
from tests.service.tiny_artefact import change_manifest, write_artefact

PAIRS = [("a good film", "not the bad"), ("bad", "bad"), ("very warm", "a film")]
BOUNDS = [step / 10 for step in range(-9, 10)]


def write_regression(models: Path, name: str = "tiny", seed: int = 0) -> Path:
    folder = write_artefact(models, name, task="pair", problem_type="regression", labels=["similarity"], seed=seed)
    counted = {"labels": [1000], "scores": [50] * 20, "score_bounds": BOUNDS, "lengths": [1000] + [0] * 15}
    evaluation = {"data_set": "none", "split": "dev", "rows": 1, "teacher_pearson": 0.9, "files": {}}
    change_manifest(folder, evaluation={**evaluation, "distributions": counted})
    return folder


def logits_of(folder: Path) -> list[float]:
    inference = load_inference(read_artefact(folder), "model.onnx", "cpu")
    found = inference.run([inference.tokenizer.tokenize(TextInput(*pair)) for pair in PAIRS])
    return [row[0] for row in found if not isinstance(row, Exception)]


def asked(server: Server, path: str, body: Any) -> Any:
    answer = server.request("POST", path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_every_dialect_gives_the_number_as_it_is(models_folder: Path) -> None:
    expected = logits_of(write_regression(models_folder))
    assert min(expected) < 0 or max(expected) > 1  # no function has squeezed them
    objects = [{"text": text, "text_pair": pair} for text, pair in PAIRS]
    raw = {"instances": objects, "parameters": {"return_raw_logits": True}}
    tensors = [
        {"name": name, "shape": [len(PAIRS)], "datatype": "BYTES", "data": [pair[side] for pair in PAIRS]}
        for side, name in enumerate(("text", "text_pair"))
    ]
    with serving(models_folder) as server:
        own = asked(server, "/classify", {"inputs": objects})["predictions"]
        embeddings = asked(server, "/predict", {"inputs": [list(pair) for pair in PAIRS]})
        hugging_face = asked(server, "/", {"inputs": objects})
        kserve = asked(server, "/v1/models/tiny:predict", raw)["predictions"]
        outputs = asked(server, "/v2/models/tiny/infer", {"inputs": tensors})["outputs"]
        found = {
            "own": [each["score"] for each in own],
            "text-embeddings-inference": [each[0]["score"] for each in embeddings],
            "hugging face": [each[0]["score"] for each in hugging_face],
            "kserve": [each["0"] for each in kserve],
            "open inference": next(output["data"] for output in outputs if output["name"] == "score"),
        }
        for dialect, scores in found.items():
            assert scores == pytest.approx(expected, abs=1e-5), dialect
        (listed,) = server.get("/models").json()["models"]
        assert (listed["problem_type"], listed["labels"]) == ("regression", ["similarity"])
        squeezed = asked(server, "/classify", {"inputs": objects[0], "function_to_apply": "sigmoid"})
        assert 0 < squeezed["predictions"][0]["score"] < 1


def test_vllm_and_ort_server_get_the_number_of_a_single_text(models_folder: Path) -> None:
    write_artefact(models_folder, problem_type="regression", labels=["stars"])
    with serving(models_folder) as server:
        (own,) = asked(server, "/classify", {"inputs": "a good film", "function_to_apply": "none"})["predictions"]
        (vllm,) = asked(server, "/classify", {"input": "a good film"})["data"]
        ort_server = asked(server, "/classify", {"text": "a good film"})
    assert (vllm["label"], vllm["probs"]) == ("stars", [pytest.approx(own["score"], abs=1e-6)])
    assert ort_server == {"labels": {"stars": pytest.approx(own["score"], abs=1e-6)}}


def test_a_cached_number_is_the_one_that_was_computed(models_folder: Path) -> None:
    expected = logits_of(write_regression(models_folder))
    body = {"inputs": [{"text": text, "text_pair": pair} for text, pair in PAIRS]}
    with serving(models_folder, cache_mib=1) as server:
        for _ in range(2):
            answers = asked(server, "/classify", body)["predictions"]
            assert [answer["score"] for answer in answers] == pytest.approx(expected, abs=1e-5)
        assert value(scrape(server), "ladabert_cache_total", model="tiny", result="hit") == len(PAIRS)


def test_files_are_labelled_with_the_number(models_folder: Path, tmp_path: Path) -> None:
    expected = logits_of(write_regression(models_folder))
    source, out = tmp_path / "in.jsonl", tmp_path / "out.csv"
    source.write_text("".join(json.dumps({"text": a, "text_pair": b}) + "\n" for a, b in PAIRS), encoding="utf-8")
    assert main(["--models", str(models_folder), "score", "--input", str(source), "--output", str(out)]) == 0
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["similarity"] * len(PAIRS)
    assert [float(row["score"]) for row in rows] == pytest.approx(expected, abs=1e-5)


@given(st.floats(-5, 5))
def test_scores_are_counted_between_the_bounds_of_the_manifest(score: float) -> None:
    counts: dict[str, list[Any]] = {"labels": [1], "scores": [1] * 20, "score_bounds": BOUNDS, "lengths": [1] * 16}
    _, place, _ = Reference(counts).places(0, score, 5)
    lower, upper = [float("-inf"), *BOUNDS][place - 1], [*BOUNDS, float("inf")][place - 1]
    assert lower < score <= upper


def test_numbers_that_move_away_are_a_drift_of_scores_and_of_no_label(models_folder: Path) -> None:
    write_regression(models_folder)
    text, pair = PAIRS[0]
    with serving(models_folder, drift_window=2 * LEAST_ANSWERS) as server:
        for _ in range(LEAST_ANSWERS // 20):
            asked(server, "/classify", {"inputs": [{"text": text, "text_pair": pair}] * 20})
        found = scrape(server)
    assert value(found, "ladabert_drift", model="tiny", of="scores", distance="psi") > 1
    assert value(found, "ladabert_drift", model="tiny", of="labels", distance="psi") == 0
    assert value(found, "ladabert_prediction_score_count", model="tiny") == 0  # its buckets are of scores from 0 to 1


@given(st.floats(-100, 100), st.floats(-100, 100))
def test_a_shadows_number_is_as_far_away_as_half_of_the_squared_difference(one: float, other: float) -> None:
    assert divergence_nats([one], [other], "regression") == pytest.approx((one - other) ** 2 / 2)


def test_a_regression_with_two_outputs_is_no_artefact(models_folder: Path) -> None:
    folder = write_artefact(models_folder, problem_type="regression", labels=["a", "b"])
    with pytest.raises(ArtefactError, match=r"\$\.labels"):
        read_artefact(folder)
