"""Claims about cascades: each text is answered by the first stage that is sure of it, and nothing else changes."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladabert_serve.errors import StartError
from ladabert_serve.models.scores import apply_function
from ladabert_serve.models.stages import Judge, Stage
from ladabert_serve.scheduling.workload import FAILURES_UNTIL_UNHEALTHY
from ladabert_serve.settings import Settings
from tests.service.conftest import Server, serving
from tests.service.test_metrics import scrape, value
from tests.service.test_shadow import TEXTS, GatedShadow, ask, total
from tests.service.tiny_artefact import seal, write_artefact, write_cascade

THRESHOLDS = [0.75, 0.9]  # of POSITIVE and NEGATIVE


@pytest.fixture
def cascades(models_folder: Path) -> Path:
    """Return a folder with a cascade of two models, whose second one has its labels in another order."""
    write_artefact(models_folder, "small", seed=5, temperature=1.0)
    write_artefact(models_folder, "large", seed=2, labels=("POSITIVE", "NEGATIVE"), temperature=0.5)
    write_cascade(models_folder, "both", ["small", "large"], [THRESHOLDS])
    return models_folder


@pytest.fixture
def server(cascades: Path) -> Iterator[Server]:
    with serving(cascades, default_model="both", cascade_overload="refuse") as server:
        yield server


def expected_stage(small: dict[str, Any]) -> str:
    """Return which stage has to answer, by what the first one says; the thresholds are in the cascade's order."""
    return "small" if small["score"] >= THRESHOLDS[["POSITIVE", "NEGATIVE"].index(small["label"])] else "large"


def test_each_text_has_the_answer_of_the_first_stage_that_is_sure(server: Server) -> None:
    found = ask(server, TEXTS, route=True)
    alone = {name: ask(server, TEXTS, model=name) for name in ("small", "large")}
    assert {each["stage"] for each in found} == {"small", "large"}
    for index, each in enumerate(found):
        assert each["stage"] == expected_stage(alone["small"][index])
        answer = alone[each["stage"]][index]
        assert each["degraded"] is False
        assert (each["label"], each["score"]) == (answer["label"], pytest.approx(answer["score"], abs=1e-6))
        assert [score["label"] for score in each["scores"]] == [score["label"] for score in answer["scores"]]
        sure = f"{alone['small'][index]['score']:.2f}"
        assert each["route"] == (["small:ok"] if each["stage"] == "small" else [f"small:unsure:{sure}", "large:ok"])


def test_the_route_is_told_only_where_it_was_asked_for(server: Server) -> None:
    assert all("route" not in each and "stage" in each for each in ask(server, TEXTS))
    assert all("stage" not in each for each in ask(server, TEXTS, model="small", route=True))


def test_one_text_is_answered_as_in_a_list(server: Server) -> None:
    assert [ask(server, text)[0] for text in TEXTS] == ask(server, TEXTS)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", lambda text: {"inputs": text}),
        ("/predict", lambda text: {"inputs": text}),
        ("/classify", lambda text: {"input": text}),
        ("/classify", lambda text: {"text": text}),
        ("/v1/classify", lambda text: {"input": text, "model": "both"}),
        (
            "/v2/models/both/infer",
            lambda text: {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}]},
        ),
    ],
)
def test_every_dialect_gives_the_cascades_answer(server: Server, path: str, body: Any) -> None:
    for text, expected in zip(TEXTS, ask(server, TEXTS), strict=True):
        answer = server.request("POST", path, json=body(text))
        assert answer.status_code == 200, answer.text
        assert json.dumps(expected["label"]) in answer.text
        assert f"{expected['score']:.5f}"[:5] in answer.text


def test_kserves_dialect_numbers_the_cascades_labels(server: Server) -> None:
    answer = server.request("POST", "/v1/models/both:predict", json={"instances": TEXTS})
    numbers = [["POSITIVE", "NEGATIVE"].index(each["label"]) for each in ask(server, TEXTS)]
    assert answer.json()["predictions"] == numbers


def test_the_metrics_count_each_text_by_stage(server: Server) -> None:
    found = ask(server, TEXTS)
    series = scrape(server)
    last = sum(each["stage"] == "large" for each in found)
    assert value(series, "ladabert_cascade_answers_total", model="both", stage="large") == last
    assert value(series, "ladabert_cascade_answers_total", model="both", stage="small") == len(TEXTS) - last
    assert value(series, "ladabert_cascade_escalated_total", model="both", stage="small") == last
    assert value(series, "ladabert_cascade_degraded_total", model="both", stage="small") == 0
    assert value(series, "ladabert_cascade_unsure_certainty_count", model="both", stage="small") == last
    assert value(series, "ladabert_cascade_stage_duration_seconds_count", model="both", stage="small") == 1
    assert value(series, "ladabert_cascade_expected_escalated_ratio", model="both") == 0.5
    assert value(series, "ladabert_model_ready", model="both") == 1
    assert total(series, "ladabert_predictions_total", model="both") == len(TEXTS)
    assert total(series, "ladabert_predictions_total", model="small") == 0  # nobody asked the stages themselves
    assert value(series, "ladabert_requests_total", model="both", route="/classify", status="200") == 1


