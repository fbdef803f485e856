"""Prometheus metrics: every series exists at zero from the start, every label comes from a closed set."""

import bisect
import contextlib
import fcntl
import functools
import os
import shutil
import tempfile
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service.errors import OUTCOMES

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
LOCK_SUFFIX = ".lock"
UNKNOWN_MODEL = "unknown"
STATUSES = tuple(sorted({200, 500} | {outcome.status for outcome in OUTCOMES.values()}))
REASONS = ("queue_full", "deadline", "draining", "cancelled", "too_large")

DURATION_BUCKETS_S = tuple(0.00025 * 2**power for power in range(17))  # 0.25 ms to 16.384 s
COUNT_BUCKETS = tuple(float(2**power) for power in range(10))  # 1 to 512
TOKEN_BUCKETS = tuple(float(2**power) for power in range(2, 17))  # 4 to 65536
RATIO_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
UNFLUSHED = 256  # requests whose observations are kept at most
SCORE_BUCKETS = tuple(step / 20 for step in range(1, 21))


@dataclass(frozen=True, slots=True)
class ModelLabels:
    """What the metrics say about one served model."""

    name: str
    version: str
    precision: str
    ratio: float
    provider: str
    labels: tuple[str, ...]


class Samples:
    """What one histogram is told, by any thread, kept until `flush` on the event loop and put in together.

    Alone, each observation would take a lock for its bucket and one for the sum.
    """

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._values: list[float] = []
        self.observe = self._values.append

    def flush(self) -> None:
        """Put in what was observed since the last time."""
        values = self._values[:]
        if not values:
            return
        bounds = self._histogram._upper_bounds
        for bucket, count in Tally(map(functools.partial(bisect.bisect_left, bounds), values)).items():
            self._histogram._buckets[bucket].inc(count)
        self._histogram._sum.inc(sum(values))
        del self._values[: len(values)]  # not what another thread has added meanwhile


class Count:
    """What one counter is told on the event loop, kept until `flush`."""

    __slots__ = ("_counter", "steps")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self.steps = 0

    def flush(self) -> None:
        """Add what was counted since the last time."""
        if self.steps:
            self._counter.inc(self.steps)
            self.steps = 0


class Level:
    """The last value that one gauge was told, kept until `flush`."""

    __slots__ = ("_gauge", "_value")

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._value = 0.0

    def set(self, value: float) -> None:
        """Remember the value."""
        self._value = value

    def flush(self) -> None:
        """Put it in."""
        self._gauge.set(self._value)


class ModelMetrics:
    """The series of one model, looked up once; also the observer of its batcher."""

    def __init__(self, metrics: "Metrics", model: ModelLabels) -> None:
        name = model.name
        self.tokenize = metrics.samples(metrics.tokenize_duration.labels(name))
        self.queue = metrics.samples(metrics.queue_duration.labels(name))
        self.inference = metrics.samples(metrics.inference_duration.labels(name))
        self.steps = {"tokenize": self.tokenize, "queue": self.queue, "inference": self.inference}
        self.batch_size = metrics.samples(metrics.batch_size.labels(name))
        self.batch_tokens = metrics.samples(metrics.batch_tokens.labels(name))
        self.batch_padding_ratio = metrics.samples(metrics.batch_padding_ratio.labels(name))
        self.input_tokens = metrics.samples(metrics.input_tokens.labels(name))
        self.queue_depth_changed = metrics.level(metrics.queue_depth.labels(name)).set
        self.ready = metrics.model_ready.labels(name)
        self.predictions = {label: metrics.count(metrics.predictions.labels(name, label)) for label in model.labels}
        self.prediction_score = metrics.samples(metrics.prediction_score.labels(name))
        metrics.model_info.labels(name, model.version, model.precision, f"{model.ratio:g}", model.provider).set(1)
        metrics.add_requests_series(name)

    def batch_taken(self, size: int, tokens: int, padded_tokens: int) -> None:
        """A runner took a batch."""
        self.batch_size.observe(size)
        self.batch_tokens.observe(padded_tokens)
        self.batch_padding_ratio.observe((padded_tokens - tokens) / padded_tokens)


