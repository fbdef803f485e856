"""Claims about a model's shadow: every sampled text is counted once, no caller waits, and the figures are right."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladabert_serve.errors import StartError
from ladabert_serve.models.inference import Inference
from ladabert_serve.models.loading import load_inference
from ladabert_serve.models.shadow import MOST_KEPT, MOST_WAITING, divergence_nats
from ladabert_serve.observability.metrics import Metrics
from ladabert_serve.observability.shadow_metrics import MOST_LABELS, ShadowMetrics
from tests.service.conftest import Server, serving
from tests.service.test_api_keys import KEY, LINES, OPERATORS, bearer
from tests.service.test_metrics import Series, scrape, value
from tests.service.test_repository import VERSIONS, replace
from tests.service.tiny_artefact import write_artefact

TEXTS = ["a good film", "bad", "not the very warm film", "very", "the bad film", "not", "good", "warm", "q", "z w"]


@pytest.fixture
def pair(models_folder: Path) -> Path:
    """Return a models folder with a default model and another one of the same labels."""
    write_artefact(models_folder, "alpha", seed=1)
    write_artefact(models_folder, "beta", seed=2)
    return models_folder


class GatedShadow:
    """Loads artefacts; the runs of one of them wait until the gate is open, and may fail."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.gate = threading.Event()
        self.gate.set()
        self.fails = False

    def load(self, artefact: Any, *arguments: Any) -> Inference:
        inference = load_inference(artefact, *arguments)
        run: Callable[..., Any] = inference.run

        def wait_and_run(batch: Any) -> Any:
            assert self.gate.wait(timeout=30)
            if self.fails:
                raise RuntimeError("no memory")
            return run(batch)

        if artefact.name == self.name:
            inference.run = wait_and_run  # type: ignore[method-assign]
        return inference


def report(server: Server, **arguments: Any) -> dict[str, Any]:
    answer = server.get("/models/alpha/shadow", **arguments)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def counted(report: dict[str, Any]) -> int:
    return int(report["compared"] + sum(report["dropped"].values()) + report["waiting"])


def settled(server: Server, **arguments: Any) -> dict[str, Any]:
    """Return the report once nothing waits."""
    for _ in range(3000):
        if (found := report(server, **arguments))["waiting"] == 0:
            return found
        threading.Event().wait(0.01)
    raise TimeoutError("texts wait for the shadow")


def ask(server: Server, inputs: Any, **options: Any) -> list[dict[str, Any]]:
    answer = server.classify({"inputs": inputs, **options})
    assert answer.status_code == 200, answer.text
    predictions: list[dict[str, Any]] = answer.json()["predictions"]
    return predictions


def total(series: Series, name: str, **labels: str) -> float:
    return sum(
        count
        for (series_name, pairs), count in series.items()
        if series_name == name and labels.items() <= dict(pairs).items()
    )


def test_a_model_agrees_with_itself_exactly(models: Path) -> None:
    with serving(models, shadow_model="alpha", shadow_rate=1) as server:
        ask(server, TEXTS)
        found = settled(server)
        series = scrape(server)
    assert (found["shadow"], found["rate"]) == ("alpha", 1)
    assert found["compared"] == found["agreed"] == len(TEXTS)
    assert found["disagreements"] == []
    assert total(series, "ladabert_shadow_agreement_total", agrees="true") == len(TEXTS)
    assert total(series, "ladabert_shadow_agreement_total", agrees="false") == 0
    assert total(series, "ladabert_shadow_divergence_nats_sum") == pytest.approx(0, abs=1e-6)
    assert total(series, "ladabert_predictions_total", model="alpha") == len(TEXTS)  # the shadow's are not counted


def test_agreement_confusion_and_disagreements_are_those_of_the_two_models(pair: Path) -> None:
    with serving(pair, shadow_model="beta", shadow_rate=1) as server:
        own = ask(server, TEXTS)
        found = settled(server)
        series = scrape(server)
        other = ask(server, TEXTS, model="beta")
        assert counted(report(server)) == len(TEXTS)  # nobody samples what the shadow itself is asked
    differing = [(a, b) for a, b in zip(own, other, strict=True) if a["label"] != b["label"]]
    assert differing
    assert len(differing) < len(TEXTS)
    assert (found["compared"], found["agreed"]) == (len(TEXTS), len(TEXTS) - len(differing))
    for label in ("NEGATIVE", "POSITIVE"):
        agree = [(a["label"], b["label"]) for a, b in zip(own, other, strict=True)]
        for shadow_label in ("NEGATIVE", "POSITIVE"):
            cell = {"model": "alpha", "shadow": "beta", "label": label, "shadow_label": shadow_label}
            assert value(series, "ladabert_shadow_confusion_total", **cell) == agree.count((label, shadow_label))
    kept = sorted((each["score"], each["shadow_score"]) for each in found["disagreements"])
    assert kept == [
        pytest.approx(scores, abs=1e-6) for scores in sorted((a["score"], b["score"]) for a, b in differing)
    ]
    assert all(each["text"] is None and each["tokens"] > 2 for each in found["disagreements"])


