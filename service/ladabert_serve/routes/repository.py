"""Triton's model-repository routes: what is served, load or replace a model, unload it."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ladabert_serve.errors import OUTCOMES, InvalidRequestError, RequestError, StartError
from ladabert_serve.http.body import parse_json
from ladabert_serve.http.inference_route import Services
from ladabert_serve.http.schemas import (
    IndexRequest,
    LoadRequest,
    RepositoryError,
    RepositoryLine,
    UnloadRequest,
    parse_request,
)
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
BodyT = TypeVar("BodyT", bound=BaseModel)


def _body(model: type[BaseModel]) -> dict[str, Any]:
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"required": False, "content": content}}


@router.post(
    "/index",
    summary="List models and their states",
    response_model=list[RepositoryLine],
    responses=ERRORS,
    openapi_extra=_body(IndexRequest),
)
async def index(request: Request) -> Response:
    """List each version of each model that is served or lies in the models folder."""

    async def answer(registry: Repository, body: IndexRequest) -> Response:
        lines = [_line(status) for status in await registry.index()]
        return JSONResponse([line for line in lines if line["state"] == "READY" or not body.ready])

    return await _answer(request, IndexRequest, answer)


@router.post(
    "/models/{name}/load",
    summary="Load or replace a model",
    response_class=Response,
    responses=ERRORS,
    openapi_extra={"parameters": [NAME], **_body(LoadRequest)},
)
async def load(request: Request) -> Response:
    """Load what lies in the model's folder now, in every worker; requests are answered all the while."""

    async def answer(registry: Repository, _: LoadRequest) -> Response:
        await registry.load(request.path_params["name"])
        return Response()

    return await _answer(request, LoadRequest, answer)


@router.post(
    "/models/{name}/unload",
    summary="Unload a model",
    response_class=Response,
    responses=ERRORS,
    openapi_extra={"parameters": [NAME], **_body(UnloadRequest)},
)
async def unload(request: Request) -> Response:
    """Stop serving a model, in every worker; it finishes what it admitted. A model that is not served is no error."""

    async def answer(registry: Repository, _: UnloadRequest) -> Response:
        await registry.unload(request.path_params["name"])
        return Response()

    return await _answer(request, UnloadRequest, answer)


async def _answer(
    request: Request, model: type[BodyT], answer: Callable[[Repository, BodyT], Awaitable[Response]]
) -> Response:
    """Return the answer to a request with a JSON object or nothing in its body; errors as Triton writes them."""
    services: Services = request.app.state.services
    try:
        data = await request.body()
        body = parse_request(model, parse_json(data, MAX_VALUES) if data else {})
        return await answer(services.registry, body)
    except (StartError, InvalidRequestError) as error:
        return JSONResponse({"error": str(error)}, REFUSED)
    except RequestError as error:
        return JSONResponse({"error": error.detail}, OUTCOMES[type(error)].status)


def _line(status: Status) -> dict[str, str]:
    return {**status._asdict(), "state": TRITON_STATES[status.state]}
