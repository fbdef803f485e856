"""Claims about GET /metrics."""

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from ladabert_serve.observability.kinds import DURATION_BUCKETS_S
from ladabert_serve.observability.processes import usage_of
from tests.service.conftest import Server, serving

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def fresh(models: Path) -> Iterator[Server]:
    with serving(models, max_inputs=3) as server:
        yield server


def scrape(server: Server) -> Series:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(server.get("/metrics").text)
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, tuple(sorted(labels.items()))]


def test_a_fixed_traffic_is_counted_exactly(fresh: Server) -> None:
    fresh.classify({"inputs": ["a good film", "bad"]})
    fresh.classify({"inputs": "bad", "model": "alpha"})
    fresh.classify({"inputs": "a", "model": "nope"})
    fresh.classify({"inputs": []})
    fresh.classify({"inputs": ["a"] * 4})
    fresh.post_raw(b"{")
    fresh.post_raw(b"{}", "text/plain")
    fresh.get("/models")
    fresh.get("/health/ready")
    series = scrape(fresh)
    counted = {
        (labels["model"], labels["status"]): count
        for (name, pairs), count in series.items()
        if name == "ladabert_requests_total" and count
        for labels in [dict(pairs)]
    }
    assert counted == {
        ("alpha", "200"): 2,
        ("alpha", "422"): 1,
        ("alpha", "413"): 1,
        ("unknown", "404"): 1,
        ("unknown", "400"): 1,
        ("unknown", "415"): 1,
    }
    assert value(series, "ladabert_request_duration_seconds_count", model="alpha", route="/classify") == 4
    assert value(series, "ladabert_request_duration_seconds_count", model="unknown", route="/classify") == 3
    assert value(series, "ladabert_rejected_total", model="alpha", reason="too_large") == 1
    for step in ("tokenize", "queue", "inference"):
        assert value(series, f"ladabert_{step}_duration_seconds_count", model="alpha") == 2
    assert value(series, "ladabert_input_tokens_count", model="alpha") == 3
    assert value(series, "ladabert_input_tokens_sum", model="alpha") == 5 + 3 + 3
    assert value(series, "ladabert_prediction_score_count", model="alpha") == 3
    predicted = [
        value(series, "ladabert_predictions_total", model="alpha", label=label) for label in ("NEGATIVE", "POSITIVE")
    ]
    assert sum(predicted) == 3
    assert value(series, "ladabert_batch_size_sum", model="alpha") == 3
    assert value(series, "ladabert_requests_in_progress") == 0
    assert value(series, "ladabert_queue_depth", model="alpha") == 0


def test_every_series_exists_from_the_start_and_none_appears_later(fresh: Server) -> None:
    before = scrape(fresh)
    counters = {
        key: count
        for key, count in before.items()
        if key[0].endswith(("_total", "_count", "_sum")) and key[0] != "ladabert_worker_cpu_seconds_total"
    }
    assert counters
    assert not any(counters.values())
    fresh.classify({"inputs": "a"})
    fresh.classify({"inputs": "a", "model": "nope"})
    fresh.post_raw(b"{")
    fresh.classify({"inputs": ["a"] * 4})
    assert set(scrape(fresh)) == set(before)


def test_the_names_and_labels_are_those_of_the_contract(fresh: Server) -> None:
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(fresh.get("/metrics").text):
        for sample in family.samples:
            labels.setdefault(family.name, set()).update(set(sample.labels) - {"le"})
    assert labels == {
        "ladabert_requests": {"model", "route", "status"},
        "ladabert_request_duration_seconds": {"model", "route"},
        "ladabert_tokenize_duration_seconds": {"model"},
        "ladabert_queue_duration_seconds": {"model"},
        "ladabert_inference_duration_seconds": {"model"},
        "ladabert_batch_size": {"model"},
        "ladabert_batch_tokens": {"model"},
        "ladabert_batch_padding_ratio": {"model"},
        "ladabert_input_tokens": {"model"},
        "ladabert_queue_depth": {"model"},
        "ladabert_requests_in_progress": set(),
        "ladabert_runners_busy": set(),
        "ladabert_worker_cpu_seconds": {"worker"},
        "ladabert_worker_resident_memory_bytes": {"worker"},
        "ladabert_model_memory_bytes": {"model"},
        "ladabert_model_ready": {"model"},
        "ladabert_rejected": {"model", "reason"},
        "ladabert_predictions": {"model", "label"},
        "ladabert_prediction_score": {"model"},
        "ladabert_model_info": {"model", "version", "precision", "ratio", "provider"},
    }


