"""A sampled share of a model's answers, computed by a second model as well, and how far the two agree.

No caller waits for it: the second model's runs take place in idle time, its queue is short, and what does not fit is
dropped. Every sampled text is counted once: as compared, as dropped for a reason, or as waiting.
"""

import functools
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf, log
from typing import Any, NamedTuple

from ladabert_serve.errors import DrainingError, QueueFullError, StartError
from ladabert_serve.models.artefact import Artefact
from ladabert_serve.models.cache import Known
from ladabert_serve.models.model import Model
from ladabert_serve.models.question import ModelBatcher, ModelTicket, Question
from ladabert_serve.models.scores import apply_function, default_function
from ladabert_serve.models.served import Served
from ladabert_serve.models.tokenizer import TextInput
from ladabert_serve.observability.shadow_metrics import DropReason, ShadowMetrics

MOST_WAITING = 256  # texts
MOST_KEPT = 1000  # disagreements, the last ones
SMALLEST_SCORE = 1e-12  # for logarithms


class _Sample(NamedTuple):
    """A text that waits for the shadow, and what the model answered."""

    value: TextInput
    tokens: int
    scores: Sequence[float]
    batcher: ModelBatcher


class Shadow:
    """Compares one version of a model with the model that `find` returns for a name at the time, if there is one.

    The texts of disagreements are kept only with `keeps_texts`. Any thread may call any method.
    """

    def __init__(
        self,
        artefact: Artefact,
        name: str,
        rate: float,
        keeps_texts: bool,
        find: Callable[[str], Served | None],
        metrics: ShadowMetrics,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.rate = rate
        self._artefact = artefact
        self._keeps_texts = keeps_texts
        self._find = find
        self._metrics = metrics
        self._draw = draw
        self._function = default_function(artefact.problem_type)
        self._waiting: dict[ModelTicket, _Sample] = {}
        self._disagreements: deque[dict[str, Any]] = deque(maxlen=MOST_KEPT)
        self._closed = False
        self._lock = threading.Lock()  # taken before that of the runners

    def offer(self, question: Question, index: int, known: Known) -> None:
        """Let the shadow compute an input that was answered, if it is drawn; does not wait.

        Inputs that callers tokenised themselves are left out: the shadow may have other tokens.
        """
        value = question.inputs[index]
        if self._draw() >= self.rate or not isinstance(value, TextInput):
            return
        with self._lock:
            if self._closed:
                return
            reason = self._admit(question, value, known)
            if reason is not None:
                self._metrics.dropped(reason)
            self._metrics.waiting_changed(len(self._waiting))

    def _admit(self, question: Question, value: TextInput, known: Known) -> DropReason | None:
        """Queue a text, or return why it is dropped."""
        shadow = self._find(self.name)
        if not isinstance(shadow, Model):
            return "unloaded"
        if _difference(self._artefact, shadow.artefact) is not None:
            return "labels"
        if len(self._waiting) >= MOST_WAITING:
            return "queue_full"
        batcher = shadow.in_idle_time()
        asked = question._replace(inputs=[value], truncate=True, known={})
        settled = functools.partial(self._settled, shadow.artefact)
        try:
            ticket = batcher.admit(asked, *shadow.tokenizer.upper_bounds(value), inf, settled)
        except QueueFullError:
            return "queue_full"
        except DrainingError:
            return "unloaded"
        scores = apply_function(known.logits, self._function, self._artefact.temperature)
        self._waiting[ticket] = _Sample(value, known.tokens, scores, batcher)
        return None

    def _settled(self, shadow: Artefact, ticket: ModelTicket) -> None:
        """Count what became of a text."""
        with self._lock:
            sample = self._waiting.pop(ticket, None)
            if sample is None:  # it was dropped before
                return
            if ticket.error is None:
                scores = apply_function(ticket.results[0], self._function, shadow.temperature)
                self._compare(sample, scores, shadow.version)
            else:
                self._metrics.dropped("unloaded" if isinstance(ticket.error, DrainingError) else "failed")
            self._metrics.waiting_changed(len(self._waiting))

    def _compare(self, sample: _Sample, scores: Sequence[float], version: str) -> None:
        own, other = (each.index(max(each)) for each in (sample.scores, scores))
        divergence = divergence_nats(scores, sample.scores, self._artefact.problem_type)
        self._metrics.compared(own, other, divergence)
        if own == other:
            return
        labels = self._artefact.labels
        self._disagreements.append(
            {
                "label": labels[own],
                "score": sample.scores[own],
                "shadow_label": labels[other],
                "shadow_score": scores[other],
                "shadow_version": version,
                "divergence_nats": divergence,
                "tokens": sample.tokens,
                "text": sample.value.text if self._keeps_texts else None,
                "text_pair": sample.value.text_pair if self._keeps_texts else None,
            }
        )

    def close(self) -> None:
        """Drop what waits, and count nothing afterwards."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, {}
            self._metrics.dropped("unloaded", len(waiting))
            self._metrics.waiting_changed(0)
        for ticket, sample in waiting.items():
            sample.batcher.cancel(ticket)

    def describe(self) -> dict[str, Any]:
        """Return the counts of this process, and the last disagreements with the newest first."""
        with self._lock:
            return {
                "shadow": self.name,
                "rate": self.rate,
                **self._metrics.describe(),
                "waiting": len(self._waiting),
                "disagreements": [*reversed(self._disagreements)],
            }


def divergence_nats(expected: Sequence[float], found: Sequence[float], problem_type: str) -> float:
    """Return the KL divergence of the found scores from the expected ones; of a multi-label task, its labels' sum.

    That of a regression is half of the squared difference: the one of normal distributions of variance 1.
    """
    pairs = list(zip(expected, found, strict=True))
    if problem_type == "regression":
        return sum((a - b) ** 2 for a, b in pairs) / 2
    if problem_type == "multi_label":
        pairs += [(1 - first, 1 - second) for first, second in pairs]
    return sum(a * (log(max(a, SMALLEST_SCORE)) - log(max(b, SMALLEST_SCORE))) for a, b in pairs)


def check_shadows(served: Iterable[Artefact], shadows: Mapping[str, str | None], absent_is_fine: bool = False) -> None:
    """Raise StartError for a model whose shadow is not served, or cannot be compared with it.

    `shadows` names the shadow, or an alias of it, for each model; None where it has none.
    """
    by_name = {name: artefact for artefact in served for name in (artefact.name, *artefact.aliases)}
    for name, shadow_name in shadows.items():
        if shadow_name is None:
            continue
        shadow = by_name.get(shadow_name)
        if shadow is None:
            if absent_is_fine:
                continue
            names = ", ".join(sorted({artefact.name for artefact in by_name.values()}))
            raise StartError(f"shadow_model {shadow_name!r} of model {name!r} is not served; there are: {names}")
        difference = _difference(by_name[name], shadow)
        if difference is not None:
            raise StartError(f"shadow_model {shadow_name!r} cannot be compared with model {name!r}: {difference}")


def _difference(model: Artefact, shadow: Artefact) -> str | None:
    """Return in what two models differ that have to be alike, None if they can be compared."""
    if shadow.stages:
        return "it is a cascade, which has no queue of its own for idle time"
    if model.task != shadow.task:
        return f"its task is {shadow.task!r}, not {model.task!r}"
    if model.problem_type != shadow.problem_type:
        return f"its problem_type is {shadow.problem_type!r}, not {model.problem_type!r}"
    if model.labels != shadow.labels:
        return "its labels differ, or their order"
    return None
