"""Wires settings, models and routes into one ASGI application."""

import contextlib
from collections.abc import AsyncIterator
from importlib import metadata

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.loading import load_inference
from service.metrics import Metrics
from service.middleware import RequestIdMiddleware
from service.openapi import install_openapi
from service.problem import routing_problem
from service.registry import Loader, load_registry
from service.routes import classify, health, metrics, models
from service.settings import Settings


def create_app(settings: Settings, load: Loader = load_inference) -> FastAPI:
    """Return the application; its lifespan loads the models (raising StartError) and stops them.

    `load` turns a verified artefact into something that computes; tests give their own.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.metrics = Metrics()
        app.state.registry = load_registry(settings, app.state.metrics, load)
        try:
            yield
        finally:
            app.state.registry.stop()

    app = FastAPI(
        title="LadaBERT",
        version=_version(),
        description="Text classification with compressed BERT students.",
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
    )
    app.state.settings = settings
    app.add_middleware(RequestIdMiddleware)
    app.add_exception_handler(HTTPException, _routing_error)
    for module in (classify, models, health, metrics):
        app.include_router(module.router)
    install_openapi(app)
    return app


async def _routing_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return routing_problem(request, error)


def _version() -> str:
    try:
        return metadata.version("ladabert")
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
