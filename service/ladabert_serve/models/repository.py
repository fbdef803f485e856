"""The served models by name, each with a state: loaded, replaced and unloaded while others answer.

A model that replaces another is read, verified and tried in a thread, and then takes its place between two turns of the
event loop. The old one finishes what it admitted, and goes with its graph and its metrics.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Literal, NamedTuple

from ladabert_serve.errors import ArtefactError, DrainingError, NotReadyError, StartError, UnknownModelError
from ladabert_serve.models.artefact import Artefact, find_artefacts, read_artefact
from ladabert_serve.models.background import in_thread
from ladabert_serve.models.cascade import check_cascades
from ladabert_serve.models.model_settings import check_models, settings_of
from ladabert_serve.models.naming import DEFAULT, choose_default, log_alias, names_and_aliases
from ladabert_serve.models.opening import (
    Loader,
    Opened,
    OpenedCascade,
    make_cascade,
    make_model,
    open_artefact,
    runner_count,
)
from ladabert_serve.models.served import Served
from ladabert_serve.models.shadow import check_shadows
from ladabert_serve.observability.metrics import Metrics
from ladabert_serve.scheduling.runner import RunnerPool
from ladabert_serve.settings import Settings

logger = logging.getLogger(__name__)

POLL_S = 0.02  # until a model that was replaced has given its last answer

State = Literal["loading", "ready", "draining", "failed", "unloaded"]
Action = Literal["load", "unload"]


class Status(NamedTuple):
    """One version of one model; the version is unknown before it is loaded."""

    name: str
    version: str
    state: State
    reason: str  # why it is not served, or why the last load was refused


class Repository:
    """Every served model; `default` answers requests that name none.

    A caller of `find` or `get` asks the model in the same turn of the event loop: later it may have been replaced.
    `relay` carries a change to every worker, where there are several.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, pool: RunnerPool, default: str, load: Loader | None
    ) -> None:
        self.models: dict[str, Served] = {}
        self.default = default
        self.leaving = False  # whether the server was told to end
        self.relay: Callable[[Action, str], Awaitable[None]] | None = None
        self._settings = settings
        self._metrics = metrics
        self._pool = pool
        self._load = load
        self._by_alias: dict[str, Served] = {}
        self._not_to_log = {DEFAULT}  # aliases that stay, or were logged before
        self._opened: dict[str, Opened | OpenedCascade] = {}  # to be served as soon as every worker can
        self._leaving: dict[Served, asyncio.Task[None]] = {}  # and what waits for their last answers
        self._loading: set[str] = set()
        self._reasons: dict[str, str] = {}  # why the last load was refused
        self._changes: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # one at a time for each name
        self._draining = False

    def find(self, name: str) -> Served | None:
        """Return a model by name or alias, None where there is no such model."""
        return self.models.get(name) or self._by_alias.get(name)

    def get(self, name: str | None) -> Served:
        """Return a model by name or alias, the default one for None; raises UnknownModelError or NotReadyError.

        The first request for an alias writes a line into the log, which asks for the name.
        """
        if name is None:
            if self.default not in self.models:
                raise NotReadyError(f"the default model {self.default!r} is not loaded; name another, or load it")
            return self.models[self.default]
        model = self.find(name)
        if model is None:
            raise UnknownModelError(name, sorted(self.models))
        if name != model.name and name not in self._not_to_log:
            self._not_to_log.add(name)
            log_alias(name, model.name)
        return model

    async def index(self) -> list[Status]:
        """Return what is served and what could be, by name; a model that is being replaced has several lines."""
        folders = await in_thread(self._folders)
        lines = [_status(model, self._reasons.get(name, "")) for name, model in self.models.items()]
        lines += [_status(model, "") for model in self._leaving]
        lines += [Status(name, "", "loading", "") for name in self._loading]
        for name in {*folders, *self._reasons}.difference(line.name for line in lines):
            reason = self._reasons.get(name, "")
            lines.append(Status(name, "", "failed" if reason else "unloaded", reason))
        return sorted(lines)

    async def load(self, name: str) -> None:
        """Serve what lies in the model's folder now, in every worker or in none; raises StartError.

        The model that it replaces is served until then, and on if the new one is refused.
        """
        if self.relay is not None:
            await self.relay("load", name)
            return
        await self.prepare(name)
        self.commit(name)

    async def unload(self, name: str) -> None:
        """Stop serving a model, in every worker; it finishes what it admitted. Raises StartError."""
        if self.relay is not None:
            await self.relay("unload", name)
        else:
            await self.remove(name)

    async def prepare(self, name: str) -> None:
        """Read, verify and try what lies in the model's folder; it is served after `commit`. Raises StartError."""
        folder = (await in_thread(self._folders)).get(name)
        if folder is None:
            raise ArtefactError(f"{self._settings.models}: holds no artefact {name[:100]!r}")
        async with self._changes[name]:
            self._loading.add(name)
            try:
                opened = await in_thread(lambda: self._open(folder))
                others = [model for model in self.models.values() if model.name != name]
                artefacts = [*(model.artefact for model in others), opened.artefact]
                names_and_aliases(artefacts)
                check_cascades({artefact.name: artefact for artefact in artefacts})
                shadows = {model.name: model.shadow_name for model in others}
                check_shadows(artefacts, {**shadows, name: opened.settings.shadow_model}, absent_is_fine=True)
                self._opened[name] = opened
            except StartError as error:
                self._reasons[name] = str(error)
                logger.error("model %r is not loaded: %s", name, error)
                raise
            finally:
                self._loading.discard(name)

    def _folders(self) -> dict[str, Path]:
        return {folder.name: folder for folder in find_artefacts(self._settings.models)}

    def _open(self, folder: Path) -> Opened | OpenedCascade:
        try:
            return _open(read_artefact(folder), settings_for(self._settings, folder.name, self.default), self._load)
        except StartError:
            raise
        except Exception as error:
            logger.exception("a bug while %s was loaded", folder)
            raise ArtefactError(f"{folder}: cannot be loaded: {error!r}") from error

    def commit(self, name: str) -> None:
        """Serve what was prepared, in the place of an older version."""
        opened = self._opened.pop(name)
        if self._draining:
            raise DrainingError
        self._reasons.pop(name, None)
        old = self.models.get(name)
        self.serve(opened)
        logger.info("model %r: version %s is served", name, opened.artefact.version)
        if old is not None:
            old.metrics.leave_gauges()
            self._dismiss(old)

    def discard(self, name: str, reason: str) -> None:
        """Forget what was prepared, because another worker refused it."""
        self._opened.pop(name, None)
        self._reasons[name] = reason

    def serve(self, opened: Opened | OpenedCascade) -> None:
        """Make a model of what was opened, and serve it."""
        model: Served
        if isinstance(opened, Opened):
            model = make_model(opened, self._pool, self._metrics, self.find)
        else:
            model = make_cascade(opened, self._metrics, self.find)
        model.start()
        self.models[model.name] = model
        self._find_aliases()

    async def remove(self, name: str) -> None:
        """Stop serving a model; it finishes what it admitted. A name that nobody knows leaves nothing behind."""
        if name not in self._changes and name not in self.models:
            return
        async with self._changes[name]:
            for other in self.models.values():
                if any(stage.name == name for stage in other.artefact.stages):
                    raise StartError(f"model {name!r} is a stage of cascade {other.name!r}: unload that first")
            self._reasons.pop(name, None)
            model = self.models.pop(name, None)
            if model is None:
                return
            self._find_aliases()
            logger.info("model %r is unloaded", name)
            self._dismiss(model)

    def leave(self) -> None:
        """Say from now on that the server is not ready, and go on answering."""
        self.leaving = True

    def drain(self) -> None:
        """Admit nothing from now on."""
        self._draining = True
        for model in self.models.values():
            model.drain()

    def abort(self) -> None:
        """Answer what is left with DrainingError."""
        for model in [*self.models.values(), *self._leaving]:
            model.abort()

    def stop(self) -> None:
        """End every model and every runner."""
        self._draining = True
        for task in self._leaving.values():
            task.cancel()
        for model in [*self.models.values(), *self._leaving]:
            model.stop()
        self._pool.stop()

    def _find_aliases(self) -> None:
        self._by_alias = {alias: model for model in self.models.values() for alias in model.artefact.aliases}

    def _dismiss(self, model: Served) -> None:
        model.drain()
        self._leaving[model] = asyncio.get_running_loop().create_task(self._let_go(model))

    async def _let_go(self, model: Served) -> None:
        """Wait for a model's last answers, but not for ever, and give back what it holds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._settings.grace_period_s
        while not model.idle and loop.time() < end:
            await asyncio.sleep(POLL_S)
        model.abort()
        while not model.idle:
            await asyncio.sleep(POLL_S)
        model.stop()
        del self._leaving[model]
        others = [other for other in [*self.models.values(), *self._leaving] if other.name == model.name]
        self._metrics.remove(model.metrics.keys.difference(*(other.metrics.keys for other in others)))
        model.free()


def load_repository(
    settings: Settings, metrics: Metrics, load: Loader | None = None, unloaded: Collection[str] = ()
) -> Repository:
    """Verify, load and warm up every artefact, on the event loop that will ask; raises StartError with one line.

    `unloaded` names those that were unloaded before this process began, in the place of another.
    """
    artefacts = read_artefacts(settings, unloaded)
    check_models(settings, [*unloaded, *(artefact.name for artefact in artefacts)])
    default = choose_default(settings, artefacts, unloaded)
    check_cascades({artefact.name: artefact for artefact in artefacts})
    opened = [_open(artefact, settings_for(settings, artefact.name, default), load) for artefact in artefacts]
    shadows = {each.artefact.name: each.settings.shadow_model for each in opened}
    check_shadows(artefacts, shadows, absent_is_fine=bool(unloaded))
    loaded = [each for each in opened if isinstance(each, Opened)]
    pool = RunnerPool(runner_count(loaded, settings), metrics.gauge("ladabert_runners_busy").set)
    repository = Repository(settings, metrics, pool, default, load)
    pool.start()
    for each in sorted(opened, key=lambda each: bool(each.artefact.stages)):  # cascades after their stages
        repository.serve(each)
    return repository


def _open(artefact: Artefact, settings: Settings, load: Loader | None) -> Opened | OpenedCascade:
    if artefact.stages:
        return OpenedCascade(artefact, settings_of(settings, artefact.name))
    return open_artefact(artefact, settings, load)


def settings_for(settings: Settings, name: str, default: str) -> Settings:
    """Return the general settings as they hold for one model: only the default model has their shadow."""
    return settings if name == default else settings.model_copy(update={"shadow_model": None})


def read_artefacts(settings: Settings, unloaded: Collection[str] = ()) -> list[Artefact]:
    """Read and verify every artefact of the models folder that is to be served, at least one."""
    folders = [folder for folder in find_artefacts(settings.models) if folder.name not in unloaded]
    if not folders and not unloaded:
        raise ArtefactError(f"{settings.models}: holds no artefact (make one with ladabert-compress)")
    return [read_artefact(folder) for folder in folders]


def _status(model: Served, reason: str) -> Status:
    if model.state == "failed":
        reason = "its last runs failed; see the server's log"
    return Status(model.name, model.artefact.version, model.state, reason)
