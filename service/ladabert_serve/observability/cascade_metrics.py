"""The series of a cascade: which stage answered, what went on to the next one, and how long each stage took."""

from collections.abc import Sequence

from ladabert_serve.observability.metrics import Metrics


class CascadeMetrics:
    """Counts the answers of one cascade, by the number of the stage; `expected` is the share that should go on."""

    def __init__(self, metrics: Metrics, model: str, stages: Sequence[str], expected: float) -> None:
        self.answers = [metrics.counter("ladabert_cascade_answers_total", model, stage) for stage in stages]
        self.durations = [metrics.histogram("ladabert_cascade_stage_duration_seconds", model, name) for name in stages]
        unsure = stages[:-1]
        self.escalated = [metrics.counter("ladabert_cascade_escalated_total", model, stage) for stage in unsure]
        self.degraded = [metrics.counter("ladabert_cascade_degraded_total", model, stage) for stage in unsure]
        self.certainty = [metrics.histogram("ladabert_cascade_unsure_certainty", model, stage) for stage in unsure]
        metrics.gauge("ladabert_cascade_expected_escalated_ratio", model).set(expected)