def test_texts_are_kept_only_where_they_may_be_logged(pair: Path) -> None:
    with serving(pair, shadow_model="beta", shadow_rate=1, log_texts=True) as server:
        ask(server, TEXTS)
        assert {each["text"] for each in settled(server)["disagreements"]} < set(TEXTS)


def test_every_sampled_text_is_counted_once_while_the_shadow_hangs(pair: Path) -> None:
    shadow = GatedShadow("beta")
    with serving(pair, load=shadow.load, runners=2, shadow_model="beta", shadow_rate=1, max_inputs=512) as server:
        shadow.gate.clear()
        try:
            for asked in range(1, 4):
                ask(server, ["good"] * 150)  # is answered, whatever the shadow does
                found = report(server)
                assert counted(found) == asked * 150
                assert found["waiting"] <= MOST_WAITING
            assert found["dropped"]["queue_full"] == 3 * 150 - MOST_WAITING
            assert value(scrape(server), "ladabert_shadow_waiting", model="alpha") == MOST_WAITING
            assert value(scrape(server), "ladabert_shadow_dropped_total", model="alpha", reason="queue_full") > 0
        finally:
            shadow.gate.set()
        found = settled(server)
        assert (found["compared"], counted(found)) == (MOST_WAITING, 450)


def test_runs_of_the_shadow_that_fail_are_counted_and_the_model_stays_ready(pair: Path) -> None:
    shadow = GatedShadow("beta")
    with serving(pair, load=shadow.load, shadow_model="beta", shadow_rate=1) as server:
        shadow.fails = True
        ask(server, TEXTS)
        found = settled(server)
        assert found["dropped"]["failed"] == len(TEXTS)
        assert server.get("/health/ready").status_code == 200
        ask(server, TEXTS)
        shadow.fails = False


@given(st.floats(0, 1))
def test_divergence_of_equal_scores_is_zero(score: float) -> None:
    for problem_type in ("single_label", "multi_label", "regression"):
        assert divergence_nats([score, 1 - score], [score, 1 - score], problem_type) == 0


scores = st.floats(0.0001, 0.9999)


@given(scores, scores)
def test_divergence_is_the_textbooks(expected: float, found: float) -> None:
    pairs = [expected, 1 - expected], [found, 1 - found]
    assert divergence_nats(*pairs, "single_label") >= -1e-9
    assert divergence_nats([0.5, 0.5], [0.25, 0.75], "single_label") == pytest.approx(0.1438, abs=1e-4)
    assert divergence_nats([expected], [found], "multi_label") == pytest.approx(divergence_nats(*pairs, "single_label"))


@given(labels=st.integers(1, 60), draws=st.lists(st.tuples(st.integers(0, 59), st.integers(0, 59)), max_size=50))
def test_series_are_bounded_and_every_comparison_is_in_one(labels: int, draws: list[tuple[int, int]]) -> None:
    metrics = Metrics([])
    with metrics.noting() as keys:
        shadow = ShadowMetrics(metrics, "m", "s", [f"label {number}" for number in range(labels)])
    assert len(keys) <= MOST_LABELS * (MOST_LABELS + 2) + 6
    for own, other in draws:
        shadow.compared(own % labels, other % labels, 0.1)
    found = shadow.describe()
    agreed = sum(own % labels == other % labels for own, other in draws)
    assert (found["compared"], found["agreed"]) == (len(draws), agreed)
    confusion = [family for family in metrics.collect() if family.name == "ladabert_shadow_confusion"]
    assert sum(sample.value for sample in confusion[0].samples) == len(draws)


def test_a_share_is_sampled(pair: Path) -> None:
    with serving(pair, shadow_model="beta", shadow_rate=0.5, max_inputs=512) as server:
        for _ in range(4):
            ask(server, ["good"] * 100)
            settled(server)
        assert 120 < counted(report(server)) < 280
    with serving(pair, shadow_model="beta", shadow_rate=0) as server:
        ask(server, TEXTS)
        assert counted(report(server)) == 0


def test_the_last_disagreements_are_kept_and_no_more(pair: Path) -> None:
    with serving(pair, shadow_model="beta", shadow_rate=1, max_inputs=512) as server:
        ask(server, TEXTS)
        text = next(
            text for text in TEXTS if ask(server, text)[0]["label"] != ask(server, text, model="beta")[0]["label"]
        )
        for _ in range(6):
            ask(server, [text] * 200)
            found = settled(server)
        assert len(found["disagreements"]) == MOST_KEPT
        assert found["compared"] - found["agreed"] > MOST_KEPT


