"""Prometheus metrics: every series exists at zero from the start, every label comes from a closed set."""

import asyncio
import contextlib
import math
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from ladabert_serve.errors import OUTCOMES
from ladabert_serve.observability.drift import LIVE, Drift, LiveWindow, Reference
from ladabert_serve.observability.kinds import KINDS, Kind
from ladabert_serve.observability.processes import PROCESS, usage_of
from ladabert_serve.observability.series import Counter, Gauge, Histogram
from ladabert_serve.observability.tallies import Key, Rows, Tallies, WorkerTallies, own_tallies

UNKNOWN_MODEL = "unknown"
ANSWERS = sorted(
    {(200, ""), (500, "")}
    | {
        (status, each.rejected_reason or "")
        for each in OUTCOMES.values()
        for status in (each.status, *each.in_dialects)
    }
)
REASONS = sorted({reason for _, reason in ANSWERS if reason})
PLAIN_TEXT = "text/plain; version=0.0.4; charset=utf-8"
ACCEPT_CHARACTERS = 4096  # that are looked at

BEGUN: Key = ("begun",)  # a row: requests that came
ANSWERED = "answered"  # a row for each model, route, status and reason of rejection: requests that were answered

ABSENT = math.nan  # a gauge that only an earlier process had


class Metrics(Collector):
    """All series of one app, whose inference routes are `routes`; collected over all workers, by default this one.

    A request is one number that grows when it comes and one when it is answered. Those in progress, the answers by
    status and the rejections follow from these, so no scrape sees a request as neither or as both.
    """

    def __init__(self, routes: Sequence[str], workers: WorkerTallies | None = None) -> None:
        self._own, self._everyone = workers or own_tallies()
        self._routes = tuple(routes)
        self._series: dict[Key, Any] = {}  # counters, gauges and histograms
        self._noted: set[Key] = set()
        self._answered: dict[tuple[str, str, int, str | None], tuple[Counter, Histogram]] = {}
        self._references: dict[Key, Reference] = {}  # by the keys of live windows
        self._begun = Counter(self._own, BEGUN)
        self._forget_earlier_process()
        self.add_requests_series(UNKNOWN_MODEL)
        self._own.numbers[self._own.row((PROCESS,), 1)] = os.getpid()
        self._own.begin()
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self._renderer = ThreadPoolExecutor(1, "metrics")
        self._waiting: dict[Callable[[], tuple[bytes, str]], Future[tuple[bytes, str]]] = {}
        self._lock = threading.Lock()  # for `_waiting`

    def _forget_earlier_process(self) -> None:
        """Take back what an earlier process of this worker left: its gauges, and the requests that it held."""
        rows = self._own.rows()
        numbers = self._own.numbers
        for key, row in rows.items():
            if key[0] in KINDS and KINDS[key[0]].is_gauge:
                numbers[row.start] = ABSENT
        numbers[rows[BEGUN].start] = sum(numbers[row.start] for key, row in rows.items() if key[0] == ANSWERED)

    def start(self) -> None:
        """Start the thread that answers scrapes; from then on a scrape needs no file and starts no thread."""
        self._renderer.submit(self._openmetrics).result()

    def stop(self) -> None:
        """End the thread that answers scrapes."""
        self._renderer.shutdown()

    def counter(self, name: str, *labels: str) -> Counter:
        """Return the series of a counter, at zero when it is new."""
        found: Counter = self._find((name, *labels), Counter)
        return found

    def gauge(self, name: str, *labels: str) -> Gauge:
        """Return the series of a gauge, at zero when it is new."""
        found: Gauge = self._find((name, *labels), Gauge)
        return found

    def histogram(self, name: str, *labels: str) -> Histogram:
        """Return the series of a histogram, at zero when they are new."""
        bounds = KINDS[name].bounds
        found: Histogram = self._find((name, *labels), lambda own, key: Histogram(own, key, bounds))
        return found

    def live_window(self, model: str, version: str, reference: Reference, answers: int) -> LiveWindow:
        """Return what counts the last answers of a model's version, to be compared with the reference."""
        key = (LIVE, model, version, reference.digest)
        self._references.pop(key, None)  # the model's last one is the one that is collected
        self._references[key] = reference
        found: LiveWindow = self._find(key, lambda own, key: LiveWindow(own, key, reference, answers))
        return found

    def _find(self, key: Key, make: Callable[[Tallies, Key], Any]) -> Any:
        self._noted.add(key)
        if key not in self._series:
            self._series[key] = make(self._own, key)
        return self._series[key]

    @contextlib.contextmanager
    def noting(self) -> Iterator[Collection[Key]]:
        """Give the keys of the series that are asked for inside."""
        self._noted = set()
        yield self._noted

    def remove(self, keys: Collection[Key]) -> None:
        """Remove these series, which nobody may count in any more, and the requests that they counted."""
        answered = sum(self._series[key].value for key in keys if key[0] == ANSWERED)
        with self._own.removing(keys):
            self._begun.inc(-answered)
        for key in keys:
            del self._series[key]
            self._references.pop(key, None)
        models = {key[1] for key in keys if key[0] == ANSWERED}
        self._answered = {key: series for key, series in self._answered.items() if key[0] not in models}

    def began(self) -> None:
        """Count a request that came in."""
        self._begun.inc()

    def ended(self, model: str, route: str, status: int, seconds: float, rejected_reason: str | None) -> None:
        """Count an answer."""
        if (model, route, status, rejected_reason) not in self._answered:  # it was unloaded meanwhile
            model = UNKNOWN_MODEL
        answers, duration = self._answered[model, route, status, rejected_reason]
        answers.inc()
        duration.observe(seconds)

    def add_requests_series(self, model: str) -> None:
        """Bring every series of requests to this model into being at zero."""
        for route in self._routes:
            duration = self.histogram("ladabert_request_duration_seconds", model, route)
            for status, reason in ANSWERS:
                answers = self.counter(ANSWERED, model, route, str(status), reason)
                self._answered[model, route, status, reason or None] = answers, duration

    async def page(self, accept: str) -> tuple[bytes, str]:
        """Return the exposition and its content type: OpenMetrics when `accept` prefers it, else plain text.

        Scrapes that wait for the thread share one page.
        """
        make = self._openmetrics if wants_openmetrics(accept) else self._plain_text
        with self._lock:
            page = self._waiting.get(make)
            if page is None:
                page = self._waiting[make] = self._renderer.submit(self._render, make)
        return await asyncio.shield(asyncio.wrap_future(page))

    def _render(self, make: Callable[[], tuple[bytes, str]]) -> tuple[bytes, str]:
        with self._lock:
            del self._waiting[make]  # scrapes that come from now on are owed later numbers
        return make()

    def _openmetrics(self) -> tuple[bytes, str]:
        page: bytes = openmetrics.generate_latest(self.registry)  # type: ignore[no-untyped-call]
        return page, openmetrics.CONTENT_TYPE_LATEST

    def _plain_text(self) -> tuple[bytes, str]:
        return generate_latest(self.registry), PLAIN_TEXT

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering counts nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return every family over all workers."""
        series: dict[str, dict[Key, list[Sequence[float]]]] = {name: {} for name in KINDS}
        live: dict[Key, list[Sequence[float]]] = {}
        for worker, tallies in enumerate(self._everyone):
            for key, numbers in _read(tallies):
                name, *labels = key
                if name == LIVE:
                    live.setdefault(key, []).append(numbers)
                elif name == PROCESS:
                    usage = usage_of(int(numbers[0])) if tallies.counting else None
                    if usage is not None:
                        series["ladabert_worker_cpu_seconds_total"][str(worker),] = [[usage.cpu_s]]
                        series["ladabert_worker_resident_memory_bytes"][str(worker),] = [[usage.resident_bytes]]
                elif not KINDS[name].is_gauge or (tallies.counting and not math.isnan(numbers[0])):
                    series[name].setdefault(tuple(labels), []).append(numbers)
        for (_, model, *_), drift in self._drift(live).items():
            series["ladabert_drift_answers"][model,] = [[drift.answers]]
            for properties, distance in drift.distances.items():
                series["ladabert_drift"][model, *properties] = [[distance]]
        for name, kind in KINDS.items():
            yield _family(name, kind, series[name])

    def _drift(self, live: dict[Key, list[Sequence[float]]]) -> dict[Key, Drift]:
        """Return the drift of each model, whose versions' live counts are given; of several, that of the last."""
        last = {key[1]: (key, reference) for key, reference in list(self._references.items())}
        return {key: reference.distances(live[key]) for key, reference in last.values() if key in live}


