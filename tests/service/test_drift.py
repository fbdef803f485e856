"""Claims about the distance of live answers from those on the evaluation's rows."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladabert_serve.errors import ArtefactError
from ladabert_serve.models.artefact import read_artefact
from ladabert_serve.observability.drift import (
    LEAST_ANSWERS,
    LiveWindow,
    Reference,
    kolmogorov_smirnov,
    population_stability_index,
)
from ladabert_serve.observability.metrics import Metrics
from ladabert_serve.observability.tallies import SharedTallies, own_tallies
from tests.service.conftest import Server, serving
from tests.service.test_metrics import scrape, value
from tests.service.tiny_artefact import change_manifest, write_artefact

counts = st.lists(st.integers(0, 10**6), min_size=4, max_size=4)


def write_counted(models: Path, name: str = "tiny", **changes: list[int]) -> Path:
    """Write an artefact whose evaluation saw both labels equally, high scores, and texts of 3 tokens."""
    folder = write_artefact(models, name)
    distributions = {"labels": [500, 500], "scores": [0] * 19 + [1000], "lengths": [1000] + [0] * 15, **changes}
    evaluation = json.loads((folder / "manifest.json").read_text())["evaluation"]
    change_manifest(folder, evaluation={**evaluation, "distributions": distributions})
    return folder


def reference(labels: list[int]) -> Reference:
    return Reference({"labels": labels, "scores": [10] * 20, "lengths": [10] * 16})


@given(counts, counts)
def test_distances_are_zero_for_equal_counts_and_never_negative(one: list[int], other: list[int]) -> None:
    assert population_stability_index(one, one) == kolmogorov_smirnov(one, one) == 0
    assert population_stability_index(one, other) >= 0
    assert population_stability_index(one, other) == pytest.approx(population_stability_index(other, one))
    assert 0 <= kolmogorov_smirnov(one, other) <= 1


def test_distances_are_those_of_the_textbook() -> None:
    assert population_stability_index([10**9] * 2, [5 * 10**8, 15 * 10**8]) == pytest.approx(0.2747, abs=1e-4)
    assert kolmogorov_smirnov([1, 1, 0, 0], [0, 1, 0, 1]) == 0.5


@given(st.integers(2, 50), st.integers(0, 300))
def test_a_window_holds_the_last_answers_and_no_more(window: int, answers: int) -> None:
    tallies = own_tallies().own
    live = LiveWindow(tallies, ("live", "m"), compared := reference([1, 1]), window)
    for _ in range(answers):
        live.observe(1, 0.9, 5)
    (row,) = tallies.rows().values()
    drift = compared.distances([tallies.numbers[row.start : row.stop]])
    assert drift.answers == min(answers, drift.answers)
    assert min(answers, window // 2) <= drift.answers <= window


def test_answers_of_long_ago_are_forgotten() -> None:
    tallies = own_tallies().own
    live = LiveWindow(tallies, ("live", "m"), compared := reference([500, 500]), 1000)
    (row,) = tallies.rows().values()

    def drift() -> float:
        return compared.distances([tallies.numbers[row.start : row.stop]]).distances["labels", "psi"]

    for _ in range(5000):
        live.observe(0, 0.9, 5)
    assert drift() > 1
    for answer in range(1000):
        live.observe(answer % 2, 0.9, 5)
    assert drift() < 0.01


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=4096))
def test_thousands_of_labels_are_a_few_groups(labels: list[int]) -> None:
    grouped = reference(labels)
    assert sum(grouped.counts["labels"]) == sum(labels)
    assert grouped.width <= 50 + 20 + 16
    for label in (0, len(labels) - 1):
        assert all(0 <= place < grouped.width for place in grouped.places(label, 1.0, 10**6))


def test_workers_are_compared_together() -> None:
    shared = SharedTallies(2)
    metrics = [Metrics([], shared.of_worker(place)) for place in range(2)]
    for place, each in enumerate(metrics):
        live = each.live_window("m", "1", reference([500, 500]), 1000)
        for _ in range(LEAST_ANSWERS):
            live.observe(place, 0.9, 5)  # each worker sees one label alone
    for each in metrics:
        found = {family.name: family.samples for family in each.collect()}
        (answers,) = found["ladabert_drift_answers"]
        assert answers.value == 2 * LEAST_ANSWERS
        (labels,) = (sample for sample in found["ladabert_drift"] if sample.labels["of"] == "labels")
        assert labels.value == pytest.approx(0, abs=1e-6)


def ask(server: Server, text: str, answers: int, **options: str) -> None:
    for _ in range(answers // 20):
        assert server.classify({"inputs": [text] * 20, **options}).status_code == 200


def test_the_service_tells_how_far_its_answers_are(models_folder: Path) -> None:
    write_counted(models_folder)
    write_artefact(models_folder, "uncounted")
    with serving(models_folder, drift_window=2 * LEAST_ANSWERS) as server:
        before = scrape(server)
        ask(server, "a", LEAST_ANSWERS - 20)
        few = scrape(server)
        ask(server, "a very good film not the bad", 20, function_to_apply="none")
        ask(server, "a very good film not the bad", LEAST_ANSWERS, function_to_apply="none")
        after = scrape(server)
    assert set(before) == set(after)
    for of, distance in (("labels", "psi"), ("scores", "psi"), ("scores", "ks"), ("lengths", "psi")):
        series = {"model": "tiny", "of": of, "distance": distance}
        assert value(before, "ladabert_drift", **series) == value(few, "ladabert_drift", **series) == 0
        assert value(after, "ladabert_drift", **series) > 0
    counted = value(after, "ladabert_prediction_score_bucket", model="tiny", le="1.0")
    assert counted == value(after, "ladabert_prediction_score_count", model="tiny")  # scores, though logits were asked
    assert value(few, "ladabert_drift_answers", model="tiny") == LEAST_ANSWERS - 20
    assert value(after, "ladabert_drift", model="tiny", of="lengths", distance="psi") > 0.25
    assert {dict(labels)["model"] for name, labels in after if name.startswith("ladabert_drift")} == {"tiny"}


def test_no_window_means_no_comparison(models_folder: Path) -> None:
    write_counted(models_folder)
    with serving(models_folder, drift_window=0) as server:
        ask(server, "a", 20)
        assert not any(name.startswith("ladabert_drift") for name, _ in scrape(server))


def test_a_model_that_leaves_takes_its_drift_along(models_folder: Path) -> None:
    write_counted(models_folder)
    write_artefact(models_folder, "other")
    with serving(models_folder) as server:
        registry = server.app.state.services.registry

        async def unload() -> None:
            await registry.unload("tiny")
            for task in [*registry._leaving.values()]:
                await task

        server.call(unload)
        assert not any(name.startswith("ladabert_drift") for name, _ in scrape(server))


def test_counts_of_other_labels_are_refused(models_folder: Path) -> None:
    folder = write_counted(models_folder, labels=[1, 2, 3])
    with pytest.raises(ArtefactError, match=r"evaluation\.distributions counts 3 labels of 2"):
        read_artefact(folder)
