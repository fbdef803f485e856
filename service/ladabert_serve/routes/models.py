"""GET /models and /models/{name}: what is served, its manifest and its live state."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ladabert_serve.errors import ForbiddenError, UnknownModelError
from ladabert_serve.http.openapi import problem_responses
from ladabert_serve.http.problem import problem_response
from ladabert_serve.http.schemas import ModelDetail, ModelList, ShadowReport
from ladabert_serve.models.repository import Repository
from ladabert_serve.models.served import Served

router = APIRouter(tags=["models"])
NO_SHADOW: dict[str, Any] = {
    "shadow": None,
    "rate": 0,
    "compared": 0,
    "agreed": 0,
    "dropped": {},
    "waiting": 0,
    "disagreements": [],
}
NAME_PARAMETER = {"parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]}


@router.get("/models", summary="List the served models", response_model=ModelList)
async def list_models(request: Request) -> Response:
    """List every served model by name."""
    registry: Repository = request.app.state.services.registry
    models = [_summary(registry, registry.models[name]) for name in sorted(registry.models)]
    return JSONResponse({"default": registry.default, "models": models})


@router.get(
    "/models/{name}",
    summary="Show one model",
    response_model=ModelDetail,
    responses=problem_responses([UnknownModelError]),
    openapi_extra=NAME_PARAMETER,
)
async def show_model(request: Request) -> Response:
    """Show one model's manifest and live state."""
    registry: Repository = request.app.state.services.registry
    try:
        model = registry.get(request.path_params["name"])
    except UnknownModelError as error:
        return problem_response(error, request.state.request_id)
    detail = {
        **_summary(registry, model),
        **model.describe(),
        "manifest": model.artefact.manifest,
    }
    return JSONResponse(detail)


@router.get(
    "/models/{name}/shadow",
    summary="Compare one model with its shadow",
    response_model=ShadowReport,
    responses=problem_responses([UnknownModelError, ForbiddenError]),
    openapi_extra=NAME_PARAMETER,
)
async def show_shadow(request: Request) -> Response:
    """Show how far a model and its shadow agree, and the last texts on which they do not, as this worker counted."""
    registry: Repository = request.app.state.services.registry
    try:
        model = registry.get(request.path_params["name"])
    except UnknownModelError as error:
        return problem_response(error, request.state.request_id)
    report = NO_SHADOW if model.sampler is None else model.sampler.describe()
    return JSONResponse({"model": model.name, "version": model.artefact.version, **report})


def _summary(registry: Repository, model: Served) -> dict[str, Any]:
    artefact = model.artefact
    return {
        "name": model.name,
        "aliases": list(artefact.aliases),
        "version": artefact.version,
        "default": model.name == registry.default,
        "state": model.state,
        "task": artefact.task,
        "problem_type": artefact.problem_type,
        "labels": list(artefact.labels),
        "max_length": artefact.max_length,
        "precision": model.precision,
        "provider": model.provider,
        "stages": [stage.name for stage in artefact.stages],
    }
