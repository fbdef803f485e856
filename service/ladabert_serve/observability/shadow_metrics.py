"""The series of a model that is shadowed: what was compared, how far the two agree, and what was dropped."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from ladabert_serve.observability.metrics import Metrics

MOST_LABELS = 20  # that have series of their own; with more, those from the 20th on share one
OTHER = "other"
AGREES = ("false", "true")

DropReason = Literal["queue_full", "unloaded", "labels", "failed"]


class ShadowMetrics:
    """Counts the comparisons of one model with its shadow; its methods are called by one thread at a time."""

    def __init__(self, metrics: Metrics, model: str, shadow: str, labels: Sequence[str]) -> None:
        self._group = [min(index, MOST_LABELS - 1) for index in range(len(labels))]
        names = list(labels) if len(labels) <= MOST_LABELS else [*labels[: MOST_LABELS - 1], OTHER]
        self._agreement = [
            [
                metrics.counter("ladabert_shadow_agreement_total", model, shadow, name, agrees)
                for agrees in ("false", "true")
            ]
            for name in names
        ]
        self._confusion = [
            [metrics.counter("ladabert_shadow_confusion_total", model, shadow, label, other) for other in names]
            for label in names
        ]
        self._divergence = metrics.histogram("ladabert_shadow_divergence_nats", model, shadow)
        self._dropped = {
            reason: metrics.counter("ladabert_shadow_dropped_total", model, reason) for reason in get_args(DropReason)
        }
        self.waiting_changed: Callable[[float], None] = metrics.gauge("ladabert_shadow_waiting", model).set

    def compared(self, label: int, shadow_label: int, divergence: float) -> None:
        """Count a text by the labels that model and shadow gave it, and by the divergence of their scores in nats."""
        row, column = self._group[label], self._group[shadow_label]
        self._agreement[row][label == shadow_label].inc()
        self._confusion[row][column].inc()
        self._divergence.observe(divergence)

    def dropped(self, reason: DropReason, count: int = 1) -> None:
        """Count texts that were sampled and will not be compared."""
        self._dropped[reason].inc(count)

    def describe(self) -> dict[str, Any]:
        """Return the counts of this process."""
        disagreed, agreed = (int(sum(each[agrees].value for each in self._agreement)) for agrees in (0, 1))
        dropped = {reason: int(counter.value) for reason, counter in self._dropped.items()}
        return {"compared": agreed + disagreed, "agreed": agreed, "dropped": dropped}
