"""Claims about the figures of the cache, and the loads that they are measured on."""

import itertools
from collections import Counter

from benchmarks.cache import DISTINCT, failures, new_texts, sections, zipf
from benchmarks.harness.results import Results


def measured(zipf_rates: tuple[int, int], new_rates: tuple[int, int]) -> Results:
    about = {"machine": "m", "command": "c", "commit": "c", "date": "d"}
    results = Results("cache", about, {"seconds": 1.0, "model": "m", "mib": 64, "callers": 32})
    for load, rates in (("Zipf", zipf_rates), ("no repeats", new_rates)):
        for name, rate in zip(("without", "with"), rates, strict=True):
            results.add("points", load=load, cache=name, round=0, requests_per_s=rate, p99_ms=1.0, errors=0)
    return results


def test_a_promise_that_is_not_kept_is_named() -> None:
    assert "**2.50** (2.50 to 2.50)" in sections(measured((100, 250), (100, 99)))["cache"]
    assert failures(measured((100, 250), (100, 99))) == []
    assert len(failures(measured((100, 150), (100, 90)))) == 2


def test_the_first_text_comes_as_often_as_zipf_says() -> None:
    counts = Counter(itertools.islice(zipf(0), 20_000))
    (_, first), (_, second) = counts.most_common(2)
    share = 1 / sum(1 / rank for rank in range(1, DISTINCT + 1))
    assert abs(first / 20_000 - share) < 0.01
    assert 1.7 < first / second < 2.3


def test_new_texts_never_come_twice() -> None:
    assert len(set(itertools.islice(new_texts(0), 2000))) == 2000
