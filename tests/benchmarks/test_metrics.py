"""Claims about what is read from /metrics."""

from benchmarks.harness.client import NO_ANSWER, Answer
from benchmarks.harness.metrics import Scrape, disagreements, falls

METRICS = """\
# HELP ladabert_requests_total Requests.
# TYPE ladabert_requests_total counter
ladabert_requests_total{model="a",route="/classify",status="200"} %d
ladabert_requests_total{model="b",route="/classify",status="200"} 1.0
ladabert_requests_total{model="a",route="/classify",status="504"} %d
# TYPE ladabert_rejected_total counter
ladabert_rejected_total{model="a",reason="deadline"} %d
# TYPE ladabert_requests_in_progress gauge
ladabert_requests_in_progress 3.0
# TYPE ladabert_batch_size histogram
ladabert_batch_size_bucket{model="a",le="+Inf"} 2.0
ladabert_batch_size_count{model="a"} 2.0
ladabert_batch_size_sum{model="a"} %d
"""


def page(*counts: int) -> Scrape:
    return Scrape.parse(METRICS % counts)


def answer(status: int) -> Answer:
    return Answer(b"", status, 10.0, 10.1, {}, b"")


def test_metrics_are_summed_over_the_labels_that_are_not_named() -> None:
    found = page(5, 2, 2, 40)
    assert found.total("ladabert_requests_total") == 8
    assert found.total("ladabert_requests_total", status="200") == 6
    assert found.total("ladabert_requests_total", status="200", model="a") == 5
    assert found.taken_in == 11
    assert len(found.values) == 8


def test_the_growth_of_metrics_is_compared_with_every_answer() -> None:
    before, after = page(5, 2, 2, 40), page(8, 3, 3, 44)
    answers = [*[answer(200)] * 3, answer(504), answer(NO_ANSWER)]
    assert after.texts_since(before) == 4
    assert disagreements(answers, before, after) == []
    assert disagreements(answers[1:], before, after) == ["status 200: 3 in the metrics, 2 answers"]
    assert disagreements([*answers, answer(429)], before, after) == [
        "status 429: 0 in the metrics, 1 answers",
        "reason queue_full: 0 in the metrics, 1 answers",
    ]


def test_a_counter_that_falls_and_a_series_that_goes_are_told() -> None:
    before, after = page(5, 2, 2, 40), page(4, 2, 2, 40)
    assert falls([before, before]) == []
    assert falls([before, after]) == ["ladabert_requests_total fell from 5 to 4"]
    after.values.pop(("ladabert_requests_in_progress", frozenset()))
    assert "ladabert_requests_in_progress went" in falls([before, after])