def test_the_model_page_names_the_stages(server: Server) -> None:
    assert server.get("/models/both").json()["stages"] == ["small", "large"]
    assert server.get("/models/small").json()["stages"] == []


def state_of_large(server: Server) -> tuple[int, int]:
    """Return how many requests wait for a runner, and how many there are."""
    found = server.get("/models/large").json()
    return found["queue_depth"], found["requests_in_progress"]


@pytest.mark.parametrize("overload", ["degrade", "refuse"])
def test_where_the_next_stage_is_full_the_operator_decides(
    cascades: Path, overload: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladabert_serve.models.opening._most_runs", lambda *_: 1)  # a runner is left for the others
    large = GatedShadow("large")
    with serving(
        cascades, load=large.load, default_model="both", runners=2, max_queue_requests=1, cascade_overload=overload
    ) as server:
        expected = ask(server, TEXTS)
        large.gate.clear()
        callers = [threading.Thread(target=ask, args=(server, "good"), kwargs={"model": "large"}) for _ in range(2)]
        for number, caller in enumerate(callers):  # one runs, and one waits
            caller.start()
            while state_of_large(server) != (number, number + 1):
                threading.Event().wait(0.01)
        answer = server.classify({"inputs": TEXTS, "route": True})
        large.gate.set()
        for caller in callers:
            caller.join()
        degraded = value(scrape(server), "ladabert_cascade_degraded_total", model="both", stage="small")
    if overload == "refuse":
        assert (answer.status_code, degraded) == (429, 0)
        return
    found = answer.json()["predictions"]
    assert {each["stage"] for each in found} == {"small"}
    assert [each["degraded"] for each in found] == [each["stage"] == "large" for each in expected]
    assert all(each["route"][-1] == ("large:overloaded" if each["degraded"] else "small:ok") for each in found)
    assert degraded == sum(each["degraded"] for each in found)


def test_a_deadline_that_passes_in_the_second_stage_ends_the_request_and_its_place_there(cascades: Path) -> None:
    large = GatedShadow("large")
    with serving(cascades, load=large.load, default_model="both", runners=2) as server:
        large.gate.clear()
        answer = server.classify({"inputs": TEXTS, "timeout_ms": 200})
        waiting = server.get("/models/large").json()["requests_in_progress"]
        large.gate.set()
    assert (answer.status_code, waiting) == (504, 0)


def test_a_failing_stage_fails_the_cascade_and_its_readiness(cascades: Path) -> None:
    large = GatedShadow("large")
    with serving(cascades, load=large.load, default_model="both") as server:
        large.fails = True
        for _ in range(FAILURES_UNTIL_UNHEALTHY):
            assert server.classify({"inputs": TEXTS}).status_code in (500, 503)
        assert server.get("/models/both").json()["state"] == "failed"
        assert value(scrape(server), "ladabert_model_ready", model="both") == 0
        assert server.classify({"inputs": TEXTS, "model": "small"}).status_code == 200


def test_what_goes_on_is_answered_though_the_server_drains(cascades: Path) -> None:
    large = GatedShadow("large")
    with serving(cascades, load=large.load, default_model="both", runners=2) as server:
        large.gate.clear()
        found: list[list[dict[str, Any]]] = []
        caller = threading.Thread(target=lambda: found.append(ask(server, TEXTS)))
        caller.start()
        while not server.get("/models/large").json()["requests_in_progress"]:
            threading.Event().wait(0.01)
        server.call(server.app.state.services.registry.drain)
        assert server.classify({"inputs": "good"}).status_code == 503
        large.gate.set()
        caller.join()
    assert len(found[0]) == len(TEXTS)


def test_a_shadow_is_compared_with_the_cascades_answers(cascades: Path) -> None:
    write_artefact(cascades, "judge", seed=2, labels=("POSITIVE", "NEGATIVE"), temperature=0.5)
    with serving(cascades, default_model="both", shadow_model="judge", shadow_rate=1) as server:
        found = ask(server, TEXTS)
        judged = ask(server, TEXTS, model="judge")
        for _ in range(3000):
            answer = server.get("/models/both/shadow").json()
            if not answer["waiting"]:
                break
            threading.Event().wait(0.01)
    agreed = sum(a["label"] == b["label"] for a, b in zip(found, judged, strict=True))
    assert (answer["compared"], answer["agreed"]) == (len(TEXTS), agreed)


def test_a_cascade_is_no_shadow(cascades: Path) -> None:
    refuses(
        cascades, "cannot be compared with model 'large': it is a cascade", default_model="large", shadow_model="both"
    )


def test_the_cache_of_a_stage_answers_for_the_cascade(cascades: Path) -> None:
    with serving(cascades, default_model="both", cache_mib=1) as server:
        first = ask(server, TEXTS)
        assert ask(server, TEXTS) == first
        series = scrape(server)
    last = sum(each["stage"] == "large" for each in first)
    assert value(series, "ladabert_cache_total", model="small", result="hit") == len(TEXTS)
    assert value(series, "ladabert_cache_total", model="large", result="hit") == last


def refuses(models: Path, reason: str, **options: Any) -> None:
    """Claim that a server of this folder does not start, for a reason."""
    with pytest.raises(StartError) as error, serving(models, **options):
        pass
    assert reason in str(error.value)


def test_a_cascade_without_one_of_its_stages_is_refused(cascades: Path) -> None:
    (cascades / "small").rename(cascades / ".small")
    refuses(cascades, "cascade 'both': its stage 'small' is not served; put it into the same folder")


def test_a_stage_of_another_version_is_refused(cascades: Path) -> None:
    manifest = cascades / "small/manifest.json"
    manifest.write_text(manifest.read_text().replace("0123456789ab", "0123456789ac"))
    refuses(cascades, "it was made for version 0123456789ab of its stage 'small', there is version 0123456789ac")


def test_a_stage_with_another_graph_is_refused(cascades: Path) -> None:
    write_artefact(cascades, "other", seed=3)
    (cascades / "small/model.onnx").write_bytes((cascades / "other/model.onnx").read_bytes())
    seal(cascades / "small")
    refuses(cascades, "it was made for version 0123456789ab of its stage 'small'")


def test_a_stage_with_other_labels_is_refused(cascades: Path) -> None:
    write_artefact(cascades, "topics", seed=3, labels=("SPORT", "NEWS"))
    write_cascade(cascades, "wrong", ["topics", "large"], [THRESHOLDS])
    refuses(cascades, "its stage 'topics' has another task, problem_type or labels")


def test_a_cascade_of_cascades_is_refused(cascades: Path) -> None:
    write_cascade(cascades, "deep", ["both", "large"], [THRESHOLDS])
    refuses(cascades, "its stage 'both' is a cascade, too")


def test_thresholds_that_do_not_fit_the_labels_are_refused(cascades: Path) -> None:
    write_cascade(cascades, "wrong", ["small", "large"], [[0.5, 0.5, 0.5]])
    refuses(cascades, "$.cascade.stages[0]: 3 thresholds where 2 belong")


def test_a_stage_is_neither_unloaded_nor_replaced_under_its_cascade(cascades: Path, server: Server) -> None:
    registry = server.app.state.services.registry
    manifest = cascades / "small/manifest.json"
    manifest.write_text(manifest.read_text().replace("0123456789ab", "0123456789ac"))

    async def change(action: Any, name: str) -> str:
        try:
            await action(name)
        except StartError as error:
            return str(error)
        return ""

    assert "is a stage of cascade 'both'" in server.call(lambda: change(registry.unload, "small"))
    assert "it was made for version 0123456789ab" in server.call(lambda: change(registry.load, "small"))
    assert len(ask(server, TEXTS)) == len(TEXTS)
    assert server.call(lambda: change(registry.unload, "both")) == ""
    assert server.call(lambda: change(registry.load, "small")) == ""
    assert "it was made for version 0123456789ab" in server.call(lambda: change(registry.load, "both"))


def test_inputs_that_callers_tokenised_are_refused_where_the_stages_have_other_tokens(cascades: Path) -> None:
    tokenizer = cascades / "large/tokenizer.json"
    tokenizer.write_text(json.dumps(json.loads(tokenizer.read_text()), indent=1))
    seal(cascades / "large")
    body = {"model": "both", "input": [[2, 5, 3]]}
    with serving(cascades) as server:
        answer = server.request("POST", "/v1/classify", json=body)
    assert answer.status_code in (400, 422), answer.text
    assert "the stages of model 'both' have different tokenizers: send the text" in answer.text


LOGITS = st.lists(st.floats(-20, 20), min_size=3, max_size=3)


@given(LOGITS, st.permutations(["a", "b", "c"]), st.floats(0.1, 10), st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_a_judge_reads_a_stages_labels_by_name(
    logits: list[float], labels: list[str], temperature: float, thresholds: list[float]
) -> None:
    cascade = {"labels": ["a", "b", "c"], "cascade": {"measure": "margin"}}
    judge = Judge(Stage("x", "1", "model.onnx", "", thresholds), labels, temperature, cascade)
    translated = judge.translate(logits)
    for label, logit in zip(labels, logits, strict=True):
        assert translated["abc".index(label)] * temperature == pytest.approx(logit, abs=1e-9)
    sure, enough = judge.judge(translated)
    assert 0 <= sure <= 1
    scores = apply_function(translated, "softmax", 1.0)  # where exp rounds to 1, the first of equal scores is the best
    assert enough == (sure >= thresholds[scores.index(max(scores))])


def test_the_default_answers_an_overloaded_cascade_rather_than_refusing() -> None:
    assert Settings.model_fields["cascade_overload"].default == "degrade"
