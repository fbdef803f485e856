"""The served models by name: loaded and verified at the start, drained and stopped at the end."""

import logging
from collections.abc import Callable, Mapping

from ladabert_serve.cores import cores_per_worker
from ladabert_serve.errors import ArtefactError, StartError, UnknownModelError
from ladabert_serve.models.artefact import MANIFEST_FILE, Artefact, find_artefacts, read_artefact
from ladabert_serve.models.inference import Inference
from ladabert_serve.models.loading import load_inference
from ladabert_serve.models.model import Model
from ladabert_serve.observability.metrics import Metrics, ModelMetrics
from ladabert_serve.scheduling.fair_queue import BatchLimits
from ladabert_serve.settings import Provider, Settings

logger = logging.getLogger(__name__)

# Batch sizes that fit each provider: on a CPU a larger batch is no faster and makes others wait longer.
BATCH_SIZE = {"cpu": 32, "cuda": 256, "openvino": 32}
BATCH_TOKENS = {"cpu": 256, "cuda": 32768, "openvino": 256}
FAIR_WINDOW_TOKENS = {"cpu": 64, "cuda": 32768, "openvino": 64}

DEFAULT = "default"  # the name or alias of the model that answers requests which name none, unless a setting does

Loader = Callable[[Artefact, str, Provider], Inference]


class Registry:
    """Every served model; `default` answers requests that name none."""

    def __init__(self, models: Mapping[str, Model], default: str) -> None:
        self.models = models
        self.default = default
        self._by_alias = {alias: model for model in models.values() for alias in model.artefact.aliases}
        self._not_to_log = {DEFAULT}  # aliases that stay, or were logged before

    def find(self, name: str) -> Model | None:
        """Return a model by name or alias, None where there is no such model."""
        return self.models.get(name) or self._by_alias.get(name)

    def get(self, name: str | None) -> Model:
        """Return a model by name or alias, the default one for None; raises UnknownModelError.

        The first request for an alias writes a line into the log, which asks for the name.
        """
        if name is None:
            return self.models[self.default]
        model = self.find(name)
        if model is None:
            raise UnknownModelError(name, sorted(self.models))
        if name != model.name and name not in self._not_to_log:
            self._not_to_log.add(name)
            _log_alias(name, model.name)
        return model

    def drain(self) -> None:
        """Admit nothing from now on."""
        for model in self.models.values():
            model.drain()

    def abort(self) -> None:
        """Answer what is left with DrainingError."""
        for model in self.models.values():
            model.abort()

    def stop(self) -> None:
        """End every thread."""
        for model in self.models.values():
            model.stop()


def load_registry(settings: Settings, metrics: Metrics, load: Loader = load_inference) -> Registry:
    """Verify, load and warm up every artefact, on the event loop that will ask; raises StartError with one line."""
    artefacts = read_artefacts(settings)
    default = choose_default(settings, artefacts)
    cores = cores_per_worker(settings.workers)
    models: dict[str, Model] = {}
    try:
        for artefact in artefacts:
            models[artefact.name] = _load_model(artefact, settings, cores, metrics, load)
            models[artefact.name].start()
    except BaseException:
        Registry(models, default).stop()
        raise
    return Registry(models, default)


def read_artefacts(settings: Settings) -> list[Artefact]:
    """Read and verify every artefact of the models folder, at least one."""
    folders = find_artefacts(settings.models)
    if not folders:
        raise ArtefactError(f"{settings.models}: holds no artefact (make one with ladabert-compress)")
    return [read_artefact(folder) for folder in folders]


def choose_default(settings: Settings, artefacts: list[Artefact]) -> str:
    """Return the default model's name: as configured, or else called `default`, or else the first of the sorted names.

    Models for single texts come before those for pairs, which would refuse a request for one text. Raises StartError.
    """
    names = [name for _, name in sorted((artefact.task == "pair", artefact.name) for artefact in artefacts)]
    known = _names_and_aliases(artefacts)
    wanted = settings.default_model
    if wanted is None:
        return known.get(DEFAULT, names[0])
    if wanted not in known:
        raise StartError(f"default_model {wanted!r} is not served; there are: {', '.join(names)}")
    if wanted not in (known[wanted], DEFAULT):
        _log_alias(wanted, known[wanted])
    return known[wanted]


def _names_and_aliases(artefacts: list[Artefact]) -> dict[str, str]:
    """Return the model's name for each name and alias; raises ArtefactError when one means two models."""
    known = {artefact.name: artefact.name for artefact in artefacts}
    for artefact in artefacts:
        for alias in artefact.aliases:
            if alias in known:
                path = artefact.folder / MANIFEST_FILE
                raise ArtefactError(f"{path}: its alias {alias!r} is a name of model {known[alias]!r} already")
            known[alias] = artefact.name
    return known


def _log_alias(alias: str, name: str) -> None:
    logger.warning("%r is an alias of the model %r, and deprecated: name %r instead", alias, name, name)


def _load_model(artefact: Artefact, settings: Settings, cores: int, metrics: Metrics, load: Loader) -> Model:
    graph_file = artefact.graph_file(settings.precision, settings.provider)
    inference = load(artefact, graph_file, settings.provider)
    provider = inference.backend.provider
    limits = BatchLimits(
        max_batch_size=settings.max_batch_size or BATCH_SIZE[provider],
        max_batch_tokens=settings.max_batch_tokens or BATCH_TOKENS[provider],
        max_batch_padding=settings.max_batch_padding,
        max_queue_requests=settings.max_queue_requests,
        max_queue_tokens=settings.max_queue_tokens,
        max_queue_s=settings.max_queue_ms / 1000,
        fair_window_tokens=settings.fair_window_tokens or FAIR_WINDOW_TOKENS[provider],
    )
    model_metrics = ModelMetrics(
        metrics,
        name=artefact.name,
        version=artefact.version,
        precision=artefact.precision_of(graph_file),
        ratio=artefact.manifest["compression"]["reached_ratio"],
        provider=provider,
        labels=artefact.labels,
    )
    runners = settings.runners or (1 if provider == "cuda" else cores)
    return Model(inference, graph_file, limits, runners, settings.max_run_ms / 1000, model_metrics)
