"""Triton's model-repository routes: what is served, load or replace a model, unload it."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ladabert_serve.errors import OUTCOMES, RequestError, StartError
from ladabert_serve.http.body import parse_json
from ladabert_serve.http.inference_route import Services
from ladabert_serve.http.schemas import RepositoryError, RepositoryLine
from ladabert_serve.models.repository import Repository, State, Status

router = APIRouter(prefix="/v2/repository", tags=["repository"])

TRITON_STATES: dict[State, str] = {
    "ready": "READY",
    "loading": "LOADING",
    "draining": "UNLOADING",
    "failed": "UNAVAILABLE",
    "unloaded": "UNAVAILABLE",
}
MAX_VALUES = 64  # in a body
REFUSED = 400
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": RepositoryError, "description": text}
    for status, text in {
        400: "The model was refused, or the body is not as it should be.",
        413: "The body is too large.",
        429: "The bodies of other requests are too large together.",
        503: "The server is shutting down.",
    }.items()
}
NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}


def _body(properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"requestBody": {"required": False, "content": {"application/json": {"schema": schema}}}}


@router.post(
    "/index",
    summary="List models and their states",
    response_model=list[RepositoryLine],
    responses=ERRORS,
    openapi_extra=_body({"ready": {"type": "boolean", "description": "Only models that are served."}}),
)
async def index(request: Request) -> Response:
    """List each version of each model that is served or lies in the models folder."""

    async def answer(registry: Repository, body: dict[str, Any]) -> Response:
        only_ready = body.pop("ready", False)
        if body or not isinstance(only_ready, bool):
            raise StartError("the body may hold ready, true or false, and nothing else")
        lines = [_line(status) for status in await registry.index()]
        return JSONResponse([line for line in lines if line["state"] == "READY" or not only_ready])

    return await _answer(request, answer)


@router.post(
    "/models/{name}/load",
    summary="Load or replace a model",
    response_model=None,
    responses=ERRORS,
    openapi_extra={"parameters": [NAME], **_body({"parameters": {"type": "object", "maxProperties": 0}})},
)
async def load(request: Request) -> Response:
    """Load what lies in the model's folder now, in every worker; requests are answered all the while."""

    async def answer(registry: Repository, body: dict[str, Any]) -> Response:
        if body.pop("parameters", {}) != {} or body:
            raise StartError("a model is loaded from its folder: parameters with a config or files are not supported")
        await registry.load(request.path_params["name"])
        return Response(status_code=200)

    return await _answer(request, answer)


@router.post(
    "/models/{name}/unload",
    summary="Unload a model",
    response_model=None,
    responses=ERRORS,
    openapi_extra={
        "parameters": [NAME],
        **_body({"parameters": {"type": "object", "properties": {"unload_dependents": {"type": "boolean"}}}}),
    },
)
async def unload(request: Request) -> Response:
    """Stop serving a model, in every worker; it finishes what it admitted. A model that is not served is no error."""

    async def answer(registry: Repository, body: dict[str, Any]) -> Response:
        if not isinstance(body.pop("parameters", {}), dict) or body:
            raise StartError("the body may hold parameters, an object, and nothing else")
        await registry.unload(request.path_params["name"])
        return Response(status_code=200)

    return await _answer(request, answer)


async def _answer(request: Request, answer: Callable[[Repository, dict[str, Any]], Awaitable[Response]]) -> Response:
    """Return the answer to a request with a JSON object or nothing in its body; errors as Triton writes them."""
    services: Services = request.app.state.services
    try:
        data = await request.body()
        body = parse_json(data, MAX_VALUES) if data else {}
        if not isinstance(body, dict):
            raise StartError("the body is not a JSON object")
        return await answer(services.registry, body)
    except StartError as error:
        return JSONResponse({"error": str(error)}, REFUSED)
    except RequestError as error:
        return JSONResponse({"error": error.detail}, OUTCOMES[type(error)].status)


def _line(status: Status) -> dict[str, str]:
    return {**status._asdict(), "state": TRITON_STATES[status.state]}