class Metrics:
    """All series of one app, whose inference routes are `routes`, in a registry of its own."""

    def __init__(self, routes: Sequence[str]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a time per series doubles their number
        registry = CollectorRegistry()
        self.registry = registry
        self._routes = tuple(routes)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: Iterable[float], *labels: str) -> Histogram:
            return Histogram(name, text, labels, buckets=tuple(buckets), registry=registry)

        def seconds(name: str, text: str, *labels: str) -> Histogram:
            return histogram(name, text, DURATION_BUCKETS_S, *labels)

        self.requests = counter("ladabert_requests_total", "Requests to inference routes.", "model", "route", "status")
        self.rejected = counter("ladabert_rejected_total", "Requests given up, by reason.", "model", "reason")
        self.predictions = counter("ladabert_predictions_total", "Predictions by best label.", "model", "label")
        self.request_duration = seconds(
            "ladabert_request_duration_seconds",
            "From the request's headers to its answer.",
            "model",
            "route",
        )
        self.tokenize_duration = seconds(
            "ladabert_tokenize_duration_seconds",
            "Tokenising one request, its wait for a thread included.",
            "model",
        )
        self.queue_duration = seconds(
            "ladabert_queue_duration_seconds", "From tokenised until a runner took the first text.", "model"
        )
        self.inference_duration = seconds(
            "ladabert_inference_duration_seconds",
            "From the first text taken to the last one answered.",
            "model",
        )
        self.batch_size = histogram("ladabert_batch_size", "Texts in one batch.", COUNT_BUCKETS, "model")
        self.batch_tokens = histogram(
            "ladabert_batch_tokens", "Tokens in one batch, padding included.", TOKEN_BUCKETS, "model"
        )
        self.batch_padding_ratio = histogram(
            "ladabert_batch_padding_ratio",
            "Share of a batch's tokens that is padding.",
            (0.0, *RATIO_BUCKETS),
            "model",
        )
        self.input_tokens = histogram(
            "ladabert_input_tokens", "Tokens of one input, after truncation.", TOKEN_BUCKETS, "model"
        )
        self.prediction_score = histogram(
            "ladabert_prediction_score", "Score of the best label.", SCORE_BUCKETS, "model"
        )
        self.queue_depth = Gauge(
            "ladabert_queue_depth",
            "Requests that wait for a runner.",
            ("model",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.requests_in_progress = Gauge(
            "ladabert_requests_in_progress",
            "Requests to inference routes that are not answered yet.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.model_ready = Gauge(
            "ladabert_model_ready",
            "1 when the model can answer (in every worker), else 0.",
            ("model",),
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.model_info = Gauge(
            "ladabert_model_info",
            "What is served.",
            ("model", "version", "precision", "ratio", "provider"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        # Written out when they are asked for; with several workers, whom another one asks, after each request.
        self._kept: list[Samples | Count | Level] = []
        self._unflushed = 0  # requests
        self._flush_after = UNFLUSHED
        self._in_progress = 0
        self._rejected: dict[tuple[str, str], Count] = {}
        self._answered: dict[tuple[str, str, int], tuple[Count, Samples]] = {}
        self._group: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        if MULTIPROCESS_VARIABLE in os.environ:
            self._flush_after = 1
            self._group = ScrapeLock(Path(os.environ[MULTIPROCESS_VARIABLE]))
        self.add_requests_series(UNKNOWN_MODEL)

    def samples(self, histogram: Histogram) -> Samples:
        """Return what keeps a histogram's observations until they are flushed."""
        kept = Samples(histogram)
        self._kept.append(kept)
        return kept

    def count(self, counter: Counter) -> "Count":
        """Return what keeps a counter's steps until they are flushed."""
        kept = Count(counter)
        self._kept.append(kept)
        return kept

    def level(self, gauge: Gauge) -> "Level | Gauge":
        """Return what keeps a gauge's value until it is flushed; with several workers the gauge itself."""
        if self._flush_after == 1:
            return gauge
        kept = Level(gauge)
        self._kept.append(kept)
        return kept

    def began(self) -> None:
        """Count a request that came."""
        self._in_progress += 1
        if self._flush_after == 1:
            with self._group:
                self.requests_in_progress.set(self._in_progress)

    def ended(self, model: str, route: str, status: int, seconds: float, rejected_reason: str | None) -> None:
        """Count an answer: no scrape sees the request neither in progress nor answered, nor as both."""
        answered = self._answered.get((model, route, status))
        if answered is None:
            answered = (
                self.count(self.requests.labels(model, route, str(status))),
                self.samples(self.request_duration.labels(model, route)),
            )
            self._answered[model, route, status] = answered
        requests, duration = answered
        requests.steps += 1
        duration.observe(seconds)
        self._in_progress -= 1
        self._unflushed += 1
        if rejected_reason is not None:
            self._rejected[model, rejected_reason].steps += 1
        if self._unflushed >= self._flush_after:
            self.flush()

    def flush(self) -> None:
        """Write out what was kept; called on the event loop."""
        self._unflushed = 0
        with self._group:
            self.requests_in_progress.set(self._in_progress)
            for kept in self._kept:
                kept.flush()

    def add_requests_series(self, model: str) -> None:
        """Bring every series of requests to this model into being at zero."""
        for route in self._routes:
            self.request_duration.labels(model, route)
            for status in STATUSES:
                self.requests.labels(model, route, str(status))
        for reason in REASONS:
            self._rejected[model, reason] = self.count(self.rejected.labels(model, reason))


class ScrapeLock:
    """Held by a worker while it writes what belongs together, and by a scrape while it copies the worker's files.

    It is a file lock, which ends with its process: a worker that is killed holds nobody up.
    """

    def __init__(self, folder: Path) -> None:
        self._file = (folder / f"{os.getpid()}{LOCK_SUFFIX}").open("wb")

    def __enter__(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)


class Snapshot(Collector):
    """Families as they were at one moment, to be written out at leisure."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        """Return the families."""
        return self._families


def take_snapshot(metrics: Metrics) -> Snapshot:
    """Return every series at one moment; call it where requests are counted, on the event loop."""
    metrics.flush()
    return Snapshot(metrics.registry.collect())


def take_snapshot_of_workers(folder: Path) -> Snapshot:
    """Return the sum over all workers, each at one moment; not to be called on the event loop."""
    with tempfile.TemporaryDirectory() as copies:
        for lock_path in folder.glob(f"*{LOCK_SUFFIX}"):
            # One worker after the other: one that is stopped in the middle of a write must not hold up the rest.
            with lock_path.open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH)
                for path in folder.glob(f"*_{lock_path.stem}.db"):
                    with contextlib.suppress(FileNotFoundError):  # of a worker that just ended
                        shutil.copyfile(path, Path(copies, path.name))
        return Snapshot(MultiProcessCollector(CollectorRegistry(), copies).collect())  # type: ignore[no-untyped-call]


def render(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """Return the exposition and its content type: OpenMetrics when `accept` asks for it, else plain text."""
    registry = CollectorRegistry()
    registry.register(snapshot)
    encode: Callable[..., bytes]
    try:
        encode, content_type = choose_encoder(accept)
    except (ValueError, TypeError):  # a version that is not a number
        encode, content_type = generate_latest, CONTENT_TYPE_PLAIN_0_0_4
    return encode(registry), content_type
