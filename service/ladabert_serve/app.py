"""Wires settings, models and routes into one ASGI application."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Collection
from importlib import metadata

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ladabert_serve.http.access_log import log_call
from ladabert_serve.http.call import Call
from ladabert_serve.http.gates import KeyGate, with_gates
from ladabert_serve.http.inference_route import InferenceRoute, Services
from ladabert_serve.http.key_file import read_key_file
from ladabert_serve.http.middleware import RequestMiddleware
from ladabert_serve.http.openapi import describe
from ladabert_serve.http.problem import routing_problem
from ladabert_serve.http.tracing import start_tracer
from ladabert_serve.models.opening import Loader
from ladabert_serve.models.repository import load_repository
from ladabert_serve.models.watch import FolderWatch, follow
from ladabert_serve.observability.metrics import Metrics
from ladabert_serve.observability.tallies import WorkerTallies
from ladabert_serve.routes import (
    classify,
    health,
    hugging_face,
    kserve,
    models,
    oip,
    oip_models,
    repository,
    text_embeddings_inference,
    vllm,
)
from ladabert_serve.routes import metrics as metrics_route
from ladabert_serve.routes.docs import add_docs
from ladabert_serve.routes.playground import add_playground
from ladabert_serve.settings import Settings

INFERENCE_ROUTES: tuple[InferenceRoute, ...] = (
    classify.ROUTE,
    vllm.ROUTE,
    text_embeddings_inference.ROUTE,
    *hugging_face.ROUTES,
    *oip.ROUTES,
    kserve.ROUTE,
)


class Application(Starlette):
    """Routes behind this project's middleware alone: what Starlette puts around them, each request would pay for."""

    settings: Settings

    def build_middleware_stack(self) -> ASGIApp:
        """Return what answers every request."""
        return RequestMiddleware(with_gates(self.router, self.settings), self.settings)


def create_app(
    settings: Settings,
    load: Loader | None = None,
    workers: WorkerTallies | None = None,
    unloaded: Collection[str] = (),
) -> Application:
    """Return the application: the inference routes, and FastAPI for all others, behind one middleware.

    Its lifespan loads the models (raising StartError) and stops them.

    `load` turns a verified artefact into something that computes; tests give their own. `workers` is where this
    process and the others count, by default in memory of its own. Models named by `unloaded` are not loaded.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        key_file = read_key_file(settings)
        tracer = start_tracer(settings)
        metrics = Metrics([route.path for route in INFERENCE_ROUTES], workers)
        watch = FolderWatch(settings.models) if settings.watch and settings.workers == 1 else None
        registry = load_repository(settings, metrics, load, unloaded)
        metrics.start()
        if key_file is not None:
            key_file.start()
        records: list[Callable[[Call, int], None]] = []
        if settings.access_log:
            records.append(functools.partial(log_call, texts=settings.log_texts))
        if tracer is not None:
            records.append(tracer.record)
        api.state.services = app.state.services = Services(
            settings, registry, metrics, records, None if key_file is None else key_file.ring
        )
        following = None if watch is None else asyncio.create_task(follow(watch, registry, settings.watch_interval_s))
        try:
            yield
        finally:
            if following is not None:
                following.cancel()
            if key_file is not None:
                key_file.stop()
            registry.stop()
            metrics.stop()
            if tracer is not None:
                tracer.stop()

    api = FastAPI(
        title="LadaBERT",
        version=_version(),
        description="Text classification with compressed BERT students.",
        servers=[{"url": settings.root_path}] if settings.root_path else None,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    for module in (models, health, metrics_route, oip_models, kserve):
        api.include_router(module.router)
    if settings.asks_for_keys:  # KeyGate asks for a key with the scope admin
        api.include_router(repository.router)
    add_docs(api)
    if settings.playground:
        add_playground(api, settings.root_path)
    describe(api, INFERENCE_ROUTES, with_keys=settings.asks_for_keys)
    api.add_exception_handler(HTTPException, _routing_error)
    document = JSONResponse(api.openapi())  # rendered once

    async def openapi(_: Request) -> Response:
        return document

    gated = KeyGate(api)
    described = {route.path for route in (*models.router.routes, *api.routes) if isinstance(route, Route)}
    routes = [
        Route(route.path, _PostOr(route, gated), methods=["GET", "POST"])
        if route.path in described
        else Route(route.path, route, methods=["POST"])
        for route in INFERENCE_ROUTES
    ]
    app = Application(routes=[*routes, Route("/openapi.json", openapi)], lifespan=lifespan)
    app.settings = settings
    app.router.redirect_slashes = False
    app.router.default = gated
    return app


class _PostOr:
    """A path of which POST is an inference route, and the rest FastAPI's."""

    def __init__(self, route: InferenceRoute, api: ASGIApp) -> None:
        self._route = route
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        await (self._route if scope["method"] == "POST" else self._api)(scope, receive, send)


async def _routing_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return routing_problem(request, error)


def _version() -> str:
    try:
        return metadata.version("ladabert")
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
