"""What each metric means: its name, its text, its labels, its buckets."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

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
    "ladabert_prediction_score": Kind(
        HISTOGRAM, "Score of the best label; regressions have none.", ("model",), SCORE_BUCKETS
    ),
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
    "ladabert_cascade_answers_total": Kind(COUNTER, "Answers of a cascade, by stage.", ("model", "stage")),
    "ladabert_cascade_escalated_total": Kind(
        COUNTER, "Texts of which a stage was not sure, and which went on to the next.", ("model", "stage")
    ),
    "ladabert_cascade_degraded_total": Kind(
        COUNTER, "Of these, texts that the stage answered nevertheless: the next was overloaded.", ("model", "stage")
    ),
    "ladabert_cascade_unsure_certainty": Kind(
        HISTOGRAM, "Score or margin of texts that went on.", ("model", "stage"), SCORE_BUCKETS
    ),
    "ladabert_cascade_stage_duration_seconds": Kind(
        HISTOGRAM, "From a question to a stage to its answer.", ("model", "stage"), DURATION_BUCKETS_S
    ),
    "ladabert_cascade_expected_escalated_ratio": Kind(
        GAUGE, "Share of texts that went on from the first stage in the evaluation.", ("model",), over_workers=max
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