@contextlib.contextmanager
def operated(pair: Path, **options: Any) -> Iterator[Server]:
    with serving(pair, api_keys=LINES, shadow_model="beta", shadow_rate=1, **options) as server:
        server._client.headers.update(bearer(OPERATORS))
        yield server


def change(server: Server, action: str, name: str) -> None:
    answer = server.request("POST", f"/v2/repository/models/{name}/{action}", content=b"")
    assert answer.status_code == 200, answer.text


def test_a_shadow_that_is_unloaded_drops_texts_and_goes_on_when_it_is_back(pair: Path) -> None:
    with operated(pair) as server:
        ask(server, TEXTS)
        assert settled(server)["compared"] == len(TEXTS)
        change(server, "unload", "beta")
        ask(server, TEXTS)
        found = report(server)
        assert (found["compared"], found["dropped"]["unloaded"]) == (len(TEXTS), len(TEXTS))
        replace(pair, "beta", VERSIONS[1], seed=7)
        change(server, "load", "beta")
        ask(server, TEXTS)
        found = settled(server)
        assert (found["compared"], counted(found)) == (2 * len(TEXTS), 3 * len(TEXTS))
        assert found["disagreements"][0]["shadow_version"] == VERSIONS[1]


def test_what_waits_is_dropped_when_the_shadow_or_the_model_is_replaced(pair: Path) -> None:
    shadow = GatedShadow("beta")
    with operated(pair, load=shadow.load, runners=2) as server:
        shadow.gate.clear()
        ask(server, TEXTS)
        replace(pair, "beta", VERSIONS[1], seed=7)
        shadow.gate.set()  # the new version is tried before it is served
        change(server, "load", "beta")
        shadow.gate.clear()
        found = settled(server)
        assert counted(found) == len(TEXTS)
        ask(server, TEXTS)
        replace(pair, "alpha", VERSIONS[2], seed=8)
        change(server, "load", "alpha")
        found = report(server)
        assert (found["version"], counted(found), found["waiting"]) == (VERSIONS[2], 2 * len(TEXTS), 0)
        shadow.gate.set()
        ask(server, TEXTS)
        found = settled(server)
        assert counted(found) == 3 * len(TEXTS)
        assert found["compared"] >= len(TEXTS)


def test_a_replacement_that_cannot_be_compared_is_refused(pair: Path) -> None:
    with operated(pair) as server:
        for name in ("beta", "alpha"):
            replace(pair, name, VERSIONS[1], labels=("x", "y", "z"))
            answer = server.request("POST", f"/v2/repository/models/{name}/load", content=b"")
            assert answer.status_code == 400
            assert "its labels differ, or their order" in answer.text
        ask(server, TEXTS)
        assert settled(server)["compared"] == len(TEXTS)


@pytest.mark.parametrize(
    ("shadow", "reason"),
    [
        ("nobody", "shadow_model 'nobody' of model 'alpha' is not served; there are: alpha, pairs, topics"),
        ("pairs", "shadow_model 'pairs' cannot be compared with model 'alpha': its task is 'pair', not 'single'"),
        ("topics", "cannot be compared with model 'alpha': its problem_type is 'multi_label', not 'single_label'"),
    ],
)
def test_a_shadow_that_cannot_be_compared_is_refused_at_the_start(models: Path, shadow: str, reason: str) -> None:
    with pytest.raises(StartError) as refused, serving(models, shadow_model=shadow):
        pass
    assert reason in str(refused.value)


def test_a_table_names_the_shadow_of_another_model(pair: Path, tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text('[beta]\nshadow_model = "alpha"\nshadow_rate = 1.0\n')
    with serving(pair, model_settings=tmp_path / "models.toml") as server:
        assert report(server)["shadow"] is None
        assert server.get("/models/beta/shadow").json()["shadow"] == "alpha"
        assert server.get("/models/nobody/shadow").status_code == 404


def test_with_keys_only_an_admin_sees_what_others_sent(pair: Path) -> None:
    with serving(pair, shadow_model="beta", api_keys=LINES) as server:
        statuses = [server.get("/models/alpha/shadow", headers=headers).status_code for headers in ({}, bearer(KEY))]
        assert statuses == [401, 403]
        assert report(server, headers=bearer(OPERATORS))["shadow"] == "beta"
        assert server.get("/models/alpha", headers=bearer(KEY)).status_code == 200


def test_tokens_that_callers_send_are_not_sampled(pair: Path) -> None:
    with serving(pair, shadow_model="beta", shadow_rate=1) as server:
        assert server.classify({"input": [[2, 5, 3]]}).status_code == 200
        assert counted(report(server)) == 0
