"""The series of one model; also the observer of its batcher."""

from collections.abc import Callable, Sequence

from ladabert_serve.observability.cascade_metrics import CascadeMetrics
from ladabert_serve.observability.drift import LiveWindow, Reference
from ladabert_serve.observability.metrics import Metrics
from ladabert_serve.observability.shadow_metrics import ShadowMetrics


class ModelMetrics:
    """The series of one model, looked up once; also the observer of its batcher.

    A model that replaces another of its name goes on with that one's series.
    """

    def __init__(
        self,
        metrics: Metrics,
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
        stages: Sequence[str] = (),
        expected_escalated: float = 0.0,
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
            self.cascade = CascadeMetrics(metrics, name, stages, expected_escalated) if stages else None
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
