"""Prometheus metrics: every series exists at zero from the start, every label comes from a closed set."""

import asyncio
import bisect
import contextlib
import math
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from ladabert_serve.errors import OUTCOMES
from ladabert_serve.observability.drift import LIVE, Drift, LiveWindow, Reference
from ladabert_serve.observability.processes import PROCESS, usage_of
from ladabert_serve.observability.shadow_metrics import ShadowMetrics
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

DURATION_BUCKETS_S = tuple(0.00025 * 2**power for power in range(17))  # 0.25 ms to 16.384 s
COUNT_BUCKETS = tuple(float(2**power) for power in range(10))  # 1 to 512
TOKEN_BUCKETS = tuple(float(2**power) for power in range(2, 17))  # 4 to 65536
RATIO_BUCKETS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
DIVERGENCE_BUCKETS_NATS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SCORE_BUCKETS = tuple(step / 20 for step in range(1, 21))


COUNTER, GAUGE, HISTOGRAM = CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily


class Kind(NamedTuple):
    """What one metric means, and how the numbers of several workers become one: a gauge's are of those that live."""

    family: type[CounterMetricFamily] | type[GaugeMetricFamily] | type[HistogramMetricFamily]
    text: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...] = ()  # of a histogram's buckets
    over_workers: Callable[[Iterable[float]], float] = sum

    @property
    def is_gauge(self) -> bool:
        """Whether it comes and goes with the process that counts it."""
        return self.family is GAUGE


KINDS: dict[str, Kind] = {
    "ladabert_requests_total": Kind(COUNTER, "Requests to inference routes.", ("model", "route", "status")),
    "ladabert_rejected_total": Kind(COUNTER, "Requests given up, by reason.", ("model", "reason")),
    "ladabert_predictions_total": Kind(COUNTER, "Predictions by best label.", ("model", "label")),
    "ladabert_cache_total": Kind(COUNTER, "Inputs looked up in the cache of answers.", ("model", "result")),
    "ladabert_request_duration_seconds": Kind(
        HISTOGRAM, "From the request's headers to its answer.", ("model", "route"), DURATION_BUCKETS_S
    ),
    "ladabert_tokenize_duration_seconds": Kind(
        HISTOGRAM, "Tokenising one request, its wait for a thread included.", ("model",), DURATION_BUCKETS_S
    ),
    "ladabert_queue_duration_seconds": Kind(
        HISTOGRAM, "From tokenised until a runner took the first text.", ("model",), DURATION_BUCKETS_S
    ),
    "ladabert_inference_duration_seconds": Kind(
        HISTOGRAM, "From the first text taken to the last one answered.", ("model",), DURATION_BUCKETS_S
    ),
    "ladabert_batch_size": Kind(HISTOGRAM, "Texts in one batch.", ("model",), COUNT_BUCKETS),
    "ladabert_batch_tokens": Kind(HISTOGRAM, "Tokens in one batch, padding included.", ("model",), TOKEN_BUCKETS),
    "ladabert_batch_padding_ratio": Kind(
        HISTOGRAM, "Share of a batch's tokens that is padding.", ("model",), RATIO_BUCKETS
    ),
    "ladabert_input_tokens": Kind(HISTOGRAM, "Tokens of one input, after truncation.", ("model",), TOKEN_BUCKETS),
    "ladabert_prediction_score": Kind(HISTOGRAM, "Score of the best label.", ("model",), SCORE_BUCKETS),
    "ladabert_shadow_agreement_total": Kind(
        COUNTER, "Texts compared, by the model's label.", ("model", "shadow", "label", "agrees")
    ),
    "ladabert_shadow_confusion_total": Kind(
        COUNTER, "Texts compared, by both labels.", ("model", "shadow", "label", "shadow_label")
    ),
    "ladabert_shadow_dropped_total": Kind(COUNTER, "Texts sampled and not compared.", ("model", "reason")),
    "ladabert_shadow_waiting": Kind(GAUGE, "Texts sampled that wait for the shadow.", ("model",)),
    "ladabert_shadow_divergence_nats": Kind(
        HISTOGRAM,
        "KL divergence of the model's scores from the shadow's.",
        ("model", "shadow"),
        DIVERGENCE_BUCKETS_NATS,
    ),
    "ladabert_drift": Kind(
        GAUGE, "Distance of the last answers from those on the evaluation's rows.", ("model", "of", "distance")
    ),
    "ladabert_drift_answers": Kind(GAUGE, "Answers that ladabert_drift compares, in all workers.", ("model",)),
    "ladabert_queue_depth": Kind(GAUGE, "Requests that wait for a runner.", ("model",)),
    "ladabert_requests_in_progress": Kind(GAUGE, "Requests to inference routes that are not answered yet.", ()),
    "ladabert_runners_busy": Kind(GAUGE, "Runners that run a batch.", ()),
    "ladabert_worker_cpu_seconds_total": Kind(COUNTER, "CPU time of a worker since its start.", ("worker",)),
    "ladabert_worker_resident_memory_bytes": Kind(
        GAUGE, "Memory of a worker, pages that it shares with others included.", ("worker",)
    ),
    "ladabert_model_memory_bytes": Kind(
        GAUGE, "Bytes of the model's graph and tokenizer, each copy counted, in all workers.", ("model",)
    ),
    "ladabert_model_ready": Kind(
        GAUGE, "1 when the model can answer (in every worker), else 0.", ("model",), over_workers=min
    ),
    "ladabert_model_info": Kind(
        GAUGE, "What is served.", ("model", "version", "precision", "ratio", "provider"), over_workers=max
    ),
}
BEGUN: Key = ("begun",)  # a row: requests that came
ANSWERED = "answered"  # a row for each model, route, status and reason of rejection: requests that were answered