def _read(tallies: Tallies) -> Sequence[tuple[Key, Sequence[float]]]:
    """Return the series that one worker has counted."""
    return tallies.read(lambda rows: list(_series_of(tallies, rows)))


def _series_of(tallies: Tallies, rows: Rows) -> Iterator[tuple[Key, Sequence[float]]]:
    if BEGUN not in rows:  # it has not started
        return
    numbers: Sequence[float] = tallies.numbers[: max(row.stop for row in rows.values())].tolist()
    requests: dict[Key, float] = defaultdict(float)
    for key, row in rows.items():
        if key[0] == ANSWERED:
            _, model, route, status, reason = key
            answers = numbers[row.start]
            requests["ladabert_requests_total", model, route, status] += answers
            for each in REASONS:
                requests["ladabert_rejected_total", model, each] += answers if each == reason else 0
        elif key != BEGUN:
            yield key, numbers[row.start : row.stop]
    answered = sum(count for key, count in requests.items() if key[0] == "ladabert_requests_total")
    # Looked at last: what was answered since then is in progress, and what came since then was not answered.
    yield ("ladabert_requests_in_progress",), [tallies.numbers[rows[BEGUN].start] - answered]
    for key, count in requests.items():
        yield key, [count]


def _family(name: str, kind: Kind, series: dict[Key, list[Sequence[float]]]) -> Metric:
    """Return a family of one number, or one histogram, for each combination of labels."""
    family = kind.family(name, kind.text, labels=kind.labels)
    bounds = [*map(str, kind.bounds), "+Inf"]
    for labels, rows in series.items():
        if isinstance(family, HistogramMetricFamily):
            *buckets, total = map(sum, zip(*rows, strict=True))
            family.add_metric(labels, list(zip(bounds, accumulate(buckets), strict=True)), total)
        else:
            family.add_metric(labels, kind.over_workers(value for (value,) in rows))
    return family


def wants_openmetrics(accept: str) -> bool:
    """Return whether an Accept header prefers OpenMetrics 1.0 to plain text."""
    qualities = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for offer in accept[:ACCEPT_CHARACTERS].lower().split(","):
        media_type, *parameters = map(str.strip, offer.split(";"))
        values = dict(parameter.partition("=")[::2] for parameter in parameters)
        if media_type in qualities and (media_type == "text/plain" or values.get("version", "1.0.0") == "1.0.0"):
            try:
                qualities[media_type] = max(qualities[media_type], float(values.get("q", "1")))
            except ValueError:
                continue
    return 0 < qualities["application/openmetrics-text"] >= qualities["text/plain"]
