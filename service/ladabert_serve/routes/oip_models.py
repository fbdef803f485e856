"""GET /v2…: the server and its models as the Open Inference Protocol describes them, with Triton's configuration."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ladabert_serve.errors import NotReadyError, RequestError
from ladabert_serve.http.oip_schemas import (
    InferError,
    ModelConfig,
    ModelMetadata,
    ModelNames,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
)
from ladabert_serve.http.openapi import PROBLEM
from ladabert_serve.models.repository import Repository
from ladabert_serve.models.served import Served
from ladabert_serve.routes.health import liveness_problem, readiness_problem
from ladabert_serve.routes.oip import find, refuse

EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "parameters"]
VARIES = -1  # as a size
CONFIG_TYPE = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32"}

Responses = dict[int | str, dict[str, Any]]
NO_SUCH_MODEL: Responses = {404: {"description": "No such model or version.", "model": InferError, "content": PROBLEM}}
NOT_READY: Responses = {503: {"description": "It cannot answer now.", "model": InferError}}
MODEL_PATHS = ("/models/{name}", "/models/{name}/versions/{version}")

TensorShape = tuple[str, str, list[int]]  # name, datatype and shape

router = APIRouter(prefix="/v2", tags=["open inference protocol"])


@router.get("", summary="Describe the server", response_model=ServerMetadata)
async def describe_server(request: Request) -> Response:
    """Name the server, its version and the extensions of the protocol that it has."""
    return JSONResponse({"name": "ladabert", "version": request.app.version, "extensions": EXTENSIONS})


@router.get("/health/live", summary="Is the process up?", response_model=ServerLive, responses=NOT_READY)
async def live(request: Request) -> Response:
    """Answer 200 when /health/live does."""
    problem = liveness_problem(_registry(request))
    return JSONResponse({"live": True}) if problem is None else refuse(problem)


@router.get("/health/ready", summary="Can it answer requests?", response_model=ServerReady, responses=NOT_READY)
async def ready(request: Request) -> Response:
    """Answer 200 when /health/ready does: when the default model can answer."""
    problem = readiness_problem(_registry(request))
    return JSONResponse({"ready": True}) if problem is None else refuse(problem)


@router.get("/models", summary="List the served models", response_model=ModelNames)
async def list_models(request: Request) -> Response:
    """List every served model by name."""
    return names_response(_registry(request))


def names_response(registry: Repository) -> Response:
    """List every served model by name."""
    return JSONResponse({"models": sorted(registry.models)})


def _describe(model: Served) -> Response:
    """Name a model's version and its input and output tensors."""
    return JSONResponse(
        {
            "name": model.name,
            "versions": [model.artefact.version],
            "platform": f"{_runtime(model)}_onnx",
            "inputs": [{"name": name, "datatype": type_, "shape": shape} for name, type_, shape in _inputs(model)],
            "outputs": [{"name": name, "datatype": type_, "shape": shape} for name, type_, shape in _outputs(model)],
        }
    )


def ready_response(model: Served) -> Response:
    """Answer 200 when the model can answer."""
    if model.state != "ready":
        return refuse(NotReadyError(f"model {model.name!r} is {model.state}"))
    return JSONResponse({"name": model.name, "ready": True})


def _configure(model: Served) -> Response:
    """Describe a model in the form of Triton's model configuration."""

    def tensors(listed: list[TensorShape]) -> list[dict[str, Any]]:
        return [{"name": name, "data_type": CONFIG_TYPE[type_], "dims": shape} for name, type_, shape in listed]

    return JSONResponse(
        {
            "name": model.name,
            "platform": f"{_runtime(model)}_onnx",
            "backend": _runtime(model),
            "max_batch_size": 0,
            "input": tensors(_inputs(model)),
            "output": tensors(_outputs(model)),
        }
    )


async def refuse_statistics(_: Request) -> Response:
    """Refuse: the server keeps its figures as Prometheus metrics."""
    return JSONResponse({"error": "this server keeps no statistics in Triton's form; /metrics has its figures"}, 404)


def _add(path: str, endpoint: Callable[[Request], Awaitable[Response]], **documentation: Any) -> None:
    """Add a route whose path may have a model's name and version."""
    names = [name for name in ("name", "version") if f"{{{name}}}" in path]
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    router.add_api_route(path, endpoint, methods=["GET"], openapi_extra={"parameters": parameters}, **documentation)


def _serve(
    suffix: str, answer: Callable[[Served], Response], summary: str, body: type[BaseModel], more: Responses
) -> None:
    """Add a route about one model, with and without its version in the path."""

    async def endpoint(request: Request) -> Response:
        name, version = request.path_params["name"], request.path_params.get("version")
        try:
            return answer(find(_registry(request), name, version))
        except RequestError as error:
            return refuse(error)

    for path in MODEL_PATHS:
        _add(
            path + suffix,
            endpoint,
            name=f"{answer.__name__}{suffix}",
            summary=summary,
            description=answer.__doc__,
            response_model=body,
            responses={**NO_SUCH_MODEL, **more},
        )


def _registry(request: Request) -> Repository:
    registry: Repository = request.app.state.services.registry
    return registry


def _runtime(model: Served) -> str:
    return "openvino" if model.provider == "openvino" else "onnxruntime"


def _inputs(model: Served) -> list[TensorShape]:
    names = ["text", "text_pair"] if model.artefact.task == "pair" else ["text"]
    return [(name, "BYTES", [VARIES]) for name in names]


def _outputs(model: Served) -> list[TensorShape]:
    return [
        ("label", "BYTES", [VARIES]),
        ("score", "FP32", [VARIES]),
        ("scores", "FP32", [VARIES, len(model.artefact.labels)]),
    ]


for statistics in ("/models/stats", *(f"{path}/stats" for path in MODEL_PATHS)):  # before a model of that name
    _add(statistics, refuse_statistics, summary="No statistics", status_code=404, response_model=InferError)
_serve("", _describe, "Describe a model", ModelMetadata, {})
_serve("/ready", ready_response, "Can a model answer requests?", ModelReady, NOT_READY)
_serve("/config", _configure, "Describe a model for Triton's tools", ModelConfig, {})
