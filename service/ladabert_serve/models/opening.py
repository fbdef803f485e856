"""From a verified artefact to a model: what is slow happens in `open_artefact`, which any thread may call."""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ladabert_serve.cores import cores_per_worker
from ladabert_serve.models.artefact import Artefact
from ladabert_serve.models.cache import AnswerCache
from ladabert_serve.models.cascade import Cascade
from ladabert_serve.models.inference import Inference
from ladabert_serve.models.loading import load_inference
from ladabert_serve.models.model import Model
from ladabert_serve.models.model_settings import settings_of
from ladabert_serve.models.served import Served
from ladabert_serve.models.shadow import Shadow
from ladabert_serve.observability.drift import Reference
from ladabert_serve.observability.metrics import Metrics
from ladabert_serve.observability.model_metrics import ModelMetrics
from ladabert_serve.scheduling.fair_queue import BatchLimits
from ladabert_serve.scheduling.runner import RunnerPool
from ladabert_serve.settings import LONE_TEXT_THREADS, Provider, Settings

logger = logging.getLogger(__name__)

# Batch sizes that fit each provider: on a CPU a larger batch is no faster and makes others wait longer.
BATCH_SIZE = {"cpu": 32, "cuda": 256, "openvino": 32}
BATCH_TOKENS = {"cpu": 256, "cuda": 32768, "openvino": 256}
FAIR_WINDOW_TOKENS = {"cpu": 64, "cuda": 32768, "openvino": 64}

FindModel = Callable[[str], Served | None]
Loader = Callable[[Artefact, str, Provider], Inference]


class Opened(NamedTuple):
    """An artefact that is loaded and has been tried, with the settings of its model."""

    inference: Inference
    graph_file: str
    settings: Settings

    @property
    def artefact(self) -> Artefact:
        """What was loaded."""
        return self.inference.artefact

    @property
    def provider(self) -> str:
        """Where it computes: `cpu`, `cuda` or `openvino`."""
        return self.inference.backend.provider


def open_artefact(artefact: Artefact, general: Settings, load: Loader | None = None) -> Opened:
    """Load and warm up an artefact under its model's settings; raises StartError."""
    settings = settings_of(general, artefact.name)
    graph_file = artefact.graph_file(settings.precision, settings.provider)
    if load is not None:
        return Opened(load(artefact, graph_file, settings.provider), graph_file, settings)
    lone_text_threads = settings.lone_text_threads or min(
        LONE_TEXT_THREADS, settings.runners or cores_per_worker(settings.workers)
    )
    inference = load_inference(
        artefact, graph_file, settings.provider, settings.openvino_fixed_tokens, lone_text_threads
    )
    return Opened(inference, graph_file, settings)


class OpenedCascade(NamedTuple):
    """A cascade, of which nothing has to be loaded, with its settings."""

    artefact: Artefact
    settings: Settings


def make_cascade(opened: OpenedCascade, metrics: Metrics, find: FindModel) -> Cascade:
    """Return the cascade, not started yet; `find` returns what is served under a name, its stages among them."""
    artefact, settings = opened
    stages = [stage for name in artefact.stages if isinstance(stage := find(name.name), Model)]
    for stage, named in zip(stages, artefact.stages, strict=True):
        if stage.graph_file != named.file:
            logger.warning(
                "cascade %r: its thresholds were chosen with %s of stage %r, which is served as %s",
                artefact.name,
                named.file,
                stage.name,
                stage.graph_file,
            )
    first = stages[0]
    model_metrics, shadow = _observers(artefact, settings, metrics, find, first.precision, first.provider)
    return Cascade(artefact, stages, model_metrics, settings.cascade_overload, shadow)


def make_model(opened: Opened, pool: RunnerPool, metrics: Metrics, find: FindModel) -> Model:
    """Return the model, not started yet; `find` returns what is served under a name."""
    inference, graph_file, settings = opened
    artefact, provider = opened.artefact, opened.provider
    limits = BatchLimits(
        max_batch_size=settings.max_batch_size or BATCH_SIZE[provider],
        max_batch_tokens=settings.max_batch_tokens or BATCH_TOKENS[provider],
        max_batch_padding=settings.max_batch_padding,
        max_queue_requests=settings.max_queue_requests,
        max_queue_tokens=settings.max_queue_tokens,
        max_queue_s=settings.max_queue_ms / 1000,
        fair_window_tokens=settings.fair_window_tokens or FAIR_WINDOW_TOKENS[provider],
    )
    precision = artefact.precision_of(graph_file)
    model_metrics, shadow = _observers(artefact, settings, metrics, find, precision, provider, inference.memory_bytes)
    return Model(
        inference,
        graph_file,
        limits,
        pool,
        model_metrics,
        max_run_s=settings.max_run_ms / 1000,
        weight=settings.weight,
        most_runs=_most_runs(provider, settings),
        sampler=shadow,
        cache=AnswerCache(settings.cache_mib << 20) if settings.cache_mib else None,
    )


def _observers(
    artefact: Artefact,
    settings: Settings,
    metrics: Metrics,
    find: FindModel,
    precision: str,
    provider: str,
    memory_bytes: int = 0,
) -> tuple[ModelMetrics, Shadow | None]:
    evaluation = artefact.manifest.get("evaluation", {})
    model_metrics = ModelMetrics(
        metrics,
        name=artefact.name,
        version=artefact.version,
        precision=precision,
        ratio=artefact.manifest.get("compression", {"reached_ratio": 1.0})["reached_ratio"],
        provider=provider,
        labels=artefact.labels,
        memory_bytes=memory_bytes,
        reference=_reference(artefact) if settings.drift_window else None,
        drift_window=settings.drift_window,
        has_cache=settings.cache_mib > 0 and not artefact.stages,  # a cascade's stages have theirs
        shadow=settings.shadow_model,
        stages=[stage.name for stage in artefact.stages],
        expected_escalated=evaluation["escalated"]["value"] if artefact.stages else 0.0,
    )
    shadow: Shadow | None = None
    if settings.shadow_model is not None and model_metrics.shadow is not None:
        rate, keeps_texts = settings.shadow_rate, settings.log_texts
        shadow = Shadow(artefact, settings.shadow_model, rate, keeps_texts, find, model_metrics.shadow)
    return model_metrics, shadow


def runner_count(opened: Sequence[Opened], settings: Settings) -> int:
    """Return the runners that these models share unless the setting says."""
    only_cuda = bool(opened) and all(each.provider == "cuda" for each in opened)
    return settings.runners or (1 if only_cuda else cores_per_worker(settings.workers))


def _reference(artefact: Artefact) -> Reference | None:
    """Return what the model's answers are compared with; None where its manifest says nothing."""
    distributions = artefact.manifest.get("evaluation", {}).get("distributions")
    return None if distributions is None else Reference(distributions)


def _most_runs(provider: str, settings: Settings) -> int | None:
    """Return how many runs of a model may go on at a time, None for as many as there are runners."""
    return 1 if provider == "cuda" and settings.runners is None else None