ABSENT = math.nan  # a gauge that only an earlier process had


class Counter:
    """One series that grows; any thread may count."""

    def __init__(self, tallies: Tallies, key: Key) -> None:
        self._numbers = tallies.numbers
        self._index = tallies.row(key, 1)
        self._lock = threading.Lock()

    @property
    def value(self) -> float:
        """How often it counted."""
        return self._numbers[self._index]

    def inc(self, by: float = 1) -> None:
        """Add one, or so many."""
        with self._lock:
            self._numbers[self._index] += by


class Gauge:
    """One series that comes and goes; any thread may set it."""

    def __init__(self, tallies: Tallies, key: Key) -> None:
        self._numbers = tallies.numbers
        self._index = tallies.row(key, 1)
        self.set(0)

    def set(self, value: float) -> None:
        """Replace its value."""
        self._numbers[self._index] = value


class Histogram:
    """The series of one histogram; any thread may observe."""

    def __init__(self, tallies: Tallies, key: Key, bounds: tuple[float, ...]) -> None:
        self._numbers = tallies.numbers
        self._first = tallies.row(key, len(bounds) + 2)  # a number for each bucket, +Inf's and the sum
        self._sum = self._first + len(bounds) + 1
        self._bounds = bounds
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        """Count an observation."""
        bucket = self._first + bisect.bisect_left(self._bounds, value)
        with self._lock:
            self._numbers[bucket] += 1
            self._numbers[self._sum] += value


class ModelMetrics:
    """The series of one model, looked up once; also the observer of its batcher.

    A model that replaces another of its name goes on with that one's series.
    """

    def __init__(
        self,
        metrics: "Metrics",
        name: str,
        version: str,
        precision: str,
        ratio: float,
        provider: str,
        labels: Sequence[str],
        memory_bytes: int = 0,
        reference: Reference | None = None,
        drift_window: int = 0,
        has_cache: bool = False,
        shadow: str | None = None,
    ) -> None:
        with metrics.noting() as keys:
            steps = ("tokenize", "queue", "inference")
            self.steps = {step: metrics.histogram(f"ladabert_{step}_duration_seconds", name) for step in steps}
            self.batch_size = metrics.histogram("ladabert_batch_size", name)
            self.batch_tokens = metrics.histogram("ladabert_batch_tokens", name)
            self.batch_padding_ratio = metrics.histogram("ladabert_batch_padding_ratio", name)
            self.input_tokens = metrics.histogram("ladabert_input_tokens", name)
            self.queue_depth_changed: Callable[[float], None] = metrics.gauge("ladabert_queue_depth", name).set
            self.ready_changed: Callable[[float], None] = metrics.gauge("ladabert_model_ready", name).set
            self.predictions = {label: metrics.counter("ladabert_predictions_total", name, label) for label in labels}
            self.prediction_score = metrics.histogram("ladabert_prediction_score", name)
            results = ("hit", "miss") if has_cache else ()
            self.cache = {result: metrics.counter("ladabert_cache_total", name, result) for result in results}
            self.shadow = None if shadow is None else ShadowMetrics(metrics, name, shadow, labels)
            self.live: LiveWindow | None = None
            if reference is not None:
                self.live = metrics.live_window(name, version, reference, drift_window)
            metrics.gauge("ladabert_model_memory_bytes", name).set(memory_bytes)
            metrics.gauge("ladabert_model_info", name, version, precision, f"{ratio:g}", provider).set(1)
            metrics.add_requests_series(name)
        self.keys = frozenset(keys)

    def leave_gauges(self) -> None:
        """Leave the gauges to the model that has replaced this one."""
        self.queue_depth_changed = self.ready_changed = _ignore
        if self.shadow is not None:
            self.shadow.waiting_changed(0)
            self.shadow.waiting_changed = _ignore

    def batch_taken(self, size: int, tokens: int, padded_tokens: int) -> None:
        """Count a batch that a runner took."""
        self.batch_size.observe(size)
        self.batch_tokens.observe(padded_tokens)
        self.batch_padding_ratio.observe((padded_tokens - tokens) / padded_tokens)


def _ignore(_: float) -> None:
    """Keep a gauge as it is."""


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