def test_duration_buckets_are_geometric_from_a_quarter_millisecond_to_sixteen_seconds() -> None:
    assert DURATION_BUCKETS_S[0] == 0.00025
    assert 16 <= DURATION_BUCKETS_S[-1] < 17
    ratios = {later / earlier for earlier, later in itertools.pairwise(DURATION_BUCKETS_S)}
    assert ratios == {2.0}


def test_a_worker_tells_what_it_uses(fresh: Server) -> None:
    ours = psutil.Process()
    times = ours.cpu_times()
    series = scrape(fresh)
    cpu_s = value(series, "ladabert_worker_cpu_seconds_total", worker="0")
    later = ours.cpu_times()
    tick_s = 0.02
    assert times.user + times.system - tick_s <= cpu_s <= later.user + later.system + tick_s
    resident = value(series, "ladabert_worker_resident_memory_bytes", worker="0")
    assert resident == pytest.approx(ours.memory_info().rss, rel=0.1)


def test_nothing_is_told_of_a_process_that_has_ended() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert usage_of(ended.pid) is None


def test_what_is_served_can_be_read(fresh: Server) -> None:
    series = scrape(fresh)
    info = {
        "model": "alpha",
        "version": "0123456789ab",
        "precision": "fp32",
        "ratio": "2.5",
        "provider": "cpu",
    }
    assert value(series, "ladabert_model_info", **info) == 1
    assert value(series, "ladabert_model_ready", model="alpha") == 1


OPENMETRICS = "application/openmetrics-text"
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1"
    ";q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    "accept",
    [
        OPENMETRICS,
        f"{OPENMETRICS}; version=1.0.0",
        f"{OPENMETRICS};version=0.0.1, {OPENMETRICS};version=1.0.0",
        f"text/plain;q=0.5,{OPENMETRICS.upper()} ; Q=0.6",
        PROMETHEUS,
    ],
)
def test_openmetrics_is_sent_when_it_is_preferred(fresh: Server, accept: str) -> None:
    response = fresh.get("/metrics", headers={"accept": accept})
    assert response.headers["content-type"] == f"{OPENMETRICS}; version=1.0.0; charset=utf-8"
    assert list(openmetrics.text_string_to_metric_families(response.text))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "text/html",
        f"{OPENMETRICS}; version=x",
        f"{OPENMETRICS}; version=999.0.0",
        f"{OPENMETRICS}; version={'9' * 60_000}",
        f"{OPENMETRICS}; q=0",
        f"{OPENMETRICS}; q=nan",
        f"{OPENMETRICS}; q=-1",
        f"{OPENMETRICS}; q=x",
        f"{OPENMETRICS}; q=0.1, text/plain",
        "text/plain; version=..",
        "text/plain; version=1.0.0",
        ",;=,",
        ";" * 60_000,
        "text/plain," * 6_000,
    ],
    ids=lambda accept: accept[:60],
)
def test_any_other_accept_header_gets_plain_text(fresh: Server, accept: str) -> None:
    response = fresh.get("/metrics", headers={"accept": accept})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_scrapes_that_come_while_one_is_made_share_one_page(fresh: Server) -> None:
    metrics = fresh.app.state.services.metrics
    pages = 0

    class Counting(Collector):
        def collect(self) -> list[Metric]:
            nonlocal pages
            pages += 1
            return []

    metrics.registry.register(Counting())

    async def scrape_often() -> list[bytes]:
        made = await asyncio.gather(*(metrics.page("") for _ in range(500)))
        return [page for page, _ in made]

    bodies = fresh.call(scrape_often)
    assert len(bodies) == 500
    assert pages <= 3


def test_a_scrape_that_is_given_up_leaves_the_page_to_the_others(fresh: Server) -> None:
    metrics = fresh.app.state.services.metrics

    async def give_up_one() -> Any:
        first, second = (asyncio.ensure_future(metrics.page("")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        page, _ = await second
        return page

    assert b"ladabert_requests_total" in fresh.call(give_up_one)


def test_metrics_that_cannot_be_read_are_a_503_that_says_when_to_come_again(fresh: Server) -> None:
    fresh.app.state.services.metrics.stop()
    response = fresh.get("/metrics")
    assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json")
    assert response.headers["retry-after"]


def test_two_apps_in_one_process_count_apart(models: Path, fresh: Server) -> None:
    with serving(models) as other:
        other.classify({"inputs": "a"})
        assert value(scrape(fresh), "ladabert_requests_total", model="alpha", route="/classify", status="200") == 0
